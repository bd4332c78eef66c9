//! Which ledger the command line means.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::Cli;
use super::exit::{Exit, Stop};
use super::networks::Configured;
use crate::Ledger;

/// The ledger that the command line means, whether it is there or not. The plugin takes history and reservations from
/// where its config says, so this command does, too.
pub(super) fn ledger(cli: &Cli) -> Result<Ledger, Stop> {
    let ledger = Ledger::at(&cli.dir).with_lock_timeout(Duration::from_secs(cli.timeout));
    if let Some(state_dir) = &cli.state_dir {
        return Ok(ledger.with_state_dir(state_dir));
    }
    let configured = Configured::ours(&cli.conf_dir).ledgers;
    let named: BTreeSet<&Path> =
        configured.iter().filter(|it| it.dir() == ledger.dir()).map(Ledger::state_dir).collect();
    match Vec::from_iter(named)[..] {
        [] => Ok(ledger),
        [state_dir] => Ok(ledger.with_state_dir(state_dir)),
        [one, other, ..] => Err(Stop::new(
            Exit::Usage,
            format!(
                "configs in {} keep history and reservations of the ledger {} in {} and in {}: mend them, or say which with --state-dir",
                cli.conf_dir.display(),
                ledger.dir().display(),
                one.display(),
                other.display()
            ),
        )),
    }
}

/// The ledger whose reservations are to be changed: beside another one, they would keep nothing from being leased.
pub(super) fn to_reserve_in(cli: &Cli) -> Result<Ledger, Stop> {
    let unread = if cli.state_dir.is_none() { Configured::ours(&cli.conf_dir).unread } else { Vec::new() };
    match unread.first() {
        None => ledger(cli),
        Some(path) => Err(Stop::new(
            Exit::Usage,
            format!(
                "{} cannot be read, and may say where reservations are kept: mend it, or say where with --state-dir",
                path.display()
            ),
        )),
    }
}

/// The ledger that is to be looked into. A folder that is not there is as good as an empty one where plugins would make
/// it: no pod has had an address yet. One that only the command line names is a slip, and must not look healthy.
pub(super) fn to_look_into(cli: &Cli) -> Result<Ledger, Stop> {
    let ledger = ledger(cli)?;
    let dir = ledger.dir();
    if dir == Path::new(Ledger::DEFAULT_DIR) || !is_missing(dir) {
        return Ok(ledger);
    }
    let Configured { ledgers, unread, .. } = Configured::ours(&cli.conf_dir);
    if ledgers.iter().any(|it| it.dir() == dir) {
        return Ok(ledger);
    }
    if let Some(path) = unread.first() {
        let (dir, path) = (dir.display(), path.display());
        let text =
            format!("--dir {dir}: there is no such folder, and {path}, which may name it, cannot be read: mend it");
        return Err(Stop::new(Exit::Usage, text));
    }
    let elsewhere: BTreeSet<String> = ledgers.iter().map(|it| format!("--dir {}", it.dir().display())).collect();
    let (dir, conf_dir) = (dir.display(), cli.conf_dir.display());
    let next = if elsewhere.is_empty() {
        format!("without --dir it is {}", Ledger::DEFAULT_DIR)
    } else {
        format!("configs there name {}", Vec::from_iter(elsewhere).join(" and "))
    };
    let text =
        format!("--dir {dir}: there is no such folder, and no config in {conf_dir} has its ledger there; {next}");
    Err(Stop::new(Exit::Usage, text))
}

/// The ledger of a history: that outlives a boot, and the ledger's own folder does not.
pub(super) fn to_look_back_at(cli: &Cli) -> Result<Ledger, Stop> {
    if cli.state_dir.is_some() { ledger(cli) } else { to_look_into(cli) }
}

/// A folder that cannot be looked at may be there.
fn is_missing(dir: &Path) -> bool {
    match fs::metadata(dir) {
        Ok(found) => !found.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}
