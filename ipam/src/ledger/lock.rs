//! One process at a time: a lock file beside the database, waited for with a deadline.
//!
//! The engine has a lock of its own, but takes it only after it has read and perhaps written a file, and
//! cannot be waited for. This one is around all of that.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use super::holder::{Holder, waiting_for};
use crate::Error;

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Waits for the lock, and writes into its file who has it since when and for what. While it waits it asks now and
    /// then whether there is `another_way`; if so, it returns none.
    pub fn acquire(
        path: &Path,
        purpose: &str,
        timeout: Duration,
        another_way: impl Fn() -> bool,
    ) -> Result<Option<Self>, Error> {
        let failed = |source| Error::LockFile { path: path.to_owned(), source };
        let started = Instant::now();
        loop {
            let file = open(path).map_err(failed)?;
            let left = timeout.saturating_sub(started.elapsed());
            let lock = match wait(file, left, &another_way).map_err(failed)? {
                Waited::Locked(lock) => lock,
                Waited::AnotherWay => return Ok(None),
                Waited::InVain => return Err(busy(path, timeout)),
            };
            // Somebody who tidies up may have removed the file that was waited for.
            if is_still_at(&lock, path).map_err(failed)? {
                // Where the file system is full, the lock is as good without its holder's name.
                let text = Holder::of_this_process(purpose).to_json();
                let _ = lock.set_len(0).and_then(|()| lock.write_all_at(text.as_bytes(), 0));
                return Ok(Some(Self(lock)));
            }
        }
    }
}

impl Lock {
    /// Whether it is still the lock of whoever opens this path.
    pub fn is_at(&self, path: &Path) -> bool {
        is_still_at(&self.0, path).unwrap_or(true)
    }
}

/// The error of those who waited in vain.
pub(super) fn busy(path: &Path, waited: Duration) -> Error {
    Error::Busy { path: path.to_owned(), waited, holder: Holder::of(path), others: waiting_for(path).len() }
}

/// How often a waiting process looks for another way.
const PAUSE: Duration = Duration::from_millis(50);

/// How waiting ended.
enum Waited {
    Locked(File),
    AnotherWay,
    InVain,
}

impl Drop for Lock {
    /// The lock goes with the file; the name of its holder must not outlast it. If that cannot be written, a
    /// later reader finds that the process named there does not hold the lock. If the kernel will not give the lock
    /// back, it goes when the file is closed, right after.
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
        let _ = self.0.unlock();
    }
}

/// The holder's name is written into it: not into what somebody has linked there.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link, which is not followed: remove it"),
        _ => error,
    })
}

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The lock, or none if the time ran out. The kernel has no flock(2) with a deadline, so a thread waits: it is
/// woken the moment the lock is free, in the order of asking, where polling would be neither. So a crowd has no common
/// rhythm that jitter would have to break: each release of the lock wakes one. If the deadline comes
/// first, the thread gives the lock back as soon as it has it, or ends with the process.
fn wait(file: File, timeout: Duration, another_way: &impl Fn() -> bool) -> io::Result<Waited> {
    let deadline = Instant::now() + timeout;
    match file.try_lock() {
        Ok(()) => return Ok(Waited::Locked(file)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (sender, receiver) = mpsc::sync_channel(0);
    let waiter = move || {
        // Nobody waits for it any more. A child process may have the file open, so it is not enough to close it.
        if let Err(mpsc::SendError(Ok(unwanted))) = sender.send(lock_uninterrupted(file)) {
            let _ = unwanted.unlock();
        }
    };
    thread::Builder::new().name("ledger-lock".to_owned()).spawn(waiter)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(PAUSE)) {
            Ok(locked) => return locked.map(Waited::Locked),
            Err(mpsc::RecvTimeoutError::Timeout) if left.is_zero() => return Ok(Waited::InVain),
            Err(mpsc::RecvTimeoutError::Timeout) if another_way() => return Ok(Waited::AnotherWay),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::Error::other("the waiting thread ended")),
        }
    }
}

fn lock_uninterrupted(file: File) -> io::Result<File> {
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquired(path: &Path, purpose: &str, timeout: Duration) -> Result<Lock, Error> {
        Lock::acquire(path, purpose, timeout, || false).map(Option::unwrap)
    }

    #[test]
    fn what_a_link_in_the_lock_s_place_leads_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("lock"), dir.path().join("somebody's"));
        fs::write(&other, "text").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let refused = acquired(&path, "first", Duration::ZERO).unwrap_err();
        let Error::LockFile { source, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(source.to_string(), "it is a symbolic link, which is not followed: remove it");
        assert_eq!(fs::read_to_string(&other).unwrap(), "text");
    }

    #[test]
    fn another_way_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = acquired(&path, "first", Duration::ZERO).unwrap();
        assert!(Lock::acquire(&path, "second", Duration::from_secs(600), || true).unwrap().is_none());
        drop(first);
        acquired(&path, "third", Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_lock_file_that_was_removed_meanwhile_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = acquired(&path, "first", Duration::ZERO).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| acquired(&path, "second", Duration::from_secs(60)).unwrap());
            fs::rename(&path, dir.path().join("removed")).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert!(is_still_at(&second.0, &path).unwrap());
        });
    }

    #[test]
    fn whoever_gives_up_waiting_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = acquired(&path, "first", Duration::ZERO).unwrap();
        let refused = acquired(&path, "second", Duration::from_millis(10));
        let Err(Error::Busy { holder: Holder::Known(held), .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((held.pid, held.purpose.as_str()), (std::process::id(), "first"));
        drop(first);
        acquired(&path, "third", Duration::from_secs(60)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"", "nobody is named when nobody holds it");
    }
    #[test]
    fn a_lock_that_comes_too_late_is_given_back_though_a_child_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = acquired(&path, "first", Duration::ZERO).unwrap();
        let file = open(&path).unwrap();
        let of_child = file.try_clone().unwrap();
        assert!(matches!(wait(file, Duration::from_millis(10), &|| false).unwrap(), Waited::InVain));
        drop(first);
        acquired(&path, "third", Duration::from_secs(60)).unwrap();
        drop(of_child);
    }
}
