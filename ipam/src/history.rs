//! The history of leases: one line of JSON for each [`Event`], in a file that is only appended to and outlives a boot.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::event::Event;

/// Where the history of a ledger is.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("history.jsonl")
}

/// Appends events. Called under the ledger's lock, after the change is flushed and before it is answered; whoever
/// is killed in between leaves a note, and the next opener of the ledger records the change: so an event may be
/// there twice, under the same lease id, but is not missed.
pub(crate) fn record(state_dir: &Path, events: &[Event]) -> io::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let lines: String = events.iter().map(|event| format!("{}\n", serde_json::json!(event))).collect();
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(file(state_dir));
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = state_dir.parent() {
                fs::create_dir_all(parent)?;
            }
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(lines.as_bytes())
}
