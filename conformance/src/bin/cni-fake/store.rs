//! A JSON file below `/run`, changed under a lock.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::protocol::{Failure, Request};

/// Keys of attachments, with what is known of them.
pub type Records = Map<String, Value>;

/// The file of one role in one network.
pub struct Store {
    path: PathBuf,
    /// Whether it is refused for ever if its first user came to nothing.
    is_marked: bool,
}

impl Store {
    pub fn of(request: &Request, role: &str) -> Self {
        let network = if request.name == "conformance-other"
            && (request.is_at("DEL", "DEL-8c") || request.is_at("GC", "GC-11"))
        {
            "conformance"
        } else {
            &request.name
        };
        let path = PathBuf::from(format!("/run/cni-fake/{network}.{role}"));
        Self { path, is_marked: role == "main" && request.has_in("robustness", "KILL-5") }
    }

    /// Reads, changes, writes.
    pub fn change<T>(&self, change: impl FnOnce(&mut Records) -> Result<T, Failure>) -> Result<T, Failure> {
        let broken = |error: std::io::Error| Failure::new(102, &format!("{}: {error}", self.path.display()));
        if let Some(folder) = self.path.parent() {
            let is_first = !folder.exists();
            fs::create_dir_all(folder).map_err(broken)?;
            if self.is_marked {
                marked(is_first)?;
            }
        }
        let lock =
            OpenOptions::new().create(true).append(true).open(self.path.with_extension("lock")).map_err(broken)?;
        let _held = flock(lock).map_err(broken)?;
        let mut records = self.records();
        let result = change(&mut records)?;
        let text = Value::Object(records).to_string();
        let temporary = PathBuf::from(format!("{}.new", self.path.display()));
        fs::write(&temporary, text).map_err(broken)?;
        fs::rename(&temporary, &self.path).map_err(broken)?;
        Ok(result)
    }

    /// Removes one key.
    pub fn forget(&self, key: &str) -> Result<(), Failure> {
        self.change(|records| {
            records.remove(key);
            Ok(())
        })
    }

    /// What it holds.
    pub fn records(&self) -> Records {
        fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// Where the suite does not look.
const MARK: &str = "/run/netns/.cni-fake-mark";

/// Marks a new store, and refuses an old one without the mark.
fn marked(is_new: bool) -> Result<(), Failure> {
    let refuse = |why: String| Failure::new(102, &format!("{MARK}: {why}"));
    if is_new {
        fs::write(MARK, "ok").map_err(|error| refuse(error.to_string()))?;
    }
    let text = fs::read_to_string(MARK).unwrap_or_default();
    if text == "ok" { Ok(()) } else { Err(refuse("not a store of ours".to_owned())) }
}

/// Waits for the lock, which goes when the file is closed.
fn flock(file: File) -> std::io::Result<File> {
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
