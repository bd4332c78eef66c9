//! apt-get(8), where mirrors are busy for a moment, lists are old, and others install at the same time: unattended
//! upgrades begin soon after a machine does.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::Error;
use crate::program::{command, run};
use crate::say;

const OPTIONS: [&str; 7] = [
    "--quiet",
    "--yes",
    "--no-install-recommends",
    "--option=Acquire::Retries=5",
    "--option=Acquire::http::Timeout=20",
    "--option=DPkg::Lock::Timeout=300",
    // Without it, root's apt-get says that it cannot be somebody else, where it writes into a folder of ours.
    "--option=APT::Sandbox::User=root",
];

/// The locks that it gives up at, instead of waiting for them as for dpkg(1)'s.
const LOCKS: [&str; 2] = ["/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"];
/// How long others may hold them.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often something is tried that failed.
const TRIES: usize = 3;
/// What passes between two tries, and how often a lock is looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// A command of it, which asks nothing.
pub fn get(verb: &str) -> Command {
    let mut get = command("apt-get");
    get.arg(verb).args(OPTIONS).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    get
}

/// Gets the lists of packages anew. One source of several that cannot be had is no failure, as what is wanted may come
/// from another: whoever needs the lists fails if not, and says of what.
pub fn update() {
    let updated = try_again(PAUSE, || {
        wait_for_others();
        run(&mut get("update"))
    });
    if let Err(error) = updated {
        say(&format!("{error}; going on with the lists that are there"));
    }
}

/// Installs packages by lists that are new.
pub fn install(packages: &[&str]) -> Result<(), Error> {
    try_again(PAUSE, || {
        update();
        wait_for_others();
        run(get("install").args(packages))
    })
}

/// Does what needs the lists of packages; a fresh machine has none or old ones, and they are got when it fails.
pub fn with_lists<T>(mut get: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    get().or_else(|_| {
        try_again(PAUSE, || {
            update();
            get()
        })
    })
}

fn try_again<T>(pause: Duration, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut done = work();
    for _ in 1..TRIES {
        if done.is_ok() {
            break;
        }
        thread::sleep(pause);
        done = work();
    }
    done
}

/// Waits until nobody holds the locks, and not for ever.
fn wait_for_others() {
    let deadline = Instant::now() + PATIENCE;
    for lock in LOCKS.map(Path::new) {
        let mut holder = holder(lock);
        if let Some(process) = holder {
            say(&format!("waiting for process {process}, which holds {}", lock.display()));
        }
        while holder.is_some() && Instant::now() < deadline {
            thread::sleep(PAUSE);
            holder = self::holder(lock);
        }
    }
}

/// The process that holds a record lock of fcntl(2) on the file; -1 if it cannot be told.
fn holder(file: &Path) -> Option<i32> {
    let file = File::open(file).ok()?;
    let l_type = i16::try_from(libc::F_WRLCK).ok()?;
    let mut lock = libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_others_hold_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(holder(file.path()), None);
        // A lock of an open file, which no process has, is in the way as another process's is.
        for (kind, held) in [(libc::F_WRLCK, Some(-1)), (libc::F_UNLCK, None)] {
            let l_type = i16::try_from(kind).unwrap();
            let lock = libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
            fcntl(file.as_file().as_fd(), FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            assert_eq!(holder(file.path()), held);
        }
    }

    #[test]
    fn what_fails_is_tried_again_and_not_for_ever() {
        let mut tries = 0;
        let mut work = |good: usize| {
            tries = 0;
            let done = try_again(Duration::ZERO, || {
                tries += 1;
                if tries == good { Ok(()) } else { Err(Error::NoHost) }
            });
            (done.is_ok(), tries)
        };
        assert_eq!([1, TRIES, TRIES + 1].map(&mut work), [(true, 1), (true, TRIES), (false, TRIES)]);
    }
}
