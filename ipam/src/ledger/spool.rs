//! Releases that could not be carried out: one file each in `pending-del/`, for the next opener.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::session::{Failure, Session};
use crate::LeaseId;
use crate::clock::Moment;
use crate::event::EventKind;
use crate::record::Record;
use crate::store::{Change, Ended};

/// A release that is still to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    pub network: String,
    pub container_id: String,
    pub ifname: String,
    /// If the release is about one lease and no later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<LeaseId>,
    /// Whether the addresses are to rest.
    pub cools_down: bool,
    /// When it was asked for, in milliseconds of `CLOCK_BOOTTIME`.
    pub asked_boottime_ms: u64,
    /// The boot in which it was asked for.
    pub boot_id: String,
}

impl Pending {
    pub fn new(attachment: &Attachment, lease_id: Option<LeaseId>, asked: Moment, boot_id: &str) -> Self {
        Self {
            network: attachment.network.to_string(),
            container_id: attachment.container_id.to_string(),
            ifname: attachment.ifname.to_string(),
            cools_down: lease_id.is_none(),
            lease_id,
            asked_boottime_ms: asked.boottime,
            boot_id: boot_id.to_owned(),
        }
    }

    fn attachment(&self) -> Option<Attachment> {
        Some(Attachment {
            network: self.network.parse().ok()?,
            container_id: self.container_id.parse().ok()?,
            ifname: self.ifname.parse().ok()?,
        })
    }

    /// Only a lease that was asked for when its release was.
    fn means(&self, lease: &Record) -> bool {
        self.lease_id.as_ref().is_none_or(|id| *id == lease.lease_id)
            && lease.is_meant_by_a_release_of(self.asked_boottime_ms)
    }

    /// Where it is written: the same wish has the same name, and names of any length and content fit.
    pub fn path(&self, dir: &Path) -> PathBuf {
        let lease = self.lease_id.as_ref().map_or("", |id| id.0.as_str());
        let names = [&self.network, &self.container_id, &self.ifname, lease].join("\0");
        folder(dir).join(format!("{}.json", HEXLOWER.encode(&Sha256::digest(names)[..16])))
    }

    /// Writes it down, whole or not at all.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let made = DirBuilder::new().mode(0o700).create(folder(dir));
        made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        let path = self.path(dir);
        let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(serde_json::json!(self).to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(folder(dir))?.sync_all()
    }
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("pending-del")
}

/// Ends the leases whose release is pending. The files stay until that is flushed: see [`remove`].
pub(super) fn carry_out(dir: &Path, session: &Session<'_>) -> Result<Vec<PathBuf>, Failure> {
    let due = due(dir, session)?;
    if !due.change.ended.is_empty() || !due.change.tombstones.is_empty() {
        session.commit(&due.change, EventKind::Released)?;
    }
    Ok(due.files)
}

/// What is pending.
pub(super) struct Due {
    /// The leases that end, and a tombstone for each attachment that was deleted, as an ADD of it may come yet.
    pub change: Change,
    /// The files that say so.
    files: Vec<PathBuf>,
}

/// The leases whose release is pending.
pub(super) fn due(dir: &Path, session: &Session<'_>) -> Result<Due, Failure> {
    let mut due = Due { change: Change::default(), files: Vec::new() };
    for path in written(dir) {
        // What cannot be read as a release, nobody can carry out: it is left for people to look at.
        let Some(pending) = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Pending>(&text).ok()) else {
            continue;
        };
        due.files.push(path);
        let Some(attachment) = pending.attachment().filter(|_| pending.boot_id == session.boot_id) else { continue };
        match session.store.lease(&attachment)? {
            Some(record) if pending.means(&record) => {
                let released_at = if pending.cools_down { pending.asked_boottime_ms } else { 0 };
                due.change.ended.push(Ended { record, released_at });
            }
            // Its container has come back since, or it is about a lease that has ended.
            Some(_) => continue,
            None => {}
        }
        if pending.lease_id.is_none() {
            due.change.tombstones.push((attachment, pending.asked_boottime_ms));
        }
    }
    Ok(due)
}

/// Pending releases; unfinished files are somebody's work in progress, or nobody's any more.
fn written(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder(dir)) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

/// Removes what was carried out. What cannot be removed is carried out again, which changes nothing.
pub(super) fn remove(done: Vec<PathBuf>) {
    for path in done {
        let _ = fs::remove_file(path);
    }
}
