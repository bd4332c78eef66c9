//! `ipam stats` and `ipam metrics`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::exit::{Exit, Stop};
use super::format::{Column, Format, Output};
use super::gauges::{Gauges, size};
use super::metrics;
use super::networks::Configured;
use super::pools::{Usage, usages};
use super::terminal::Terminal;
use super::time::length;
use super::view::View;
use crate::Ledger;
use crate::history::{self, Tenancy};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam stats
  ipam stats -o json
  ipam stats -o prometheus";

pub(super) const METRICS_EXAMPLES: &str = "\
Examples:
  ipam metrics
  ipam metrics -o json
  ipam metrics --textfile /var/lib/node_exporter/textfile_collector/ipam.prom";

/// Shows counts, churn and forecast.
#[derive(Debug, clap::Args)]
pub(super) struct Stats {
    #[command(flatten)]
    output: Output,
}

/// Prints metrics in Prometheus' text format.
#[derive(Debug, clap::Args)]
pub(super) struct Metrics {
    /// How to print. What is not Prometheus' format is that of ipam stats.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Prometheus, help_heading = "Output")]
    output: Format,
    /// Writes into this file instead, whole or not at all, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

/// Counts of a whole ledger.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    pub leases: usize,
    /// Addresses of these leases.
    pub addresses: usize,
    pub cooling: usize,
    pub reservations: usize,
    /// Releases that are written down and not carried out.
    pub pending_releases: usize,
    /// Damaged ledgers that were put aside.
    pub quarantined: usize,
    /// How many changes of leases there have been.
    pub generation: u64,
    /// The database's files, in bytes.
    pub database_bytes: u64,
    /// The history's files, in bytes.
    pub history_bytes: u64,
    /// Lines of the history that cannot be understood.
    pub history_garbage: usize,
    /// How long it took to read the ledger, its lock included, in seconds.
    pub read_seconds: f64,
    pub pools: Vec<PoolStats>,
}

/// One pool, how it fills, and when it will be full.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolStats {
    #[serde(flatten)]
    pub usage: Usage,
    /// Leases that began within the last hour.
    pub begun_last_hour: u64,
    /// Leases that ended within the last hour.
    pub ended_last_hour: u64,
    /// How long the leases that ended within the last day stood: the median, in seconds; missing if none ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_life_seconds: Option<i64>,
    /// When the pool is full, in seconds from now, if it goes on as in the last hour; missing if it does not fill, or not
    /// within a thousand years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted_in_seconds: Option<u64>,
}

impl Stats {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        if self.output.output == Format::Prometheus {
            terminal.print(&metrics_of(ledger, conf_dir)?)?;
            return Ok(Exit::Done);
        }
        let counts = Counts::of(ledger, conf_dir)?;
        match self.output.output {
            Format::Table | Format::Wide => {
                let lines = counts.lines();
                let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
                let text: String = lines.iter().map(|(name, value)| format!("{name:<width$}{value}\n")).collect();
                terminal.print(&text)?;
                if !counts.pools.is_empty() {
                    terminal.print("\n")?;
                    terminal.print(&self.output.table(&counts.pools, &COLUMNS, terminal.colour)?)?;
                }
            }
            Format::Json | Format::Jsonl | Format::Yaml | Format::Prometheus => {
                terminal.print(&self.output.document("Stats", &[counts])?.unwrap_or_default())?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Metrics {
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        if self.output != Format::Prometheus {
            if self.textfile.is_some() {
                let text = "--textfile is read by node_exporter, which wants -o prometheus";
                return Err(Stop::new(Exit::Usage, text));
            }
            let output = Output { output: self.output, ..Output::default() };
            return Stats { output }.run(ledger, conf_dir, terminal);
        }
        let text = metrics_of(ledger, conf_dir)?;
        let Some(path) = &self.textfile else {
            terminal.print(&text)?;
            return Ok(Exit::Done);
        };
        let unfinished = path.with_extension("prom.unfinished");
        let written = written_aside(&unfinished, text.as_bytes()).and_then(|()| fs::rename(&unfinished, path));
        written.map_err(Stop::file("write", path))?;
        Ok(Exit::Done)
    }
}

/// A new file: others may write to the collector's folder, and what they have linked there is not written to.
fn written_aside(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => File::create_new(path)?.write_all(text),
    }
}

fn metrics_of(ledger: &Ledger, conf_dir: &Path) -> Result<String, Stop> {
    let started = Instant::now();
    let view = View::of(ledger, "ipam metrics")?;
    let read_seconds = started.elapsed().as_secs_f64();
    Ok(metrics::print(&Gauges::seen(ledger, &view, &Configured::ours(conf_dir), read_seconds), None))
}

impl Counts {
    pub fn of(ledger: &Ledger, conf_dir: &Path) -> Result<Self, Stop> {
        let started = Instant::now();
        let view = View::of(ledger, "ipam stats")?;
        let read_seconds = started.elapsed().as_secs_f64();
        let history = history::read(ledger.state_dir());
        let tenancies = history::tenancies(&history.events, view.leases());
        let usages = usages(&view, &Configured::ours(conf_dir));
        Ok(Self {
            leases: view.leases().len(),
            addresses: view.leases().iter().map(|lease| lease.ips().count()).sum(),
            cooling: view.cooling().count(),
            reservations: view.reservations().len(),
            pending_releases: ledger.pending().len(),
            quarantined: ledger.quarantined().map_or(0, |all| all.len()),
            generation: view.contents.as_ref().map_or(0, |contents| contents.generation),
            database_bytes: size(&ledger.dir().join("ledger")),
            history_bytes: history::files(ledger.state_dir()).iter().map(|path| size(path)).sum(),
            history_garbage: history.garbage.len(),
            read_seconds,
            pools: usages.into_iter().map(|usage| PoolStats::of(usage, &tenancies, view.now)).collect(),
        })
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let bytes = |bytes: u64| match bytes {
            0..10_240 => format!("{bytes} B"),
            10_240..10_485_760 => format!("{} KiB", bytes / 1024),
            _ => format!("{} MiB", bytes / (1024 * 1024)),
        };
        let garbage = match self.history_garbage {
            0 => String::new(),
            count => format!(", {count} lines cannot be understood: ipam check"),
        };
        vec![
            ("Leases", format!("{} ({} addresses)", self.leases, self.addresses)),
            ("Cooling", self.cooling.to_string()),
            ("Reservations", self.reservations.to_string()),
            ("Changes", self.generation.to_string()),
            ("Pending releases", self.pending_releases.to_string()),
            ("Quarantined", self.quarantined.to_string()),
            ("Database", format!("{}, read in {:.1} ms", bytes(self.database_bytes), self.read_seconds * 1000.0)),
            ("History", format!("{}{garbage}", bytes(self.history_bytes))),
        ]
    }
}

impl PoolStats {
    fn of(usage: Usage, tenancies: &[Tenancy], now: Timestamp) -> Self {
        let here = |tenancy: &&Tenancy| {
            let is_here = |recorded: &crate::RecordedAddress| recorded.pool == usage.pool;
            tenancy.lease.attachment.network.as_str() == usage.network && tenancy.lease.addresses.iter().any(is_here)
        };
        let within = |at: Timestamp, hours: i64| now.duration_since(at) < SignedDuration::from_hours(hours);
        let mine: Vec<&Tenancy> = tenancies.iter().filter(here).collect();
        let begun = mine.iter().filter(|it| within(it.from, 1)).count() as u64;
        let ended = mine.iter().filter(|it| it.to().is_some_and(|to| within(to, 1))).count() as u64;
        let of_today =
            mine.iter().filter_map(|it| it.to().filter(|to| within(*to, 24)).map(|to| to.duration_since(it.from)));
        let mut lives: Vec<i64> = of_today.map(|life| life.as_secs()).collect();
        lives.sort_unstable();
        let free = usage.free.0;
        let growth = u128::from(begun.saturating_sub(ended));
        let exhausted = free.saturating_mul(3600).checked_div(growth).and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            usage,
            begun_last_hour: begun,
            ended_last_hour: ended,
            median_life_seconds: lives.get(lives.len() / 2).copied(),
            exhausted_in_seconds: exhausted.filter(|seconds| *seconds < A_THOUSAND_YEARS),
        }
    }
}

const COLUMNS: [Column<PoolStats>; 8] = [
    Column::new("NETWORK", |it| it.usage.network.clone().into()),
    Column::new("CIDR", |it| it.usage.cidrs.clone().into()),
    Column::new("USED", |it| it.usage.used.people().into()),
    Column::new("FREE", |it| it.usage.free.people().into()),
    Column::new("BEGUN/H", |it| it.begun_last_hour.to_string().into()),
    Column::new("ENDED/H", |it| it.ended_last_hour.to_string().into()),
    Column::new("MEDIAN-LIFE", |it| {
        it.median_life_seconds.map(|seconds| length(SignedDuration::from_secs(seconds))).unwrap_or_default().into()
    }),
    Column::new("FULL-IN", |it| full_in(it.exhausted_in_seconds).into()),
];

/// In seconds. A larger number is no forecast, and above 2^53 no number that every reader of JSON understands.
const A_THOUSAND_YEARS: u64 = 1000 * 365 * 86400;

/// Nobody plans for longer than ten years.
fn full_in(seconds: Option<u64>) -> String {
    const TEN_YEARS: u64 = 10 * 365 * 86400;
    match seconds {
        None => String::new(),
        Some(seconds) if seconds > TEN_YEARS => ">10y".to_owned(),
        Some(seconds) => length(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))),
    }
}
