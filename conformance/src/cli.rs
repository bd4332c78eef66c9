//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cases::{self, Case};
use crate::error::Error;
use crate::host::shape::VERSIONS;
use crate::report;
use crate::runner::{self, Options, Report, Row};
use crate::target::{Kind, Target};
use crate::{bench, inside, spy};

const EXAMPLES: &str = "\
Examples:
  cni-conformance run --plugin-dir ./bin --conflist my.conflist
  cni-conformance run --plugin-dir ./bin --conflist my-ipam.conf --kind ipam --filter del
  cni-conformance run targets/reference-ptp.toml targets/reference-bridge.toml -o html > standing.html
  cni-conformance report one.json another.json -o html > standing.html
  cni-conformance list --filter gc
  cni-conformance explain DEL-2a
  cni-conformance bench targets/reference-chain.toml targets/podwire-chain.toml --plugin-dir ./bin

Exit status: 0 all passed, skipped or known; 1 something failed; 2 the suite could not run, or not all of it, or a first ADD
and DEL did not work: then nothing else is asked without --filter or --keep-going.";

const LIST_EXAMPLES: &str = "\
Examples:
  cni-conformance list
  cni-conformance list --filter gc --filter DEL-5
  cni-conformance list --json";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  cni-conformance explain DEL-5c
  cni-conformance explain RT-5";

#[derive(Parser)]
#[command(name = "cni-conformance", version, about = "Runs any CNI plugin against the CNI spec", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the cases to one or more targets.
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Print what `run -o json` has printed in another way, several files side by side.
    #[command(after_help = EXAMPLES)]
    Report {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How to print them.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Show passed cases too, and the plugin calls of failed ones.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show the cases with the sentences that they hold to.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only cases of this topic, id or title, or of what begins so; may be repeated.
        #[arg(long)]
        filter: Vec<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what one case asks, why, and how it looks.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// The case's id.
        id: String,
    },
    /// Compare the speed of two targets, doing the same work in turns.
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::BenchArgs),
    /// Run one task that is given on stdin, in this process.
    #[command(hide = true)]
    Inside,
    /// Measure what is given on stdin, in this process.
    #[command(hide = true)]
    BenchInside,
}

#[derive(Args)]
struct RunArgs {
    /// Target files: a plugin or chain with its config and what is known of it.
    targets: Vec<PathBuf>,
    /// A network configuration to judge instead of target files: a conflist, or a single plugin's config.
    #[arg(long, conflicts_with = "targets")]
    conflist: Option<PathBuf>,
    /// What the plugin of --conflist is for.
    #[arg(long, value_enum, default_value = "main", requires = "conflist")]
    kind: Kind,
    /// Folder with plugin executables; may be repeated; comes before a target's own folders.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// Use only this spec version; may be repeated.
    #[arg(long = "spec-version", value_name = "VERSION", value_parser = PossibleValuesParser::new(VERSIONS))]
    versions: Vec<String>,
    /// Only cases of this topic, id or title, or of what begins so; may be repeated. `list` shows the topics.
    #[arg(long)]
    filter: Vec<String>,
    /// How many cases at a time.
    #[arg(long, default_value_t = default_jobs(), value_parser = bench::at_least_one)]
    jobs: usize,
    /// How long one case may take, in seconds. Nothing is judged by its speed: this ends what hangs.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Before how many system calls, at most, a plugin is killed; spread over all those that change something.
    #[arg(long, default_value_t = 96, value_name = "NUMBER")]
    points: usize,
    /// Kill the plugin before every system call that changes something, however many there are.
    #[arg(long, conflicts_with = "points")]
    thorough: bool,
    /// Ask all cases even if a first ADD and DEL did not work, or if the plugin seems to be for something else.
    #[arg(short, long)]
    keep_going: bool,
    /// How to print what came of it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Show passed cases too, and the plugin calls of failed ones.
    #[arg(short, long)]
    verbose: bool,
    /// Do not tell on stderr how far it is.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Junit,
    Html,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// The executable's `main`.
#[must_use]
pub fn main() -> ExitCode {
    if spy::is_meant() {
        return spy::run();
    }
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Report { files, output, verbose } => show_saved(&files, output, verbose),
        Command::List { filter, json } => list(&filter, json),
        Command::Explain { id } => explain(&id),
        Command::Bench(args) => bench::run(&args).and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS),
        Command::BenchInside => bench::inside().and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS),
        Command::Inside => inside().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        // Where stderr is closed there is nobody to tell; the exit status says it.
        let _ = writeln!(io::stderr(), "cni-conformance: {}", error.chain());
        ExitCode::from(2)
    })
}

fn inside() -> Result<(), Error> {
    let told = inside::run()?;
    print(&serde_json::to_string(&told).map_err(Error::Encode)?)
}

fn print(text: &str) -> Result<(), Error> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // A reader such as head(1) has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::Print),
    }
}

fn chosen(filters: &[String]) -> Result<Vec<&'static Case>, Error> {
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.matches(filter));
    let found: Vec<_> = cases::all().filter(wanted).collect();
    if found.is_empty() {
        return Err(Error::NoCase(filters.join(" or ")));
    }
    Ok(found)
}

fn targets(args: &RunArgs) -> Result<Vec<Target>, Error> {
    let mut targets = match &args.conflist {
        Some(path) => vec![Target::of_conflist(path, args.kind)?],
        None => args.targets.iter().map(|path| Target::read(path)).collect::<Result<_, _>>()?,
    };
    if targets.is_empty() {
        let why = "name a target file, or a conflist with --conflist".to_owned();
        return Err(Error::Invalid { what: "run".to_owned(), why });
    }
    if !args.versions.is_empty() {
        targets.iter_mut().for_each(|target| target.versions.clone_from(&args.versions));
    }
    Ok(targets)
}

fn run(args: &RunArgs) -> Result<ExitCode, Error> {
    let (targets, cases) = (targets(args)?, chosen(&args.filter)?);
    let options = Options {
        dirs: absolute(&args.plugin_dir)?,
        jobs: args.jobs,
        limit: Duration::from_secs(args.timeout),
        points: if args.thorough { usize::MAX } else { args.points },
        program: std::env::current_exe().map_err(Error::OwnPath)?,
    };
    let mut reports = Vec::new();
    for target in &targets {
        let profile = runner::profile(target, &options)?;
        let chosen = !args.filter.is_empty();
        if let Some(why) = if args.keep_going { None } else { runner::objection(target, &profile, &options, chosen)? } {
            if args.output != Format::Table {
                // Where stderr is closed, the exit status says it.
                let _ = writeln!(io::stderr(), "cni-conformance: {}: nothing was asked: {why}", target.name);
            }
            reports.push(Report::unasked(target, &profile, why));
            continue;
        }
        let progress = report::Progress::new(&target.name, cases.len(), args.quiet);
        reports.push(runner::run_with(target, &profile, &cases, &options, &|row: &Row| progress.tell(row))?);
        progress.end();
    }
    show(&reports, args.output, args.verbose)
}

/// Prints, and tells by the exit status what is in it.
fn show(reports: &[Report], output: Format, verbose: bool) -> Result<ExitCode, Error> {
    print(&match output {
        Format::Table => report::table(reports, verbose),
        Format::Json => serde_json::to_string_pretty(reports).map_err(Error::Encode)?,
        Format::Junit => report::junit(reports),
        Format::Html => report::html(reports),
    })?;
    Ok(status(reports))
}

fn show_saved(files: &[PathBuf], output: Format, verbose: bool) -> Result<ExitCode, Error> {
    let reports = files.iter().map(|path| report::saved(path)).collect::<Result<Vec<_>, _>>()?.concat();
    show(&reports, output, verbose)
}

/// Plugins are started from another folder.
fn absolute(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let absolute = |dir: &PathBuf| dir.canonicalize().map_err(|source| Error::Read { path: dir.clone(), source });
    dirs.iter().map(absolute).collect()
}

fn status(reports: &[Report]) -> ExitCode {
    if reports.iter().any(Report::has_trouble) {
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(reports.iter().any(Report::has_failures)))
}

fn list(filters: &[String], json: bool) -> Result<ExitCode, Error> {
    let cases = chosen(filters)?;
    print(&if json { report::list_json(&cases)? } else { report::list(&cases) })?;
    Ok(ExitCode::SUCCESS)
}

fn explain(id: &str) -> Result<ExitCode, Error> {
    let text = match cases::find(id) {
        Some(case) => report::explain(case),
        None => report::explain_untestable(id).ok_or_else(|| Error::NoCase(id.to_owned()))?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
