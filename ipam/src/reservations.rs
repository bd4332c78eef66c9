//! Addresses that a person has set aside: `reservations.json`, which outlives a boot.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Addresses that are not leased, or not to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reservation {
    /// What is reserved.
    #[schemars(with = "String")]
    pub cidr: IpNetwork,
    /// Why, for people.
    pub reason: String,
    /// By whom, for people.
    #[serde(default)]
    pub owner: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ends by itself; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Reservation {
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Where the reservations beside a ledger are.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("reservations.json")
}

/// The reservations that hold at a moment. A missing file has none; one that cannot be understood is an error, as
/// nobody knows then what must not be leased.
pub(crate) fn read(state_dir: &Path, now: Timestamp) -> Result<Vec<Reservation>, Error> {
    let mut all = read_all(state_dir)?;
    all.retain(|reservation| reservation.holds_at(now));
    Ok(all)
}

fn read_all(state_dir: &Path) -> Result<Vec<Reservation>, Error> {
    let path = file(state_dir);
    let failed = |source| Error::Reservations { path: path.clone(), source };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    serde_json::from_slice(&text).map_err(|source| failed(io::Error::new(io::ErrorKind::InvalidData, source)))
}

/// Changes the reservations, one process after the other, and drops those that have ended. The file is there whole,
/// as it was or as it is now. Gives what `change` gives.
pub(crate) fn change<T>(
    state_dir: &Path,
    now: Timestamp,
    change: impl FnOnce(&mut Vec<Reservation>) -> T,
) -> Result<T, Error> {
    let path = file(state_dir);
    let failed = |source| Error::Reservations { path: path.clone(), source };
    let _lock = lock(state_dir).map_err(failed)?;
    let mut all = read(state_dir, now)?;
    let before = all.clone();
    let answer = change(&mut all);
    if all != before {
        write(&path, &all).map_err(failed)?;
    }
    Ok(answer)
}

/// Puts a file aside that cannot be understood, and writes a new one with what can be.
pub(crate) fn salvage(state_dir: &Path, now: Timestamp) -> Result<(PathBuf, Vec<Reservation>), Error> {
    let path = file(state_dir);
    let failed = |source| Error::Reservations { path: path.clone(), source };
    let _lock = lock(state_dir).map_err(failed)?;
    let found = readable(&fs::read(&path).map_err(failed)?);
    let aside = state_dir.join(format!("reservations.corrupt.{}.json", now.strftime("%Y%m%dT%H%M%SZ")));
    fs::copy(&path, &aside).map_err(failed)?;
    write(&path, &found).map_err(failed)?;
    Ok((aside, found))
}

/// The reservations in a damaged file that can be understood.
pub(crate) fn readable(text: &[u8]) -> Vec<Reservation> {
    if let Ok(serde_json::Value::Array(all)) = serde_json::from_slice(text) {
        return all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
    }
    // What is left of a file that was cut off: one reservation a line.
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.trim().trim_start_matches('[').trim_end_matches([',', ']']));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// How long to wait for other people's commands, which hold the lock for as long as it takes to write a small file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The lock goes when the file is closed.
fn lock(state_dir: &Path) -> io::Result<File> {
    if let Some(parent) = state_dir.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let path = state_dir.join("reservations.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("somebody else has locked {}; see who with: lslocks", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// One reservation a line, so that people can read it, and programs what is left of it.
fn write(path: &Path, all: &[Reservation]) -> io::Result<()> {
    let lines: Vec<String> = all.iter().map(|one| serde_json::json!(one).to_string()).collect();
    let text = if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) };
    let unfinished = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(cidr: &str, until: Option<&str>) -> Reservation {
        Reservation {
            cidr: cidr.parse().unwrap(),
            reason: "test".to_owned(),
            owner: "root".to_owned(),
            created: None,
            until: until.map(|until| until.parse().unwrap()),
        }
    }

    #[test]
    fn what_is_written_is_read_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-03T00:00:00Z".parse().unwrap());
        let all = [reservation("10.1.2.0/28", None), reservation("fd00::7/128", Some("2026-01-02T00:00:00Z"))];
        change(dir.path(), before, |reserved| reserved.extend(all.iter().cloned())).unwrap();
        assert_eq!(read(dir.path(), before).unwrap(), all);
        assert_eq!(read(dir.path(), after).unwrap(), all[..1]);
        change(dir.path(), after, Vec::clear).unwrap();
        assert_eq!(fs::read_to_string(file(dir.path())).unwrap(), "[]\n");
    }

    #[test]
    fn of_a_damaged_file_is_kept_what_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let all = [reservation("10.1.2.0/28", None), reservation("10.1.2.99/32", None)];
        change(dir.path(), now, |reserved| reserved.extend(all.iter().cloned())).unwrap();
        let whole = fs::read(file(dir.path())).unwrap();
        for (text, kept) in [
            (whole[..whole.len() - 9].to_vec(), 1),
            (b"[{\"cidr\": \"nonsense\"}, {\"cidr\": \"10.9.0.0/24\", \"reason\": \"x\"}]".to_vec(), 1),
            (b"\xff\xfe garbage".to_vec(), 0),
        ] {
            fs::write(file(dir.path()), &text).unwrap();
            assert!(matches!(read(dir.path(), now), Err(Error::Reservations { .. })));
            assert!(change(dir.path(), now, Vec::clear).is_err(), "nothing is written over what cannot be read");
            let (aside, found) = salvage(dir.path(), now).unwrap();
            assert_eq!((found.len(), fs::read(aside).unwrap()), (kept, text));
            assert_eq!(read(dir.path(), now).unwrap().len(), kept);
        }
    }
}
