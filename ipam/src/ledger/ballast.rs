//! A file that takes up space for the sake of what gives space back. On a full file system a release could be neither
//! carried out nor written down, and pods that go are what makes space: so the ledger keeps a megabyte, gives it up when
//! something is to end that cannot be ended without it, and leases nothing until it has it again.
//!
//! (A file system that stores zeroes in no space, as one that compresses may, makes a poor place for it.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statvfs::statvfs;

use crate::Error;
use crate::store::StoreError;

/// In bytes. The end of a lease takes one or two pages of the engine's log, and gives back the one of its copy.
const SIZE: usize = 1 << 20;

fn file(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Sees to it that it is there, whole.
pub(super) fn lay(dir: &Path) -> Result<(), Error> {
    let path = file(dir);
    if fs::metadata(&path).is_ok_and(|found| found.len() == SIZE as u64) {
        return Ok(());
    }
    let building = path.with_extension("new");
    // What somebody left who was killed at it.
    let _ = fs::remove_file(&building);
    let written = has_space(dir).and_then(|()| write(&building)).and_then(|()| fs::rename(&building, &path));
    written.map_err(|source| {
        // What there is of it takes up space for nothing.
        let _ = fs::remove_file(&building);
        Error::Ballast { path, source }
    })
}

/// Not the last space is taken for it, not even for a moment: somebody else may have a release to write down.
fn has_space(dir: &Path) -> io::Result<()> {
    const MARGIN: u64 = 128 << 10;
    let found = statvfs(dir)?;
    if found.blocks_available().saturating_mul(found.fragment_size()) < SIZE as u64 + MARGIN {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    Ok(())
}

/// The bytes are written, and not only counted: a hole would take up no space.
fn write(path: &Path) -> io::Result<()> {
    const AT_ONCE: usize = 64 << 10;
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    for _ in 0..SIZE / AT_ONCE {
        file.write_all(&[0; AT_ONCE])?;
    }
    Ok(())
}

/// Gives the space back, also what somebody had of it who was killed while it was laid. False if there was none to give.
pub(super) fn give_up(dir: &Path) -> bool {
    let path = file(dir);
    let unfinished = fs::remove_file(path.with_extension("new")).is_ok();
    fs::remove_file(path).is_ok() || unfinished
}

/// Whether more space would help.
pub(super) fn is_about_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The same of whatever went wrong with the ledger.
pub(super) fn would_help(error: &Error) -> bool {
    match error {
        Error::Store { source: StoreError::Io(source), .. }
        | Error::Copy { source, .. }
        | Error::Folder { source, .. }
        | Error::LockFile { source, .. }
        | Error::Quarantine { source, .. } => is_about_space(source),
        _ => false,
    }
}
