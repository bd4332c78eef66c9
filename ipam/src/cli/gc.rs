//! `ipam gc`.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::Serialize;

use super::contract::Lease;
use super::deed::Doing;
use super::exit::{Exit, Stop};
use super::format::{Column, Output, counted};
use super::list::short;
use super::release::release_all;
use super::select::Filter;
use super::terminal::Terminal;
use super::time::{length, parse_length};
use super::view::View;
use crate::liveness::{Census, NetnsState};
use crate::{Ledger, Record};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam gc
  ipam gc --apply
  ipam gc --apply --yes --min-age 1h --network k8s --reason 'node was restored'
A lease is dead by two signs: its pod's network namespace is not where it was, and no process lives in it. A link that
says it is the pod's is a sign of life. What cannot be seen is not taken for gone.
Run it on the node itself, in the namespaces of its runtime: from elsewhere it ends nothing.";

/// Releases the leases of pods that are gone.
#[derive(Debug, clap::Args)]
pub(super) struct Gc {
    /// Releases them. Without it they are only shown.
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Leaves leases alone that are younger: their ADD may be under way.
    #[arg(long, value_name = "AGE", value_parser = parse_length, default_value = "5m")]
    min_age: SignedDuration,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    doing: Doing,
    #[command(flatten)]
    output: Output,
}

/// A lease whose pod is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Dead {
    lease: Lease,
    /// What says so, each on its own.
    signs: [String; 2],
    /// In seconds.
    age: i64,
}

impl Gc {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam gc")?;
        let asked = self.filter.asked();
        if !asked.is_empty() && !view.leases().iter().any(|lease| self.filter.takes(lease)) {
            self.output.print_none(terminal, "DeadLeaseList")?;
            return Err(Stop::nothing_fits("lease", &asked, ledger.dir().display(), "ipam list"));
        }
        let mut census = Census::from_here();
        let mut dead: Vec<(&Record, Dead)> = Vec::new();
        let (mut unknown, mut young, mut living, mut all) = (0, 0, 0, 0);
        for lease in view.leases().iter().filter(|lease| self.filter.takes(lease)) {
            all += 1;
            let age = view.now.duration_since(lease.created);
            match (census.is_provably_dead(lease), age >= self.min_age) {
                (true, true) => {
                    let signs = SIGNS.map(str::to_owned);
                    dead.push((lease, Dead { lease: lease.into(), signs, age: age.as_secs() }));
                }
                (true, false) => young += 1,
                (false, is_old) if matches!(census.netns(lease), NetnsState::Unknown(_)) => {
                    unknown += usize::from(is_old);
                }
                (false, _) => living += 1,
            }
        }
        if young > 0 {
            terminal.note(&format!(
                "note: {} younger than {}, without a pod: the ADD may be under way; if not: --min-age 0s",
                counted(young, "lease"),
                length(self.min_age)
            ))?;
        }
        if unknown > 0 {
            terminal.note(&format!(
                "note: of {} nobody can tell from here whether the pod is there; see: ipam verify",
                counted(unknown, "lease")
            ))?;
        }
        let (leases, rows): (Vec<&Record>, Vec<Dead>) = dead.into_iter().unzip();
        if rows.is_empty() {
            if self.output.is_for_people() {
                nobody_is_gone(living, all).map_or(Ok(()), |text| terminal.note(&text))?;
            } else {
                self.output.print(terminal, "DeadLeaseList", &rows, &rows, &COLUMNS)?;
            }
            return Ok(Exit::Done);
        }
        if !self.apply {
            self.output.print(terminal, "DeadLeaseList", &rows, &rows, &COLUMNS)?;
            terminal.note("nothing was released; --apply does it")?;
            return Ok(Exit::Findings);
        }
        let for_people = Output::default();
        let text = for_people.table(&rows, &COLUMNS, false)?;
        terminal.note(text.trim_end())?;
        terminal.confirm(&format!("Release these {}?", rows.len()), self.doing.yes)?;
        release_all(ledger, &leases, &self.doing, "ipam gc", terminal)
    }
}

/// Nothing is said of the living if there are none but such as were told apart.
fn nobody_is_gone(living: usize, all: usize) -> Option<String> {
    let other = if living < all { "other " } else { "" };
    match (all, living) {
        (0, _) => Some("there are no leases, so no pod is gone".to_owned()),
        (_, 0) => None,
        (_, 1) => Some(format!("no pod of the {other}lease is gone")),
        (_, _) => Some(format!("no pod of the {other}{living} leases is gone")),
    }
}

/// What [`Census::is_provably_dead`] goes by.
const SIGNS: [&str; 2] = ["its network namespace is gone", "no process lives in it"];

const COLUMNS: [Column<Dead>; 6] = [
    Column::new("ADDRESS", |dead| {
        let addresses = dead.lease.addresses.iter().map(|it| it.address.split('/').next().unwrap_or_default());
        addresses.collect::<Vec<_>>().join(",").into()
    }),
    Column::new("POD", |dead| {
        let names = dead.lease.pod.iter().flat_map(|pod| [&pod.namespace, &pod.name]).flatten();
        names.map(String::as_str).collect::<Vec<_>>().join("/").into()
    }),
    Column::new("CONTAINER", |dead| short(&dead.lease.attachment.container_id).into()),
    Column::new("NETWORK", |dead| dead.lease.attachment.network.clone().into()),
    Column::new("AGE", |dead| length(SignedDuration::from_secs(dead.age)).into()),
    Column::new("WHY", |dead| dead.signs.join(", ").into()),
];
