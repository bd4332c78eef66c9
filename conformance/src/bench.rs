//! Compares the speed of two targets: the same work, in turns, so that what else the machine does hits both alike.

use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cases;
use crate::error::Error;
use crate::host::pod::Pod;
use crate::host::{Host, Profile, exec, shape};
use crate::report;
use crate::runner::{self, Options};
use crate::target::Target;
use crate::verdict::{Finding, Verdict};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Examples:
  cni-conformance bench targets/reference-chain.toml targets/podwire-chain.toml --plugin-dir ./bin
  cni-conformance bench targets/reference-ptp.toml my.toml --present 0 --present 200 --rounds 50 -o json

The rounds of both are taken in turns, so that what else the machine does hits both alike.";

/// What to compare.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The target file that the other is compared with.
    base: PathBuf,
    /// The target file that is compared.
    other: PathBuf,
    /// Folder with plugin executables; may be repeated.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// How often each operation is measured.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    rounds: usize,
    /// How many pods come at the same time in a burst.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    burst: u16,
    /// How many pods of each target are there already while it is measured; may be repeated, to see how cost grows.
    #[arg(long, value_name = "PODS", default_value = "0")]
    present: Vec<u16>,
    /// How to print what came of it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Serialize, Deserialize)]
struct Work {
    targets: [Target; 2],
    profiles: [Profile; 2],
    dirs: [Vec<PathBuf>; 2],
    rounds: usize,
    burst: u16,
    present: u16,
}

/// A number of which none makes no sense.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string()).and_then(|number| match number {
        0 => Err("it must be at least 1".to_owned()),
        number => Ok(number),
    })
}

/// Durations of one operation, in milliseconds, round by round.
#[derive(Debug, Default, Clone)]
struct Series {
    name: &'static str,
    base: Vec<f64>,
    other: Vec<f64>,
}

/// Measures and returns the report: for each operation the medians in milliseconds, and how many times as fast the other is,
/// as the median of the rounds' ratios with their 10th and 90th percentile.
///
/// # Errors
/// If a target cannot be run.
pub fn run(args: &BenchArgs) -> Result<String, Error> {
    let targets = [Target::read(&args.base)?, Target::read(&args.other)?];
    if targets[0].kind != targets[1].kind {
        let why = format!(
            "{} is {} and {} is {}: they do not do the same work",
            targets[0].name,
            targets[0].kind.word(),
            targets[1].name,
            targets[1].kind.word()
        );
        return Err(Error::Invalid { what: "bench".to_owned(), why });
    }
    let absolute = |dir: &PathBuf| dir.canonicalize().map_err(|source| Error::Read { path: dir.clone(), source });
    let options = Options {
        dirs: args.plugin_dir.iter().map(absolute).collect::<Result<_, _>>()?,
        jobs: 1,
        limit: Duration::from_secs(3600),
        points: 0,
        program: std::env::current_exe().map_err(Error::OwnPath)?,
    };
    let profiles = [runner::profile(&targets[0], &options)?, runner::profile(&targets[1], &options)?];
    // Each has its own folders, so that two releases of one plugin can be compared.
    let dirs = targets.each_ref().map(|target| options.dirs.iter().chain(&target.dirs).cloned().collect());
    let names = targets.each_ref().map(|target| target.name.clone());
    let mut work = Work { targets, profiles, dirs, rounds: args.rounds, burst: args.burst, present: 0 };
    let mut runs = Vec::new();
    for present in &args.present {
        report::Progress::say(&format!("{} rounds with {present} pods present", args.rounds));
        work.present = *present;
        runs.push(on_a_host_of_its_own(&work, &options)?);
    }
    report::Progress::say("");
    let [base, other] = names;
    let report = json!({ "base": base, "other": other, "rounds": args.rounds, "burst": args.burst, "runs": runs });
    match args.output {
        Format::Json => serde_json::to_string_pretty(&report).map_err(Error::Encode),
        Format::Table => Ok(table(&report)),
    }
}

fn on_a_host_of_its_own(work: &Work, options: &Options) -> Result<Value, Error> {
    let input = serde_json::to_vec(work).map_err(Error::Encode)?;
    let mut command = sandbox::command(&options.program);
    command.arg("bench-inside");
    let finished = exec::run(&mut command, &input, options.limit).map_err(told)?;
    if finished.status.success() {
        return serde_json::from_slice(&finished.stdout).map_err(Error::Encode);
    }
    Err(Error::Host(String::from_utf8_lossy(&finished.stderr).trim().to_owned()))
}

/// The report for people.
fn table(report: &Value) -> String {
    let text = |value: &Value, key: &str| shape::text(value, key).to_owned();
    let (base, other) = (text(report, "base"), text(report, "other"));
    let mut lines = format!("{other}, compared with {base}; median milliseconds of {} rounds\n", report["rounds"]);
    for run in shape::list(report, "runs") {
        lines.push_str(&format!(
            "\n{} pods present\n  {:<12} {:>10} {:>10}   times as fast\n",
            run["present"], "", "base", "other"
        ));
        for one in shape::list(run, "operations") {
            let number = |key: &str| one[key].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            lines.push_str(&format!(
                "  {:<12} {:>10} {:>10}   {} ({} to {})\n",
                text(one, "operation"),
                number("base_ms"),
                number("other_ms"),
                number("times_as_fast"),
                number("from"),
                number("to"),
            ));
        }
    }
    lines
}

fn told(finding: Finding) -> Error {
    match finding {
        Finding::Failed(why) | Finding::Skipped(why) | Finding::Trouble(why) => Error::Host(why),
    }
}

/// The part on the private host.
///
/// # Errors
/// If a plugin fails.
pub fn inside() -> Result<String, Error> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Error::Child)?;
    let work: Work = serde_json::from_str(&text).map_err(Error::Encode)?;
    sandbox::enter()?;
    let [base, other] = work.targets;
    let [of_base, of_other] = work.profiles;
    let [dirs_of_base, dirs_of_other] = work.dirs;
    let base = Host::new(base, dirs_of_base, of_base, 0);
    let other = Host::new(other, dirs_of_other, of_other, 0).beside(&base);
    let outcome = measure(&base, &other, work.rounds, work.burst, work.present);
    for host in [&base, &other] {
        host.clean_up();
        host.stop();
    }
    let report = json!({
        "present": work.present,
        "operations": outcome.map_err(told)?.iter().map(summary).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&report).map_err(Error::Encode)
}

fn measure(base: &Host, other: &Host, rounds: usize, burst: u16, present: u16) -> Verdict<Vec<Series>> {
    for host in [base, other] {
        host.start()?;
        for number in 0..present {
            host.attach(&cases::busy(host, host.pod()?, 1000 + number))?;
        }
    }
    let mut all = ["ADD", "CHECK", "DEL", "burst ADD", "burst DEL"].map(|name| Series { name, ..Series::default() });
    for round in 0..rounds {
        // Who goes first changes from round to round.
        let (first, second) = if round % 2 == 0 { (base, other) } else { (other, base) };
        let (of_first, of_second) = (once(first, burst)?, once(second, burst)?);
        let (of_base, of_other) = if round % 2 == 0 { (of_first, of_second) } else { (of_second, of_first) };
        for (series, (base, other)) in all.iter_mut().zip(of_base.into_iter().zip(of_other)) {
            series.base.push(base);
            series.other.push(other);
        }
    }
    Ok(all.into())
}

/// One round of one target: every operation once.
fn once(host: &Host, burst: u16) -> Verdict<[f64; 5]> {
    let pod = cases::busy_pod(host)?;
    let (add, result) = timed(|| host.attach(&pod))?;
    let check = match timed(|| host.check(&pod, &result)) {
        Ok((check, ())) => check,
        // What has no CHECK, or fails it although all is well, as the reference portmap does, has no time for it.
        Err(Finding::Skipped(_) | Finding::Failed(_)) => f64::NAN,
        Err(finding) => return Err(finding),
    };
    let (del, ()) = timed(|| release(host, &pod, &result))?;
    host.settle()?;
    pod.remove_namespace()?;
    let pods =
        (0..burst).map(|number| Ok(cases::busy(host, host.pod()?, 100 + number))).collect::<Verdict<Vec<Pod>>>()?;
    let (burst_add, results) = timed(|| at_once(&pods, |pod| host.attach(pod)))?;
    let pairs: Vec<(Pod, Value)> = pods.into_iter().zip(results).collect();
    let (burst_del, _) = timed(|| at_once(&pairs, |(pod, result)| release(host, pod, result)))?;
    host.settle()?;
    pairs.iter().try_for_each(|(pod, _)| pod.remove_namespace())?;
    Ok([add, check, del, burst_add, burst_del])
}

/// DEL as a runtime sees it: until it is answered.
fn release(host: &Host, pod: &Pod, result: &Value) -> Verdict {
    host.release(pod, Some(result), |call| call)
}

fn timed<T>(work: impl FnOnce() -> Verdict<T>) -> Verdict<(f64, T)> {
    let start = Instant::now();
    let value = work()?;
    Ok((start.elapsed().as_secs_f64() * 1000.0, value))
}

fn at_once<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Verdict<T> + Sync) -> Verdict<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let lost = || Err(Finding::Trouble("a thread of the suite panicked".to_owned()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    })
}

fn summary(series: &Series) -> Value {
    let ratios: Vec<_> = series.base.iter().zip(&series.other).map(|(base, other)| base / other).collect();
    json!({
        "operation": series.name,
        "base_ms": rounded(percentile(&series.base, 50)),
        "other_ms": rounded(percentile(&series.other, 50)),
        "times_as_fast": rounded(percentile(&ratios, 50)),
        "from": rounded(percentile(&ratios, 10)),
        "to": rounded(percentile(&ratios, 90)),
    })
}

/// The nearest of the sorted values; NaN, which JSON shows as null, if there are none.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted: Vec<_> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent + 50) / 100).copied().unwrap_or(f64::NAN)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_operation() {
        let series = Series { name: "ADD", base: vec![20.0, 30.0], other: vec![10.0, 10.0] };
        let empty = Series { name: "CHECK", ..Series::default() };
        let run = json!({ "present": 5, "operations": [summary(&series), summary(&empty)] });
        let text = table(&json!({ "base": "a", "other": "b", "rounds": 2, "runs": [run] }));
        assert!(text.contains("b, compared with a; median milliseconds of 2 rounds"), "{text}");
        assert!(text.contains("  ADD               30.00      10.00   3.00 (2.00 to 3.00)"), "{text}");
        assert!(text.contains("  CHECK                 -          -   - (- to -)"), "{text}");
    }

    #[test]
    fn percentiles_are_of_the_values() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([10, 50, 90].map(|percent| rounded(percentile(&values, percent))), [1.0, 3.0, 5.0]);
        assert!(percentile(&[], 50).is_nan());
    }
}
