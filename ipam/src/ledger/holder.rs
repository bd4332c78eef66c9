//! Who holds the lock: for the message of those who waited in vain.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The process that holds a ledger's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A process of ours, which wrote down what it is doing.
    Known(Held),
    /// A process that locked the file without writing anything, known from /proc/locks.
    Foreign {
        /// Its process id, as seen from here.
        pid: u32,
        /// Its name (proc_pid_comm(5)); empty if it is gone or hidden.
        command: String,
    },
    /// The lock was free again, or its holder cannot be seen, as from another pid namespace.
    Unknown,
}

/// What a holder writes into the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its process id.
    pub pid: u32,
    /// What it does: `ADD NETWORK CONTAINERID IFNAME`.
    pub purpose: String,
    /// When it got the lock.
    pub since: Timestamp,
}

impl Holder {
    pub(super) fn of_this_process(purpose: &str) -> Held {
        Held { pid: std::process::id(), purpose: purpose.to_owned(), since: Timestamp::now() }
    }

    /// Asks the file, then the kernel.
    pub(super) fn of(lock: &Path) -> Self {
        let pid = fs::metadata(lock).ok().and_then(|meta| locked_by(&fs::read_to_string("/proc/locks").ok()?, &meta));
        let written = fs::read(lock).ok().and_then(|text| serde_json::from_slice::<Held>(&text).ok());
        match (written, pid) {
            (Some(held), Some(pid)) if held.pid != pid => Self::foreign(pid),
            (Some(held), _) => Self::Known(held),
            (None, Some(pid)) => Self::foreign(pid),
            (None, None) => Self::Unknown,
        }
    }

    fn foreign(pid: u32) -> Self {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self::Foreign { pid, command: command.trim_end().to_owned() }
    }
}

impl Held {
    pub(super) fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(held) => {
                let for_long = Timestamp::now().duration_since(held.since).max(SignedDuration::ZERO);
                write!(f, "held by pid {} ({}) for {:.1} s", held.pid, held.purpose, for_long.as_secs_f64())
            }
            Self::Foreign { pid, command } if command.is_empty() => write!(f, "held by pid {pid}"),
            Self::Foreign { pid, command } => write!(f, "held by pid {pid} ({command})"),
            Self::Unknown => f.write_str("its holder cannot be seen"),
        }
    }
}

/// How many wait in flock(2) for the lock, as far as this process can see.
pub(super) fn waiting_for(lock: &Path) -> usize {
    let (Ok(file), Ok(locks)) = (fs::metadata(lock), fs::read_to_string("/proc/locks")) else { return 0 };
    let place = place_of(&file);
    let waits = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, "->", "FLOCK", _, "WRITE", _, at, ..] if *at == place)
    };
    locks.lines().filter(waits).count()
}

fn place_of(file: &fs::Metadata) -> String {
    let (major, minor) = (nix::sys::stat::major(file.dev()), nix::sys::stat::minor(file.dev()));
    format!("{major:02x}:{minor:02x}:{}", file.ino())
}

/// The process in a line `1: FLOCK  ADVISORY  WRITE 812 00:1b:4711 0 EOF` (proc_locks(5)) about this file.
/// Lines of waiting processes have `->` after the number.
fn locked_by(locks: &str, file: &fs::Metadata) -> Option<u32> {
    let place = place_of(file);
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if *at == place => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}
