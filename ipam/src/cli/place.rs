//! Which ledger the command line means.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
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

/// May make what is not there.
#[derive(Debug, clap::Args)]
pub(super) struct Making {
    /// Makes the folder of --dir, and of --state-dir, if it is not there and no config names it.
    #[arg(long)]
    create: bool,
}

/// The ledger that is to be written to, also if it is new. A folder that only the command line names is a slip, unless
/// it is said that it is to be made.
pub(super) fn to_write_to(cli: &Cli, making: &Making) -> Result<Ledger, Stop> {
    if !making.create {
        folders_must_be_there(cli, "; --create makes it")?;
    }
    ledger(cli)
}

/// The ledger whose reservations are to be made: beside another one, they would keep nothing from being leased.
pub(super) fn to_reserve_in(cli: &Cli, making: &Making) -> Result<Ledger, Stop> {
    reservations_are_known(cli).and_then(|()| to_write_to(cli, making))
}

/// The ledger whose reservations are to be taken out.
pub(super) fn to_unreserve_in(cli: &Cli) -> Result<Ledger, Stop> {
    reservations_are_known(cli).and_then(|()| to_look_into(cli))
}

fn reservations_are_known(cli: &Cli) -> Result<(), Stop> {
    let unread = if cli.state_dir.is_none() { Configured::ours(&cli.conf_dir).unread } else { Vec::new() };
    match unread.first() {
        None => Ok(()),
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
    folders_must_be_there(cli, "")?;
    ledger(cli)
}

/// The ledger of a history: that outlives a boot, and the ledger's own folder does not.
pub(super) fn to_look_back_at(cli: &Cli) -> Result<Ledger, Stop> {
    let Some(state_dir) = &cli.state_dir else { return to_look_into(cli) };
    STATE_DIR.must_be_there(cli, state_dir, "")?;
    ledger(cli)
}

/// `or` is what else can be done than naming another one.
fn folders_must_be_there(cli: &Cli, or: &str) -> Result<(), Stop> {
    DIR.must_be_there(cli, &cli.dir, or)?;
    cli.state_dir.as_ref().map_or(Ok(()), |state_dir| STATE_DIR.must_be_there(cli, state_dir, or))
}

const DIR: Folder = Folder {
    option: "--dir",
    has: "has its ledger there",
    of: Ledger::dir,
    otherwise: |_| PathBuf::from(Ledger::DEFAULT_DIR),
};

const STATE_DIR: Folder = Folder {
    option: "--state-dir",
    has: "keeps history and reservations there",
    of: Ledger::state_dir,
    otherwise: |cli| Ledger::at(&cli.dir).state_dir().to_owned(),
};

/// A folder that an option names, and configs may name, too.
struct Folder {
    option: &'static str,
    /// What a config does that names it.
    has: &'static str,
    of: fn(&Ledger) -> &Path,
    /// What is taken without the option and without a config.
    otherwise: fn(&Cli) -> PathBuf,
}

impl Folder {
    fn must_be_there(&self, cli: &Cli, dir: &Path, or: &str) -> Result<(), Stop> {
        let Self { option, has, of, otherwise } = self;
        let default = otherwise(cli);
        if dir == default || !is_missing(dir) {
            return Ok(());
        }
        let Configured { ledgers, unread, .. } = Configured::ours(&cli.conf_dir);
        if ledgers.iter().any(|it| of(it) == dir) {
            return Ok(());
        }
        if let Some(path) = unread.first() {
            let (dir, path) = (dir.display(), path.display());
            let text = format!(
                "{option} {dir}: there is no such folder, and {path}, which may name it, cannot be read: mend it{or}"
            );
            return Err(Stop::new(Exit::Usage, text));
        }
        let elsewhere: BTreeSet<String> = ledgers.iter().map(|it| format!("{option} {}", of(it).display())).collect();
        let (dir, conf_dir, default) = (dir.display(), cli.conf_dir.display(), default.display());
        let next = if elsewhere.is_empty() {
            format!("without {option} it is {default}")
        } else {
            format!("configs there name {}", Vec::from_iter(elsewhere).join(" and "))
        };
        let text = format!("{option} {dir}: there is no such folder, and no config in {conf_dir} {has}; {next}{or}");
        Err(Stop::new(Exit::Usage, text))
    }
}

/// A folder that cannot be looked at may be there.
pub(super) fn is_missing(dir: &Path) -> bool {
    match fs::metadata(dir) {
        Ok(found) => !found.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}
