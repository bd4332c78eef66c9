//! `cargo xtask bench portmap`: what a new connection to a host port costs, and what one more host port does and its
//! end, by the number of ports that are mapped already.

mod candidate;
mod host;
mod rules;

use std::time::{Duration, Instant};

use comfy_table::{Table, presets};

use self::candidate::Candidate;
use self::host::Host;
use super::pairs::quantile;
use crate::error::Error;
use crate::{build, packages, say};

/// The first mapped port.
const FIRST: usize = 20_000;

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask bench portmap            five rounds, with up to 5,000 mapped ports
  cargo xtask bench portmap --rounds 3 --connections 200";

/// How many ADDs are measured at least, however long they take.
const LEAST_ADDS: usize = 3;
/// After which time no further one begins.
const ADDS_FOR: Duration = Duration::from_millis(500);

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// How often everything is measured, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many ports are mapped; several numbers from 1 on, with commas between them.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,100,1000,5000")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=40_000))]
    ports: Vec<u16>,
    /// Connections of one measurement.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Measures the podwire-portmap in this folder instead of building one.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<std::path::PathBuf>,
    /// ADDs, and as many DELs, of one measurement; fewer if ADDs take long.
    #[arg(long, default_value_t = 25)]
    adds: usize,
}

/// What was measured of one candidate at one size.
#[derive(Default)]
struct Figures {
    /// Connections a second to the first and the last mapped port.
    first: Vec<f64>,
    last: Vec<f64>,
    /// Milliseconds of an ADD and of its DEL, from start to end of the process.
    add: Vec<f64>,
    delete: Vec<f64>,
}

/// Builds, leaves the machine's namespaces, measures and prints.
pub fn run(options: &Options) -> Result<(), Error> {
    packages::ensure(packages::TEST)?;
    let folder = match &options.plugin_dir {
        Some(folder) => folder.clone(),
        None => build::these(&["podwire-portmap"])?,
    };
    sandbox::enter().map_err(Error::Sandbox)?;
    let host = Host::new()?;
    let candidates = candidate::all(&folder.join("podwire-portmap"), &host)?;
    say("connections a second to the first and the last mapped port, by a client on the node's network;");
    say("as many as the median one would make; ADD and DEL of a pod with one more port, the whole process;");
    say("medians of interleaved rounds, (10 % - 90 %)");
    let sizes: Vec<usize> = options.ports.iter().copied().map(usize::from).collect();
    let mut figures: Vec<Vec<Figures>> =
        candidates.iter().map(|_| sizes.iter().map(|_| Figures::default()).collect()).collect();
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        for (size, mapped) in sizes.iter().copied().enumerate() {
            // Who begins has a colder machine.
            for turn in 0..candidates.len() {
                let index = (turn + round) % candidates.len();
                let measured = measure(&candidates[index], &host, mapped, options)?;
                let into = &mut figures[index][size];
                into.first.extend(measured.first);
                into.last.extend(measured.last);
                into.add.extend(measured.add);
                into.delete.extend(measured.delete);
            }
        }
    }
    say(&table(&candidates, &sizes, &figures));
    for (candidate, figures) in candidates.iter().zip(&figures) {
        say(&growth(candidate, &sizes, figures));
    }
    Ok(())
}

fn measure(candidate: &Candidate, host: &Host, mapped: usize, options: &Options) -> Result<Figures, Error> {
    host.clean()?;
    candidate.fill(host, mapped)?;
    let mut figures = Figures::default();
    let last = FIRST + mapped - 1;
    for (port, rates) in [(FIRST, &mut figures.first), (last, &mut figures.last)] {
        // The first ones fill caches.
        host.connect(port, options.connections / 10)?;
        rates.push(host.connect(port, options.connections)?);
    }
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let start = Instant::now();
    let mut added = 0;
    while added < options.adds && (added < LEAST_ADDS || start.elapsed() <= ADDS_FOR) {
        figures.add.extend(candidate.add_one(added)?.map(milliseconds));
        added += 1;
    }
    for number in 0..added {
        figures.delete.extend(candidate.delete_one(number)?.map(milliseconds));
    }
    Ok(figures)
}

fn table(candidates: &[Candidate], sizes: &[usize], figures: &[Vec<Figures>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "mapped", "first port, conn/s", "last port, conn/s", "ADD, ms", "DEL, ms"]);
    for (candidate, figures) in candidates.iter().zip(figures) {
        for (mapped, figures) in sizes.iter().zip(figures) {
            let cell = |values: &[f64], digits: usize| match values {
                [] => "-".to_owned(),
                _ => {
                    let [low, middle, high] = [0.1, 0.5, 0.9].map(|part| quantile(values, part));
                    format!("{middle:.digits$} ({low:.digits$} - {high:.digits$})")
                }
            };
            table.add_row([
                candidate.name.clone(),
                mapped.to_string(),
                cell(&figures.first, 0),
                cell(&figures.last, 0),
                cell(&figures.add, 1),
                cell(&figures.delete, 1),
            ]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// How much dearer the largest size may be for a cost to be called flat.
const FLAT: f64 = 1.2;

/// How much dearer the largest size is than the smallest, and whether that is flat.
fn growth(candidate: &Candidate, sizes: &[usize], figures: &[Figures]) -> String {
    let (Some(small), Some(large)) = (figures.first(), figures.last()) else { return String::new() };
    let (smallest, largest) = (sizes.first().unwrap_or(&0), sizes.last().unwrap_or(&0));
    let median = |values: &[f64]| quantile(values, 0.5);
    let connect = median(&small.last) / median(&large.last);
    let [add, delete] = [(&large.add, &small.add), (&large.delete, &small.delete)].map(|(l, s)| median(l) / median(s));
    let word = |growth: f64| {
        let verdict = if growth <= FLAT { "flat" } else { "not flat" };
        if growth.is_nan() { "-".to_owned() } else { format!("{growth:.2}x ({verdict})") }
    };
    format!(
        "{}: from {smallest} to {largest} mapped ports a connection to the last costs {}, an ADD {}, a DEL {}; flat is up to {FLAT}x",
        candidate.name,
        word(connect),
        word(add),
        word(delete)
    )
}
