//! Who may change rules by number: one process at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a turn is waited for: longer than one other may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether the turn has come.
const PAUSE: Duration = Duration::from_millis(2);

/// How often the file is opened again because others remove its folder.
const OPENINGS: u32 = 100;

/// A lock that is held until it is dropped, and by the programs that are run under it
/// ([`Tool::restore_under`](super::Tool::restore_under)) as long as they run.
#[derive(Debug)]
pub struct Turn(File);

impl Turn {
    /// Waits for the turn of whoever takes turns by this file, which is made if need be.
    ///
    /// # Errors
    /// [`Error::IptablesTurn`]; its kind is [`io::ErrorKind::TimedOut`] if others had it all the time.
    pub fn take(path: &Path) -> Result<Self> {
        Self::take_within(path, PATIENCE)
    }

    /// The same, waiting no longer than this.
    ///
    /// # Errors
    /// As [`Turn::take`].
    pub fn take_within(path: &Path, patience: Duration) -> Result<Self> {
        let file = create(path).map_err(|source| Error::IptablesTurn { path: path.to_owned(), source })?;
        lock(path, file, patience)
    }

    /// The same if anybody ever took a turn; `None` if there is no such file, so that nobody has rules.
    ///
    /// # Errors
    /// As [`Turn::take`].
    pub fn take_if_ever(path: &Path) -> Result<Option<Self>> {
        match File::options().append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::IptablesTurn { path: path.to_owned(), source }),
            Ok(file) => lock(path, file, PATIENCE).map(Some),
        }
    }
}

impl AsFd for Turn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Turn {
    /// If the kernel will not give the lock back, it goes when the file is closed, right after.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock(path: &Path, file: File, patience: Duration) -> Result<Turn> {
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Turn(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(source)) => return Err(Error::IptablesTurn { path: path.to_owned(), source }),
        }
        if Instant::now() >= end {
            let held = format!("others held it for {} s", patience.as_secs());
            let source = io::Error::new(io::ErrorKind::TimedOut, held);
            return Err(Error::IptablesTurn { path: path.to_owned(), source });
        }
        thread::sleep(PAUSE);
    }
}

/// For the owner alone: whoever can open it can hold it.
fn create(path: &Path) -> io::Result<File> {
    let mut attempts = 0;
    loop {
        // Also between two folders that are made.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(path));
        match made.and_then(|()| File::options().create(true).append(true).mode(0o600).open(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < OPENINGS => attempts += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/if/need/be");
        assert!(Turn::take_if_ever(&path).unwrap().is_none(), "nobody has been here");
        let first = Turn::take(&path).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let second = Turn::take_if_ever(&path).unwrap();
                sender.send("second").unwrap();
                drop(second);
            });
            assert!(receiver.try_recv().is_err());
            drop(first);
        });
        assert_eq!(receiver.recv().unwrap(), "second");
    }
}
