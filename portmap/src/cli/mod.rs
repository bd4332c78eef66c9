//! `podwire-portmap` run by hand: what is mapped, why something is not reached, and how it is put right.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};

mod adopt;
mod exit;
mod list;
mod reconcile;
mod trace;

use exit::{Exit, Stop};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; with trace: packets get through
  1  failed, at least in part
  2  the command line is wrong
  3  list: no host port fits --network, --pod and --port
  4  trace: packets do not get through";

const EXAMPLES: &str = "\
Examples:
  podwire-portmap list
  podwire-portmap trace 192.168.50.1:8080
  podwire-portmap reconcile --dry-run
  podwire-portmap list --help";

const AFTER_HELP: &str = "\
A container runtime runs this executable with CNI_COMMAND in its environment; then arguments mean nothing.";

/// Looks at the host ports of this node, and repairs them.
#[derive(Debug, Parser)]
#[command(name = "podwire-portmap", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{AFTER_HELP}"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the host ports of this node, whose they are, and what goes through them.
    #[command(visible_aliases = ["ls", "ports"], after_help = list::EXAMPLES)]
    List(list::List),
    /// Follows a packet to a host port and says where it stops, and why.
    #[command(visible_alias = "why", after_help = trace::EXAMPLES)]
    Trace(trace::Arguments),
    /// Puts back what a flushed or reloaded firewall has lost, and removes what dead pods left.
    #[command(visible_alias = "restore", after_help = reconcile::EXAMPLES)]
    Reconcile(reconcile::Reconcile),
    /// Takes over the mappings of the reference portmap while their pods run, and removes its rules.
    #[command(after_help = adopt::EXAMPLES)]
    Adopt(adopt::Adopt),
}

/// The formats of `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
}

/// The same, of commands that have no more columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlainFormat {
    /// Lines for people
    Table,
    /// One JSON document
    Json,
}

/// Where a command writes.
struct Terminal<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the text cannot be printed, its exit code is all there is.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { Exit::Done } else { Exit::Usage }.into();
        }
    };
    let mut terminal = Terminal { out: &mut io::stdout().lock(), err: &mut io::stderr().lock() };
    let result = match &cli.command {
        Command::List(list) => list.run(&mut terminal),
        Command::Trace(trace) => trace.run(&mut terminal),
        Command::Reconcile(reconcile) => reconcile.run(&mut terminal),
        Command::Adopt(adopt) => adopt.run(&mut terminal),
    };
    match result.and_then(|exit| terminal.out.flush().map(|()| exit).map_err(Stop::from)) {
        Ok(exit) => exit.into(),
        Err(stop) => {
            if let Some(text) = stop.text {
                let _ = writeln!(terminal.err, "podwire-portmap: {text}");
            }
            stop.exit.into()
        }
    }
}
