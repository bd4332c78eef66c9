//! The programs: which there are, what they write to, what they say.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc;
use std::thread;

use iptables::IPTables;
use nft_model::Family;

use super::{Flavour, Known, LOCK_SECONDS, QUESTION, legacy, run};
use crate::error::{Error, Result};
use crate::netns;

/// Where programs of administrators are, if a runtime's `PATH` lacks them.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin";

/// The `iptables-restore` or `ip6tables-restore` of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    family: Family,
    flavour: Flavour,
    program: PathBuf,
}

impl Tool {
    /// The one that the node's administrator chose: `iptables-restore`, or `ip6tables-restore`, in the folders of
    /// `path` (a `PATH`) and then in those for administrators. Its flavour is told by the name of the file it leads
    /// to; only a file whose name says nothing is run, with `--version`.
    ///
    /// # Errors
    /// [`Error::IptablesMissing`] if there is none; those of a run.
    pub fn find(family: Family, path: Option<&OsStr>) -> Result<Self> {
        let name = format!("{}-restore", command(family, None));
        let program = search(&name, path)?;
        Ok(Self { family, flavour: flavour_of(&program)?, program })
    }

    /// The one of a flavour, chosen or not: `iptables-legacy-restore`, for example.
    ///
    /// # Errors
    /// [`Error::IptablesMissing`] if there is none of that name, and the chosen one is of the other flavour.
    pub fn of_flavour(family: Family, flavour: Flavour, path: Option<&OsStr>) -> Result<Self> {
        let name = format!("{}-restore", command(family, Some(flavour)));
        match search(&name, path) {
            Ok(program) => Ok(Self { family, flavour, program }),
            Err(missing) => match Self::find(family, path) {
                Ok(chosen) if chosen.flavour == flavour => Ok(chosen),
                _ => Err(missing),
            },
        }
    }

    /// What it writes to.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Where it is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Does what `text` says, as iptables-restore(8) reads it, and leaves all other rules: one process. Of each table
    /// in it, all is done or nothing.
    ///
    /// # Errors
    /// [`Error::IptablesBusy`] if the lock was held too long, [`Error::IptablesRefused`] with what the program said,
    /// [`Error::IptablesHangs`] at the deadline.
    pub fn restore(&self, text: &str) -> Result<()> {
        run::restore(&self.program, text, None)
    }

    /// The same by a process that holds `lock` too as long as it runs: a lock of flock(2) lasts until the change is made,
    /// even if the caller is killed before that.
    ///
    /// # Errors
    /// As [`Tool::restore`].
    pub fn restore_under(&self, lock: BorrowedFd<'_>, text: &str) -> Result<()> {
        run::restore(&self.program, text, Some(lock))
    }

    /// Whether the kernel has a table for what this one writes: nf_tables has every one. For the flavour "legacy" the kernel
    /// loads the table's module, as it does for the program, and makes the table in a network namespace that ends with the
    /// question: in the caller's nothing changes.
    ///
    /// # Errors
    /// [`Error::IptablesRead`] when the kernel refuses to tell, [`Error::NetnsMake`] where no network namespace can be made.
    pub fn knows_table(&self, name: &str) -> Result<Known> {
        // What is there needs no question. Where the list cannot be read, one answers that, too.
        let is_used = || legacy::used(self.family).is_ok_and(|names| names.lines().any(|line| line == name));
        if self.flavour == Flavour::Nft || is_used() {
            return Ok(Known::Yes);
        }
        let asked = netns::in_a_new_one(|| legacy::make(self.family, name))?;
        asked.map_err(|source| Error::IptablesRead { what: format!("table {name}"), source })
    }

    /// What it says to `--version`, as "iptables-restore v1.8.9 (nf_tables)".
    ///
    /// # Errors
    /// Those of a run.
    pub fn version(&self) -> Result<String> {
        run::version(&self.program)
    }

    /// All rules of a table, as commands of iptables(8). Whoever looks for a rule compares with these: the program's own
    /// `-C` finds rules that are not there, in `ip6tables-legacy` 1.8.9 (a test shows it).
    ///
    /// # Errors
    /// Those of a run.
    pub fn list(&self, table: &str) -> Result<Vec<String>> {
        let lister = self.lister()?;
        let output = ask(&lister, table, "-S")?;
        run::judge(&lister, output.status, &output.stderr, "")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// The program that lists what this one writes: `iptables-legacy`, or `iptables` if that is of the same flavour. It may not
    /// be, where an administrator chose one without the other.
    fn lister(&self) -> Result<PathBuf> {
        let missing = match search(command(self.family, Some(self.flavour)), None) {
            Ok(program) => return Ok(program),
            Err(missing) => missing,
        };
        let chosen = search(command(self.family, None), None)?;
        if flavour_of(&chosen)? == self.flavour { Ok(chosen) } else { Err(missing) }
    }
}

/// Runs it by way of the `iptables` crate, whose runs have no deadline: so it is given up, not waited for.
/// A question changes nothing whenever it is answered.
fn ask(lister: &Path, table: &str, question: &str) -> Result<Output> {
    // The crate would find a name by the caller's PATH, which may be missing, and takes only what never ends: some
    // bytes for each question of a process that does not live long.
    let cmd: &'static str = lister.to_string_lossy().into_owned().leak();
    let (table, question) = (table.to_owned(), format!("--wait {LOCK_SECONDS} {question}"));
    let (sender, answer) = mpsc::channel();
    let asking = thread::Builder::new().spawn(move || {
        // The crate would wait for the lock without an end.
        let iptables = IPTables { cmd, has_check: true, has_wait: false, is_numeric: true };
        let output = iptables.execute(&table, &question).map_err(|error| error.to_string());
        // Nobody listens any more after the deadline.
        let _ = sender.send(output);
    });
    let program = || lister.to_owned();
    asking.map_err(|source| Error::IptablesRun { program: program(), source })?;
    match answer.recv_timeout(QUESTION) {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(text)) => Err(Error::IptablesRun { program: program(), source: std::io::Error::other(text) }),
        Err(_) => Err(Error::IptablesHangs { program: program(), seconds: QUESTION.as_secs() }),
    }
}

/// Which flavour a program is of, by the name of the file it leads to; only one whose name says nothing is run.
fn flavour_of(program: &Path) -> Result<Flavour> {
    match flavour_by_name(program) {
        Some(flavour) => Ok(flavour),
        None => run::version(program).map(|text| flavour_by_version(&text)),
    }
}

fn command(family: Family, flavour: Option<Flavour>) -> &'static str {
    match (family, flavour) {
        (Family::Ip, None) => "iptables",
        (Family::Ip, Some(Flavour::Nft)) => "iptables-nft",
        (Family::Ip, Some(Flavour::Legacy)) => "iptables-legacy",
        (Family::Ip6, None) => "ip6tables",
        (Family::Ip6, Some(Flavour::Nft)) => "ip6tables-nft",
        (Family::Ip6, Some(Flavour::Legacy)) => "ip6tables-legacy",
    }
}

fn search(name: &str, path: Option<&OsStr>) -> Result<PathBuf> {
    let mut folders = path.map(OsStr::to_owned).unwrap_or_default();
    folders.push(OsString::from(if folders.is_empty() { "" } else { ":" }));
    folders.push(SBIN);
    let found = std::env::split_paths(&folders).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let executable = |program: &PathBuf| {
        program.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    found.into_iter().find(executable).ok_or_else(|| Error::IptablesMissing { name: name.to_owned() })
}

/// Debian, Fedora, Alpine and Arch have one executable for each flavour, `xtables-nft-multi` and `xtables-legacy-multi`,
/// that everything else is a link to; before 1.8 it was `xtables-multi`.
fn flavour_by_name(program: &Path) -> Option<Flavour> {
    let file = program.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?.to_owned();
    if name.contains("nft") {
        return Some(Flavour::Nft);
    }
    (name.contains("legacy") || name == "xtables-multi").then_some(Flavour::Legacy)
}

fn flavour_by_version(text: &str) -> Flavour {
    if text.contains("nf_tables") { Flavour::Nft } else { Flavour::Legacy }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_program_is_found_by_path_and_its_flavour_by_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        for (real, flavour) in [
            ("xtables-nft-multi", Flavour::Nft),
            ("xtables-legacy-multi", Flavour::Legacy),
            ("xtables-multi", Flavour::Legacy),
        ] {
            let file = folder.path().join(real);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            let link = folder.path().join("ip6tables-restore");
            let _ = fs::remove_file(&link);
            symlink(real, &link).unwrap();
            let tool = Tool::find(Family::Ip6, Some(path)).unwrap();
            assert_eq!((tool.program(), tool.flavour()), (link.as_path(), flavour));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = search("iptables-of-nobody", Some(OsStr::new("relative:/nowhere"))).unwrap_err();
        assert!(error.to_string().starts_with("there is no program iptables-of-nobody"), "{error}");
    }

    #[test]
    fn versions_say_their_flavour() {
        assert_eq!(flavour_by_version("iptables-restore v1.8.9 (nf_tables)"), Flavour::Nft);
        assert_eq!(flavour_by_version("iptables-restore v1.8.9 (legacy)"), Flavour::Legacy);
        assert_eq!(flavour_by_version("iptables-restore v1.4.21"), Flavour::Legacy);
    }
}
