//! Releases that could not be carried out: one file each, for the next opener. They are in `pending-del/` beside the
//! ledger, or where nothing can be written there, in a folder for this ledger in [`ELSEWHERE`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_spec::Attachment;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::session::{Failure, Session, make_folder};
use crate::LeaseId;
use crate::clock::Moment;
use crate::event::EventKind;
use crate::record::Record;
use crate::store::{Change, Ended};

/// Where releases wait that cannot be written down beside their ledger, as on a disk that has become read-only: on a
/// tmpfs, which does not outlive the boot, as no lease does.
pub(super) const ELSEWHERE: &str = "/run/podwire/pending-del";

/// The extension of a file that is being written, or whose writer was killed: its release was not answered.
const UNFINISHED: &str = "unfinished";

/// Longer than anybody takes to write one. Nothing surer is to be had: whoever writes has not the ledger's lock, and may
/// be in another pid namespace.
const WRITING: Duration = Duration::from_secs(60 * 60);

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
    /// When it was asked for, in milliseconds of `CLOCK_BOOTTIME`; of one lease, when the ADD was that made it.
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

    pub fn attachment(&self) -> Option<Attachment> {
        Some(Attachment {
            network: self.network.parse().ok()?,
            container_id: self.container_id.parse().ok()?,
            ifname: self.ifname.parse().ok()?,
        })
    }

    /// Whether this release will end the lease.
    pub fn ends(&self, lease: &Record) -> bool {
        self.boot_id == lease.boot_id && self.attachment().is_some_and(|it| it == lease.attachment) && self.means(lease)
    }

    /// Only a lease that was asked for when its release was.
    fn means(&self, lease: &Record) -> bool {
        self.lease_id.as_ref().is_none_or(|id| *id == lease.lease_id)
            && lease.is_meant_by_a_release_of(self.asked_boottime_ms)
    }

    /// Where it is written in a folder: the same wish has the same name, and names of any length and content fit. A later
    /// wish has another: whoever carries this one out, and then removes its file, must not remove that one.
    fn path(&self, folder: &Path) -> PathBuf {
        let lease = self.lease_id.as_ref().map_or("", |id| id.0.as_str());
        let asked = self.asked_boottime_ms.to_string();
        folder.join(name_of([&self.network, &self.container_id, &self.ifname, lease, &asked].join("\0")) + ".json")
    }

    /// Where it is written beside the ledger.
    pub fn path_beside(&self, dir: &Path) -> PathBuf {
        self.path(&beside(dir))
    }

    /// Writes it down beside the ledger, whole or not at all.
    pub fn write_beside(&self, dir: &Path) -> io::Result<()> {
        let made = DirBuilder::new().mode(0o700).create(beside(dir));
        made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        self.write(&beside(dir))
    }

    /// The same elsewhere.
    pub fn write_elsewhere(&self, dir: &Path) -> io::Result<()> {
        let folder = elsewhere(dir)?;
        make_folder(&folder)?;
        self.write(&folder)
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let path = self.path(folder);
        let unfinished = path.with_extension(format!("{}.{UNFINISHED}", std::process::id()));
        if let Err(error) = self.write_to(&unfinished).and_then(|()| fs::rename(&unfinished, &path)) {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        File::open(folder)?.sync_all()
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(serde_json::json!(self).to_string().as_bytes())?;
        file.sync_all()
    }
}

fn beside(dir: &Path) -> PathBuf {
    dir.join("pending-del")
}

/// The ledger's folder in [`ELSEWHERE`]: the same by whatever path somebody came to the ledger.
fn elsewhere(dir: &Path) -> io::Result<PathBuf> {
    let real = fs::canonicalize(dir)?;
    Ok(Path::new(ELSEWHERE).join(name_of(real.as_os_str().as_bytes())))
}

fn name_of(what: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(&Sha256::digest(what)[..16])
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
    /// The files that say so, and those that nobody will finish.
    files: Vec<PathBuf>,
}

/// The leases whose release is pending.
pub(super) fn due(dir: &Path, session: &Session<'_>) -> Result<Due, Failure> {
    let mut due = Due { change: Change::default(), files: Vec::new() };
    for path in files(dir) {
        if !is_whole(&path) {
            due.files.extend(is_abandoned(&path).then_some(path));
            continue;
        }
        // What cannot be read as a release, nobody can carry out: it is left for people to look at.
        let Some(pending) = read(&path) else { continue };
        due.files.push(path);
        let Some(attachment) = pending.attachment().filter(|_| pending.boot_id == session.boot_id) else { continue };
        match session.store.lease(&attachment)? {
            Some(record) if pending.means(&record) => {
                let released_at = if pending.cools_down { pending.asked_boottime_ms } else { 0 };
                // It may be written down more than once.
                let ended = &mut due.change.ended;
                match ended.iter_mut().find(|ended| ended.record.lease_id == record.lease_id) {
                    Some(ended) => ended.released_at = ended.released_at.max(released_at),
                    None => ended.push(Ended { record, released_at }),
                }
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

fn is_whole(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Unfinished files are somebody's work in progress, or nobody's any more.
fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

fn is_abandoned(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    is_unfinished(path) && written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > WRITING))
}

/// What people are to know of the ledger's spool: releases that wait, and what does not belong there.
pub(super) fn to_be_told(dir: &Path) -> impl Iterator<Item = PathBuf> {
    files(dir).into_iter().filter(|path| !is_unfinished(path))
}

/// All there is in the ledger's spool.
fn files(dir: &Path) -> Vec<PathBuf> {
    let folders = [Some(beside(dir)), elsewhere(dir).ok()];
    let entries = folders.into_iter().flatten().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The releases that can be read.
pub(super) fn pending(dir: &Path) -> impl Iterator<Item = Pending> {
    files(dir).into_iter().filter(|path| is_whole(path)).filter_map(|path| read(&path))
}

/// None if it is no release that can be read.
pub(super) fn read(path: &Path) -> Option<Pending> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Removes what was carried out. What cannot be removed is carried out again, which changes nothing.
pub(super) fn remove(done: Vec<PathBuf>) {
    for path in done {
        let _ = fs::remove_file(path);
    }
}
