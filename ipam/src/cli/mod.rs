//! The command `ipam`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::Ledger;

mod exit;
mod list;
mod release;
mod select;
mod show;
mod view;

use exit::{Exit, Stop};
use view::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  nothing found
  5  the ledger is busy
  6  the ledger is damaged
  7  refused, as by release for a pod that is alive";

/// Looks into the ledger of pod addresses, and repairs it.
#[derive(Debug, Parser)]
#[command(name = "ipam", version, after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// The ledger's folder: "dataDir" of the network config.
    #[arg(long, global = true, help_heading = "Ledger", value_name = "DIR", default_value = Ledger::DEFAULT_DIR)]
    dir: PathBuf,
    /// How long to wait while a plugin works with the ledger.
    #[arg(long, global = true, help_heading = "Ledger", value_name = "SECONDS", default_value_t = 2)]
    timeout: u64,
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
    /// Ends leases whose pod is gone. The addresses rest before they are given again.
    #[command(after_help = release::EXAMPLES)]
    Release(release::Release),
}

/// How to print.
#[derive(Debug, Args)]
struct Output {
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Leaves the line with the column names out.
    #[arg(long)]
    no_headers: bool,
}

/// Where a command reads and writes.
struct Terminal<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Somebody who can be asked, if there is anybody.
    person: Option<&'a mut dyn BufRead>,
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
    let (input, mut person) = (io::stdin(), io::stdin().lock());
    let person: Option<&mut dyn BufRead> = if input.is_terminal() { Some(&mut person) } else { None };
    let mut terminal = Terminal { out: &mut io::stdout().lock(), err: &mut io::stderr().lock(), person };
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
    let ledger = Ledger::at(&cli.dir).with_lock_timeout(Duration::from_secs(cli.timeout));
    match &cli.command {
        Command::List(list) => list.run(&ledger, terminal),
        Command::Show(show) => show.run(&ledger, terminal),
        Command::Release(release) => release.run(&ledger, terminal),
    }
}
