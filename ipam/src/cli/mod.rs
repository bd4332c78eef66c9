//! The command `ipam`.

use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::Ledger;

mod check;
mod complete;
mod completion;
mod contract;
mod deed;
mod exit;
mod finding;
mod format;
pub(crate) mod gauges;
mod gc;
mod history;
mod list;
mod map;
pub(crate) mod metrics;
mod networks;
mod overlap;
mod palette;
mod place;
mod pools;
mod release;
mod repair;
mod reserve;
mod schema;
mod select;
mod serve;
mod show;
mod stats;
mod status;
mod terminal;
mod time;
mod transfer;
mod verify;
mod view;
mod watch;

use exit::{Exit, Stop};
use terminal::{Colour, Terminal};

const EXAMPLES: &str = "\
Examples:
  ipam list
  ipam show 10.244.1.5
  ipam pools
  ipam verify
  ipam list --help";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong, or --dir or --state-dir names a folder that is not there
  3  nothing found that fits what was asked for
  4  something was found that should be looked at, as by check, verify and gc
  5  the ledger is busy
  6  the ledger, or a file beside it, is damaged
  7  refused, as by release for a pod that is alive
  8  permission denied";

/// Looks into the ledger of pod addresses, and repairs it.
#[derive(Debug, Parser)]
#[command(name = "ipam", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// The ledger's folder: "dataDir" of the network config. One that is not there is an error, unless a config names it.
    #[arg(long, global = true, help_heading = "Global", value_name = "DIR", default_value = Ledger::DEFAULT_DIR)]
    dir: PathBuf,
    /// The folder of history and reservations. Default: "stateDir" of the network config whose ledger this is; if there
    /// is none, /var/lib/podwire, or DIR if --dir is given. One that is not there is an error, unless a config names it.
    #[arg(long, global = true, help_heading = "Global", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The folder of network configs.
    #[arg(long, global = true, help_heading = "Global", value_name = "DIR", default_value = networks::CONF_DIR)]
    conf_dir: PathBuf,
    /// How long to wait while a plugin works with the ledger.
    #[arg(long, global = true, help_heading = "Global", value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
    /// Whether to colour what is printed.
    #[arg(long, global = true, help_heading = "Global", value_enum, value_name = "WHEN", default_value_t)]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists leases, one line for each address.
    #[command(visible_alias = "ls", after_help = list::EXAMPLES)]
    List(list::List),
    /// Shows everything about leases: those of an address, a pod or a container.
    #[command(visible_aliases = ["get", "inspect"], after_help = show::EXAMPLES)]
    Show(show::Show),
    /// Shows how full the pools are.
    #[command(after_help = pools::EXAMPLES)]
    Pools(pools::Pools),
    /// Draws a CIDR: which addresses are held, at rest, set aside, free.
    #[command(after_help = map::EXAMPLES)]
    Map(map::Map),
    /// Tells who had which address when, also before the last reboot.
    #[command(after_help = history::EXAMPLES)]
    History(history::History),
    /// Shows counts, churn, and when pools will be full.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::Stats),
    /// Tells whether addresses can be leased now.
    #[command(after_help = status::EXAMPLES)]
    Status(status::Status),
    /// Checks the ledger and the files beside it, without looking at the node.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    /// Compares the ledger with the node: links, routes, namespaces, the runtime's cache, network configs.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Verify),
    /// Finds leases whose pod is gone, and releases them if asked to.
    #[command(after_help = gc::EXAMPLES)]
    Gc(gc::Gc),
    /// Ends leases by name. The addresses rest before they are given again.
    #[command(after_help = release::EXAMPLES)]
    Release(release::Release),
    /// Sets addresses aside: no pod gets them.
    #[command(after_help = reserve::RESERVE_EXAMPLES)]
    Reserve(reserve::Reserve),
    /// Gives addresses back that were set aside.
    #[command(after_help = reserve::UNRESERVE_EXAMPLES)]
    Unreserve(reserve::Unreserve),
    /// Prints leases and reservations for import, with a checksum.
    #[command(after_help = transfer::EXPORT_EXAMPLES)]
    Export(transfer::Export),
    /// Takes over what export printed, or a node that host-local served.
    #[command(after_help = transfer::IMPORT_EXAMPLES)]
    Import(transfer::Import),
    /// Mends what is damaged, and puts the rest aside.
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::Repair),
    /// Prints what happens to leases, as it happens.
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::Watch),
    /// Prints metrics for Prometheus.
    #[command(after_help = stats::METRICS_EXAMPLES)]
    Metrics(stats::Metrics),
    /// Prints the JSON Schemas of what the other commands print with -o json.
    #[command(after_help = schema::EXAMPLES)]
    Schema(schema::Schemas),
    /// Prints what makes a shell complete commands, addresses, pods and networks.
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Completion),
    /// Writes the manual pages, for packages.
    #[command(hide = true, after_help = completion::MAN_EXAMPLES)]
    Man(completion::Man),
    /// Holds the ledger open and answers plugins and this command over a socket, until SIGTERM. Optional: without it,
    /// everybody opens the ledger by himself.
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Serve),
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Where a shell asks what could come next, that is answered and nothing else is done.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the text cannot be printed, its exit code is all there is.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { Exit::Done } else { Exit::Usage }.into();
        }
    };
    // Not locked: `import -` reads the same input.
    let (input, mut person) = (io::stdin(), BufReader::new(io::stdin()));
    let person: Option<&mut dyn BufRead> = if input.is_terminal() { Some(&mut person) } else { None };
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    let mut terminal = Terminal { out, err, person, colour: cli.color.of_stdout() };
    let result = run(&cli, &mut terminal).and_then(|exit| {
        terminal.out.flush().map_err(Stop::from_printing)?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit.into(),
        Err(stop) => {
            if let Some(text) = stop.text {
                let _ = writeln!(terminal.err, "ipam: {text}");
            }
            stop.exit.into()
        }
    }
}

fn run(cli: &Cli, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
    let ledger = || place::to_look_into(cli);
    match &cli.command {
        Command::List(list) => list.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Show(show) => show.run(&ledger()?, terminal),
        Command::Pools(pools) => pools.run(&ledger()?, &cli.conf_dir, terminal),
        Command::History(history) => history.run(&place::to_look_back_at(cli)?, terminal),
        Command::Release(release) => release.run(&ledger()?, terminal),
        Command::Reserve(reserve) => reserve.run(&place::to_reserve_in(cli, &reserve.making)?, &cli.conf_dir, terminal),
        Command::Unreserve(unreserve) => unreserve.run(&place::to_unreserve_in(cli)?, terminal),
        Command::Map(map) => map.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Stats(stats) => stats.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Status(status) => status.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Check(check) => check.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Verify(verify) => verify.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Gc(gc) => gc.run(&ledger()?, terminal),
        Command::Export(export) => export.run(&ledger()?, terminal),
        Command::Import(import) => import.run(&place::to_write_to(cli, &import.making)?, &cli.conf_dir, terminal),
        Command::Repair(repair) => repair.run(&ledger()?, terminal),
        Command::Watch(watch) => watch.run(&place::to_look_back_at(cli)?, terminal),
        Command::Metrics(metrics) => metrics.run(&ledger()?, &cli.conf_dir, terminal),
        Command::Serve(serve) => serve.run(&place::to_write_to(cli, &serve.making)?, &cli.conf_dir, terminal),
        Command::Schema(schema) => schema.run(terminal),
        Command::Completion(completion) => completion.run(terminal),
        Command::Man(man) => man.run(Cli::command()),
    }
}
