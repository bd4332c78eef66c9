//! Opening and closing the engine, which was made for one process that stays.

use std::any::Any;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use super::error::{Damage, StoreError};
use super::hurry::hurried;

/// In bytes; the engine's own default is a gigabyte, a ledger has a few megabytes at most.
const CACHE: u64 = 16 << 20;
/// In bytes. Every open reads the last segment twice and writes what is free of it, and asks a thread for the head of
/// each, so a segment must be neither large nor one of many; the engine's own default is [`DEFAULT_SEGMENT`]. What does
/// not fit into a quarter of one is a file of its own.
const SEGMENT: usize = 128 << 10;
/// The engine's own, in bytes.
const DEFAULT_SEGMENT: usize = 512 << 10;
/// How long the threads of a process that just closed the database may keep it locked.
const CLOSING: Duration = Duration::from_millis(500);

pub(super) fn open(dir: &Path) -> Result<sled::Db, StoreError> {
    open_within(dir, CLOSING)
}

/// Waits so long for a database that is just being closed.
fn open_within(dir: &Path, closing: Duration) -> Result<sled::Db, StoreError> {
    remove_unfinished_snapshots(dir).map_err(StoreError::Io)?;
    let started = Instant::now();
    loop {
        let opened = sheltered(|| {
            let config = sled::Config::new().path(dir).cache_capacity(CACHE).flush_every_ms(None);
            let with_segments_of = |size| hurried(|| config.clone().segment_size(size).open());
            match with_segments_of(SEGMENT) {
                // A database keeps the size that it was made with.
                Err(sled::Error::Unsupported(_)) => with_segments_of(DEFAULT_SEGMENT),
                result => result,
            }
            .map_err(StoreError::from)
        });
        match opened {
            Err(StoreError::Locked) if started.elapsed() < closing => thread::sleep(Duration::from_millis(2)),
            result => return result,
        }
    }
}

/// Runs what calls the engine: of its panics, an error is made.
pub(crate) fn sheltered<T, E: From<StoreError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // A panic leaves the database as a killed process would, and the value that calls it is not used again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(of_panic(said(panic.as_ref())).into()),
    }
}

/// The engine panics for want of threads, memory, descriptors or space, too, and what it has stored is sound then. The
/// text has the error's number, as [`io::Error`] prints it.
fn of_panic(text: String) -> StoreError {
    const WANT: [i32; 6] = [libc::EAGAIN, libc::ENOMEM, libc::ENFILE, libc::EMFILE, libc::ENOSPC, libc::EDQUOT];
    let number = |rest: &str| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<i32>().ok();
    let named = ["code: ", "os error "].iter().find_map(|before| number(text.split_once(before)?.1));
    match named.filter(|number| WANT.contains(number)) {
        Some(number) => StoreError::Io(io::Error::from_raw_os_error(number)),
        None => StoreError::Damaged(Damage::Panic(text)),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("nothing").to_owned()
}

/// Whoever is killed while opening leaves a half-written `snap.LSN.generating`, and the engine takes it for the
/// newest snapshot and refuses the database from then on. The older snapshot and the log are whole, so the
/// leftover can go. Only to be called under the lock: it may be somebody's work in progress.
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a busy machine needs.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A database with one entry, closed.
    fn database(dir: &Path) {
        let db = open(dir).unwrap();
        db.insert(b"k", b"v").unwrap();
        db.flush().unwrap();
    }

    /// What the engine alone says, once nobody has the database open: threads of whoever closed it end a moment later, as
    /// does a process that another test has just started.
    fn engine(dir: &Path) -> sled::Result<sled::Db> {
        let end = Instant::now() + DEADLINE;
        loop {
            match sled::Config::new().path(dir).segment_size(SEGMENT).open() {
                Err(sled::Error::Io(error)) if error.to_string().contains("lock") && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(2));
                }
                opened => return opened,
            }
        }
    }

    #[test]
    fn an_unfinished_snapshot_bricks_the_engine_but_not_us() {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path());
        fs::write(dir.path().join("snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
        let bricked = engine(dir.path());
        assert!(matches!(bricked, Err(sled::Error::Corruption { .. })), "the engine has been mended: {bricked:?}");
        drop(bricked);
        let db = open_within(dir.path(), DEADLINE).unwrap();
        assert_eq!(db.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
    }

    #[test]
    fn a_database_with_larger_segments_is_opened_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let larger = sled::Config::new().path(dir.path()).segment_size(DEFAULT_SEGMENT).open().unwrap();
        larger.insert(b"k", b"v").unwrap();
        drop(larger);
        let refused = engine(dir.path());
        assert!(matches!(refused, Err(sled::Error::Unsupported(_))), "{refused:?}");
        let db = open_within(dir.path(), DEADLINE).unwrap();
        assert_eq!(db.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
    }

    #[test]
    fn a_value_may_be_larger_than_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..=u8::MAX).cycle().take(3 * SEGMENT).collect();
        let db = open(dir.path()).unwrap();
        db.insert(b"large", large.as_slice()).unwrap();
        db.flush().unwrap();
        drop(db);
        let db = open_within(dir.path(), DEADLINE).unwrap();
        assert_eq!(db.get(b"large").unwrap().as_deref(), Some(large.as_slice()));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let result: Result<(), StoreError> = sheltered(|| panic!("at {}", 7));
        assert!(matches!(result, Err(StoreError::Damaged(Damage::Panic(text))) if text == "at 7"));
    }

    #[test]
    fn a_panic_for_want_of_something_is_no_damage() {
        for (number, is_want) in [(libc::EAGAIN, true), (libc::ENOSPC, true), (libc::EIO, false), (libc::EINVAL, false)]
        {
            let error = io::Error::from_raw_os_error(number);
            let shown = sheltered::<(), StoreError>(|| panic!("spawning failed: {error:?}")).unwrap_err();
            assert_eq!(matches!(shown, StoreError::Io(_)), is_want, "{shown:?}");
            let printed = sheltered::<(), StoreError>(|| panic!("writing failed: {error}")).unwrap_err();
            assert_eq!(matches!(printed, StoreError::Io(_)), is_want, "{printed:?}");
        }
    }

    #[test]
    fn a_database_that_is_just_being_closed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path());
        let held = fs::File::open(dir.path().join("db")).unwrap();
        held.lock().unwrap();
        thread::scope(|scope| {
            let opener = scope.spawn(|| open_within(dir.path(), DEADLINE).map(drop));
            // Until the opener has been refused for sure, but far from giving up.
            thread::sleep(CLOSING / 10);
            drop(held);
            opener.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let _held = open(dir.path()).unwrap();
        let started = Instant::now();
        assert!(matches!(open(dir.path()), Err(StoreError::Locked)));
        assert!(
            started.elapsed() >= Duration::from_millis(100),
            "nobody was waited for who might have been closing it"
        );
    }
}
