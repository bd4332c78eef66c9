//! Who holds the lock: for the message of those who waited in vain.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
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
        let holds = |file| (0..LOOKS).find_map(|_| locked_by(&kernel_locks().ok()?, &file));
        let pid = fs::metadata(lock).ok().and_then(holds);
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

/// The other processes that wait in flock(2) for the lock, as far as this process can see: whoever one look misses, another
/// may see.
pub(super) fn waiting_for(lock: &Path) -> BTreeSet<u32> {
    let Ok(file) = fs::metadata(lock) else { return BTreeSet::new() };
    let place = place_of(&file);
    let waits = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "->", "FLOCK", _, "WRITE", pid, at, ..] if *at == place => pid.parse().ok(),
            _ => None,
        }
    };
    let looks = (0..LOOKS).filter_map(|_| kernel_locks().ok());
    let seen = looks.flat_map(|locks| locks.lines().filter_map(waits).collect::<Vec<u32>>());
    seen.filter(|pid| *pid != std::process::id()).collect()
}

/// How often somebody is looked for whom the kernel may not have shown: see [`kernel_locks`].
const LOOKS: usize = 3;

/// All of /proc/locks. The kernel (fs/locks.c) counts its way through the list again for each read(2), so a lock that
/// somebody takes or gives back between two reads shows another one twice, or not at all. One read shows a page's
/// worth, some sixty locks, of one moment; a string read in small steps does not.
fn kernel_locks() -> io::Result<String> {
    let mut file = File::open("/proc/locks")?;
    let (mut locks, mut page) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut page)? {
            0 => return Ok(String::from_utf8_lossy(&locks).into_owned()),
            count => locks.extend_from_slice(page.get(..count).unwrap_or_default()),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// One try does, unless others take and give back locks just then.
    fn tried<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    /// All of /proc/locks, read byte by byte, so that the kernel looks for the next lock when a line is read. `meanwhile` is
    /// done once, before the end of the line that it fits.
    fn in_small_steps(fits: impl Fn(&str) -> bool, meanwhile: impl FnOnce()) -> String {
        let (mut file, mut meanwhile) = (File::open("/proc/locks").unwrap(), Some(meanwhile));
        let (mut locks, mut line, mut step) = (String::new(), String::new(), [0]);
        while file.read(&mut step).unwrap() == 1 {
            line.push(char::from(step[0]));
            if fits(&line) {
                meanwhile.take().into_iter().for_each(|meanwhile| meanwhile());
            }
            if line.ends_with('\n') {
                locks.push_str(&std::mem::take(&mut line));
            }
        }
        locks
    }

    /// Whoever reads /proc/locks in small steps, as [`fs::read_to_string`] does, sees one who waits twice, or not at all,
    /// when somebody takes a lock, or gives one back, in between. The list is one for each processor, the latest first.
    #[test]
    fn locks_of_others_double_and_hide_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = |name: &str| File::create(dir.path().join(name)).unwrap();
        let (held, other) = (open("lock"), open("other"));
        let [place, others] = [&held, &other].map(|file| format!("{} ", place_of(&file.metadata().unwrap())));
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&place);
        let waiting = |locks: &str| locks.lines().filter(|line| waits(line)).count();
        sandbox::on_one_processor(|| {
            held.lock().unwrap();
            let mut child = sandbox::command("flock").arg(&path).arg("true").spawn().unwrap();
            let seen = tried("nobody waits", || Some(waiting_for(&path)).filter(|seen| !seen.is_empty()));
            tried("the kernel never showed it twice", || {
                let locks = in_small_steps(waits, || other.lock().unwrap());
                other.unlock().unwrap();
                (waiting(&locks) == 2).then_some(())
            });
            tried("the kernel always showed it", || {
                other.lock().unwrap();
                let locks = in_small_steps(|line| line.contains(&others), || other.unlock().unwrap());
                (waiting(&locks) == 0).then_some(())
            });
            assert_eq!(seen, BTreeSet::from([child.id()]));
            let holder = Holder::of(&path);
            held.unlock().unwrap();
            assert!(child.wait().unwrap().success());
            let Holder::Foreign { pid, .. } = holder else { panic!("{holder:?}") };
            assert_eq!(pid, std::process::id());
        });
    }
}
