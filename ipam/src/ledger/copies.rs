//! A plain copy of every lease beside the database: what a damaged database is made anew from.
//!
//! The database is the truth as long as it can be read. A change goes: the attachments whose lease it ends, begins or
//! tells otherwise are noted in `unsettled`; the database is changed and flushed; their copies are made like the database; how many
//! changes there were is written into `generation`; the note goes; then there is an answer. All of it happens under the ledger's lock, and whoever opens the database first
//! settles what is noted. So, for a process that is killed
//!
//! - before the note is whole: nothing has changed, and a note about nothing does nothing;
//! - before the flush: database and copy differ if the change reached the file, and the next opener settles it;
//! - while copies are made: each is written aside and renamed, and the next opener makes them again;
//! - before the note goes: the next opener settles what is settled.
//!
//! The engine takes a database that has lost the end of its log for a sound, older one. `generation` tells: a database
//! that counts fewer changes is damaged.
//!
//! Copies of leases that have ended go before those of leases that have begun are written, so no two copies have an
//! address in common. If the database is lost between a kill and the next visit, what was noted counts as its copy
//! says: a lease whose ADD was never answered is forgotten, one whose DEL was never answered stands until that DEL
//! is repeated, or GC comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::session::{Failure, make_folder};
use crate::Error;
use crate::event::{Cause, Event, EventKind};
use crate::record::{Origin, Record};
use crate::store::{Change, Store};

/// What is said of a change before it is made: what the history is to tell, if whoever makes it is killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub at: Timestamp,
    /// Of the leases that end.
    pub why: EventKind,
    pub by: Cause,
}

impl Noted {
    /// The line about it was cut off.
    fn unknown() -> Self {
        let by = Cause { purpose: "unknown".to_owned(), pid: 0, uid: 0, reason: None };
        Self { at: Timestamp::now(), why: EventKind::Released, by }
    }
}

/// The copies of a ledger.
#[derive(Debug)]
pub(crate) struct Copies {
    folder: PathBuf,
    building: PathBuf,
    note: PathBuf,
    generation: PathBuf,
}

impl Copies {
    /// Those in a ledger's folder.
    pub fn in_folder(dir: &Path) -> Self {
        let [folder, building] = ["leases", "leases.new"].map(|name| dir.join(name));
        let [note, generation] = ["unsettled", "generation"].map(|name| dir.join(name));
        Self { folder, building, note, generation }
    }

    /// Notes whose copies will have to be settled after a change.
    pub fn note(&self, change: &Change, noted: &Noted) -> Result<(), Error> {
        let ended = change.ended.iter().map(|ended| &ended.record.attachment);
        let begun = change.begun.iter().chain(&change.retold).map(|record| &record.attachment);
        // A line that was cut off must not swallow the next.
        let lines: String = ended.chain(begun).map(|attachment| format!("\n{attachment}\n")).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let lines = format!("\n{}\n{lines}", serde_json::json!(noted));
        let written = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.note);
        written.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(failed(&self.note))
    }

    /// Makes the copies of what is noted like the database, and all of them if there is no folder for them.
    pub fn settle(&self, store: &Store) -> Result<(), Failure> {
        if !self.folder.is_dir() {
            self.copy_all(store)?;
        }
        let Some(noted) = self.noted()? else { return Ok(()) };
        // What the copies tell is never ahead of the disk: an earlier request may have changed the database that is
        // open, and have failed before it was flushed.
        store.flush()?;
        let mut standing = Vec::new();
        for attachment in noted.keys() {
            let path = copy_in(&self.folder, attachment);
            match store.lease(attachment)?.filter(needs_copy) {
                Some(record) => standing.push((path, record)),
                // What was begun and never named goes too.
                None => {
                    remove(&path.with_extension("unfinished")).and_then(|()| remove(&path)).map_err(failed(&path))?;
                }
            }
        }
        // Only now: one of these may have an address of one of those.
        for (path, record) in standing {
            write(&path, &record).map_err(failed(&path))?;
        }
        self.write_generation(store.generation()?).map_err(failed(&self.generation))?;
        remove(&self.note).map_err(failed(&self.note))?;
        Ok(())
    }

    /// What happened to the leases that are noted, as far as database and copies tell: the history of whoever was
    /// killed before it was written.
    pub fn unsettled(&self, store: &Store) -> Result<Vec<Event>, Failure> {
        let Ok(Some(noted)) = self.noted() else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        for (attachment, noted) in noted {
            let copied = fs::read(copy_in(&self.folder, &attachment)).ok();
            let before = copied.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
            let now = store.lease(&attachment)?;
            if before.as_ref().map(|record| &record.lease_id) == now.as_ref().map(|record| &record.lease_id) {
                continue;
            }
            let Noted { at, why, by } = noted.unwrap_or_else(Noted::unknown);
            let ended = before.map(|lease| (why, lease));
            let begun = now.map(|lease| (EventKind::of_begun(&lease), lease));
            let all = ended.into_iter().chain(begun);
            events.extend(all.map(|(event, lease)| Event { at, event, lease, by: by.clone() }));
        }
        Ok(events)
    }

    /// Whose copies are to be settled, and what was said of each.
    fn noted(&self) -> Result<Option<BTreeMap<Attachment, Option<Noted>>>, Error> {
        let text = match fs::read(&self.note) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.note)(error)),
        };
        let (mut all, mut said) = (BTreeMap::new(), None);
        for line in String::from_utf8_lossy(&text).lines() {
            if let Ok(attachment) = line.parse() {
                all.insert(attachment, said.clone());
            } else if let Ok(noted) = serde_json::from_str::<Noted>(line) {
                said = Some(noted);
            }
        }
        Ok(Some(all))
    }

    /// How many changes a database has at least that these are the copies of. Where that cannot be read, there is no
    /// telling, and the database is believed.
    pub fn generation(&self) -> u64 {
        fs::read_to_string(&self.generation).ok().and_then(|text| text.trim_end().parse().ok()).unwrap_or(0)
    }

    /// The leases of this boot, as the copies tell. What another boot left is removed. What cannot be understood is put
    /// aside for people to look at: it may be the lease of a living pod, written by a newer version, or torn. Where
    /// something cannot be read, nobody knows which addresses are in use.
    pub fn read(&self, boot_id: &str) -> Result<Vec<Record>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.folder)(error)),
        };
        let mut found: Vec<(PathBuf, Record)> = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed(&self.folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(failed(&path))?;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if record.boot_id != boot_id => remove(&path).map_err(failed(&path))?,
                Ok(record) if path == copy_in(&self.folder, &record.attachment) => found.push((path, record)),
                Ok(_) | Err(_) => put_aside(&path).map_err(failed(&path))?,
            }
        }
        // No two copies share an address, but if they did, the later lease was given when the earlier had ended.
        found.sort_by_key(|(_, record)| std::cmp::Reverse(record.created_boottime_ms));
        let mut held: BTreeSet<IpAddr> = BTreeSet::new();
        let mut leases = Vec::new();
        for (path, record) in found {
            if record.ips().any(|ip| held.contains(&ip)) {
                remove(&path).map_err(failed(&path))?;
            } else {
                held.extend(record.ips());
                leases.push(record);
            }
        }
        Ok(leases)
    }

    /// Removes all copies: a new boot has begun. What stays is void nevertheless, as it names its boot.
    pub fn void(&self) {
        let _ = fs::remove_file(&self.generation);
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// A few bytes in one write, which a kill does not cut in two.
    fn write_generation(&self, generation: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.generation);
        file?.write_all(format!("{generation:020}\n").as_bytes())
    }

    fn copy_all(&self, store: &Store) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.building)(error).into()),
            Ok(()) | Err(_) => make_folder(&self.building).map_err(failed(&self.building))?,
        }
        for record in store.leases() {
            let record = record?;
            let path = copy_in(&self.building, &record.attachment);
            if needs_copy(&record) {
                write(&path, &record).map_err(failed(&path))?;
            }
        }
        Ok(fs::rename(&self.building, &self.folder).map_err(failed(&self.folder))?)
    }
}

/// What was read off the kernel can be read there again, and is void when it cannot.
fn needs_copy(record: &Record) -> bool {
    record.origin != Origin::Recovered
}

/// One name for each attachment, of a length that fits.
fn copy_in(folder: &Path, attachment: &Attachment) -> PathBuf {
    folder.join(format!("{}.json", HEXLOWER.encode(&Sha256::digest(attachment.to_string())[..16])))
}

/// Under a name that nobody reads, in the same folder, until the boot ends.
fn put_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_extension("unreadable"))
}

/// Whole or not at all, as far as the death of this process goes; a loss of power ends the boot.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(serde_json::json!(record).to_string().as_bytes())?;
    drop::<File>(file);
    fs::rename(&unfinished, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Copy { path: path.clone(), source }
}
