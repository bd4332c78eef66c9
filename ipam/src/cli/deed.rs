//! What every command that changes something shares: `--dry-run`, `--yes`, `--reason`, and the line in the history.

use std::fs;

use clap::Args;
use jiff::Timestamp;

use super::exit::Stop;
use super::terminal::Terminal;
use crate::event::Cause;
use crate::history::{self, Deed, Outcome};
use crate::{Ledger, clock};

/// Options of commands that change something.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Doing {
    /// Says what would be done, and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Does not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Why: it is written into the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl Doing {
    /// Who asks the ledger for it.
    pub fn cause(&self, command: &str) -> Cause {
        Cause { reason: self.reason.clone(), ..Cause::of_this_process(command) }
    }

    /// Writes down what is to be done, does it, and writes down what came of it: who is killed in between has left a
    /// line. `about` are addresses, CIDRs, files.
    pub fn record<T>(
        &self,
        ledger: &Ledger,
        terminal: &mut Terminal<'_>,
        command: &str,
        about: Vec<String>,
        deed: impl FnOnce(&mut Terminal<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let (id, at, by) = (clock::unique_name()?, Timestamp::now(), self.cause(command));
        let command = command.to_owned();
        let mut line = Deed { id, at, command, outcome: Outcome::Begun, about, by, login_uid: login_uid() };
        note(ledger, terminal, &line)?;
        let result = deed(terminal);
        line.at = Timestamp::now();
        line.outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
        note(ledger, terminal, &line)?;
        result
    }
}

/// A history that cannot be written keeps nobody from mending things.
fn note(ledger: &Ledger, terminal: &mut Terminal<'_>, line: &Deed) -> Result<(), Stop> {
    let Err(error) = history::note(ledger.state_dir(), line) else { return Ok(()) };
    let file = history::file(ledger.state_dir());
    terminal.note(&format!("note: this could not be written into {}: {error}", file.display()))
}

/// Who logged in, also behind sudo (proc_pid_loginuid(5)). None for services, and where the kernel does not tell.
fn login_uid() -> Option<u32> {
    /// "Nobody logged in".
    const UNSET: u32 = u32::MAX;
    let text = fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim_end().parse().ok().filter(|uid| *uid != UNSET)
}
