//! `ipam pools`.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::contract::Count;
use super::exit::{Exit, Stop};
use super::format::{Cell, Column, Output};
use super::networks::Configured;
use super::palette;
use super::terminal::Terminal;
use super::view::View;
use crate::Ledger;
use crate::operation::KnownPool;
use crate::span::Span;

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam pools
  ipam pools --network k8s -o wide
  ipam pools -o json | jq '.items[] | {network, free}'";

/// Shows how full the pools are.
#[derive(Debug, clap::Args)]
pub(super) struct Pools {
    /// Only this network.
    #[arg(short, long, value_name = "NAME", add = super::complete::networks(), help_heading = "Filters")]
    network: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// One pool and how full it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    pub network: String,
    /// The pool, as its first and last address.
    pub pool: String,
    /// The subnets it takes addresses from, as people write them.
    pub cidrs: String,
    /// Addresses that can be leased.
    pub capacity: Count,
    /// Addresses that are leased, to this network or another that shares them.
    pub used: Count,
    /// Addresses at rest after a release.
    pub cooling: Count,
    /// Addresses that are set aside and not leased.
    pub reserved: Count,
    /// Addresses that can be leased now.
    pub free: Count,
    /// How long a released address rests, in seconds.
    pub cooldown_seconds: f64,
    /// Where the pool is known from.
    /// Whether a cooling address is not given even if there is no other.
    pub strict: bool,
    pub source: Source,
}

/// Where a pool is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// An ADD of this boot named it, and a config does.
    Both,
    /// An ADD of this boot named it; no config does now.
    Ledger,
    /// A config names it; no ADD of this boot has.
    Config,
}

impl Pools {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam pools")?;
        let configured = Configured::ours(conf_dir);
        let mut usages = usages(&view, &configured);
        usages.retain(|usage| self.network.as_ref().is_none_or(|network| *network == usage.network));
        if let Some(network) = self.network.as_ref().filter(|_| usages.is_empty()) {
            self.output.print_none(terminal, "PoolList")?;
            note_unread(&configured, terminal)?;
            let place = format!("{} and {}", ledger.dir().display(), conf_dir.display());
            return Err(Stop::nothing_fits("pool", &[format!("--network {network}")], place, "ipam pools"));
        }
        if usages.is_empty() && self.output.is_for_people() {
            let text = format!("no pools: no ADD has named one in {}", ledger.dir().display());
            terminal.note(&format!("{text}, and no config in {} does", conf_dir.display()))?;
        }
        self.output.print(terminal, "PoolList", &usages, &usages, &COLUMNS)?;
        note_unread(&configured, terminal)?;
        view.note_problems(ledger, terminal)?;
        Ok(Exit::Done)
    }
}

/// A pool may be missing because its config cannot be understood.
fn note_unread(configured: &Configured, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    configured
        .problems
        .iter()
        .try_for_each(|(path, problem)| terminal.note(&format!("note: {}: {problem}", path.display())))
}

/// Every pool that the ledger or a config knows.
pub(super) fn known(view: &View, configured: &Configured) -> Vec<(KnownPool, Source)> {
    let mut known: Vec<(KnownPool, Source)> = view.pools().iter().map(|pool| (pool.clone(), Source::Ledger)).collect();
    for pool in configured.pools() {
        let same = |(known, _): &&mut (KnownPool, Source)| known.network == pool.network && known.name == pool.name;
        match known.iter_mut().find(same) {
            Some(both) => *both = (pool, Source::Both),
            None => known.push((pool, Source::Config)),
        }
    }
    known.sort_by(|(one, _), (other, _)| (&one.network, &one.name).cmp(&(&other.network, &other.name)));
    known
}

pub(super) fn usages(view: &View, configured: &Configured) -> Vec<Usage> {
    known(view, configured).iter().map(|(pool, source)| usage(view, pool, *source)).collect()
}

fn usage(view: &View, known: &KnownPool, source: Source) -> Usage {
    let pool = &known.pool;
    let used = view.leases().iter().flat_map(crate::Record::ips).filter(|ip| pool.leases(*ip));
    let used: Vec<_> = used.collect();
    let reservations: Vec<Span> = view.reservations().iter().map(|it| Span::of(it.cidr)).collect();
    let in_reservation = |ip: &std::net::IpAddr| reservations.iter().any(|span| span.contains(*ip));
    let open = pool.without(&reservations).capacity();
    let reserved = pool.capacity() - open;
    let used_reserved = used.iter().filter(|ip| in_reservation(ip)).count() as u128;
    let cooling = view.cooling().filter(|it| pool.leases(it.address) && !in_reservation(&it.address)).count() as u128;
    let used = used.len() as u128;
    Usage {
        network: known.network.to_string(),
        pool: known.name.clone(),
        cidrs: pool.to_string(),
        capacity: Count(pool.capacity()),
        used: Count(used),
        cooling: Count(cooling),
        reserved: Count(reserved.saturating_sub(used_reserved)),
        free: Count(open.saturating_sub(used - used_reserved).saturating_sub(cooling)),
        cooldown_seconds: std::time::Duration::from_millis(known.cooldown_ms).as_secs_f64(),
        strict: known.strict,
        source,
    }
}

impl Usage {
    /// How much of the pool cannot be leased now, in percent.
    #[expect(clippy::cast_precision_loss, reason = "people read a percentage")]
    pub fn percent(&self) -> f64 {
        let Count(capacity) = self.capacity;
        let taken = capacity.saturating_sub(self.free.0);
        if capacity == 0 { 100.0 } else { taken as f64 * 100.0 / capacity as f64 }
    }
}

/// A share that is not nothing is not shown as nothing.
pub(super) fn percentage(percent: f64) -> String {
    match percent {
        0.0 => "0%".to_owned(),
        small if small < 1.0 => "<1%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

const COLUMNS: [Column<Usage>; 10] = [
    Column::new("NETWORK", |usage| usage.network.clone().into()),
    Column::new("CIDR", |usage| usage.cidrs.clone().into()),
    Column::new("TOTAL", |usage| usage.capacity.people().into()),
    Column::new("USED", |usage| usage.used.people().into()),
    Column::new("COOLING", |usage| usage.cooling.people().into()),
    Column::new("RESERVED", |usage| usage.reserved.people().into()),
    Column::new("FREE", |usage| usage.free.people().into()),
    Column::new("USE%", |usage| {
        let percent = usage.percent();
        let style = match percent {
            full if full >= 95.0 => palette::BAD,
            much if much >= 80.0 => palette::WARNING,
            _ => anstyle::Style::new(),
        };
        Cell::styled(percentage(percent), style)
    }),
    Column::wide("COOLDOWN", |usage| format!("{}s", usage.cooldown_seconds).into()),
    Column::wide("KNOWN-FROM", |usage| {
        match usage.source {
            Source::Both => "ledger, config",
            Source::Ledger => "ledger",
            Source::Config => "config",
        }
        .into()
    }),
];
