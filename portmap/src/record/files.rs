//! The folder that records are in.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_spec::Attachment;

use super::Record;
use crate::error::Error;

/// Where records are.
pub const FOLDER: &str = "/run/podwire/portmap";

/// How often a record is written again because others remove the folder.
const ATTEMPTS: u32 = 100;
/// What no network's name begins with: a file that is not whole.
const UNFINISHED: char = '~';
/// The same: a copy of the record that is ending.
const ENDING: char = '!';

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

impl Default for Records {
    fn default() -> Self {
        Self { folder: FOLDER.into() }
    }
}

impl Records {
    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let Some(attachment) = record.attachment() else { return Ok(()) };
        let path = self.path(&attachment);
        self.write_to(&path, record).map_err(|source| Error::Record { action: "write", path, source })
    }

    /// Marks a record as ending. The mark is a copy beside it, so that it says nothing of an ADD that comes later.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn mark_ending(&self, record: &Record) -> Result<(), Error> {
        let Some(attachment) = record.attachment() else { return Ok(()) };
        let path = ending(&self.path(&attachment));
        self.write_to(&path, record).map_err(|source| Error::Record { action: "write", path, source })
    }

    /// Whether a DEL, or who found its pod dead, has begun to end what this record asked for.
    #[must_use]
    pub fn is_ending(&self, record: &Record) -> bool {
        let Some(attachment) = record.attachment() else { return false };
        matches!(read(&ending(&self.path(&attachment))), Ok(Some(marked)) if marked == *record)
    }

    fn write_to(&self, path: &Path, record: &Record) -> io::Result<()> {
        let text = format!("{}\n", serde_json::json!(record));
        for _ in 0..ATTEMPTS {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
            let unfinished = unfinished(path);
            let open = |()| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
            let written = made.and_then(open).and_then(|mut file| file.write_all(text.as_bytes()));
            match written.and_then(|()| fs::rename(&unfinished, path)) {
                // Whoever removed the last record took the folder along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(()) => return Ok(()),
                Err(error) => {
                    let _ = fs::remove_file(&unfinished);
                    return Err(error);
                }
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The record of an attachment; `None` if there is none that can be read.
    #[must_use]
    pub fn read(&self, attachment: &Attachment) -> Option<Record> {
        read(&self.path(attachment)).ok().flatten()
    }

    /// Whether there certainly is no record of an attachment: also none that cannot be read.
    #[must_use]
    pub fn has_nothing_of(&self, attachment: &Attachment) -> bool {
        fs::symlink_metadata(self.path(attachment)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Removes the record of an attachment, and with the last one the folder. One that is not there is removed.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.path(attachment);
        // The mark outlives what it marks.
        let all = [
            unfinished(&unfinished(&path)),
            unfinished(&path),
            unfinished(&ending(&path)),
            path.clone(),
            ending(&path),
        ];
        let removed = all.iter().try_for_each(|path| remove_file(path));
        removed.map_err(|source| Error::Record { action: "remove", path, source })?;
        self.tidy();
        Ok(())
    }

    /// Removes a record if it is still this one. Says whether it was: otherwise its DEL, or another ADD, was quicker.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn remove_if_still(&self, record: &Record) -> Result<bool, Error> {
        let Some(attachment) = record.attachment() else { return Ok(false) };
        let path = self.path(&attachment);
        self.take(&path, record).map_err(|source| Error::Record { action: "remove", path, source })
    }

    /// Takes the mark of [`Records::mark_ending`] away.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn unmark(&self, record: &Record) -> Result<(), Error> {
        let Some(attachment) = record.attachment() else { return Ok(()) };
        let path = ending(&self.path(&attachment));
        let removed = remove_file(&path).map_err(|source| Error::Record { action: "remove", path, source });
        self.tidy();
        removed
    }

    /// Aside for the last comparison: there it is written by nobody any more.
    fn take(&self, path: &Path, record: &Record) -> io::Result<bool> {
        if !matches!(read(path), Ok(Some(found)) if found == *record) {
            return Ok(false);
        }
        let aside = unfinished(&unfinished(path));
        match fs::rename(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result?,
        }
        let is_it = matches!(read(&aside), Ok(Some(found)) if found == *record);
        if !is_it {
            // Back, unless there is a newer one.
            match fs::hard_link(&aside, path) {
                Err(error) if ![io::ErrorKind::AlreadyExists, io::ErrorKind::NotFound].contains(&error.kind()) => {
                    return Err(error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        remove_file(&aside)?;
        self.tidy();
        Ok(is_it)
    }

    /// Whose records there are, by the names of files alone: also of those that cannot be read, or were never finished.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn owners(&self) -> Result<Vec<Attachment>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::Record { action: "list", path: self.folder.clone(), source }),
        };
        let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| name.trim_start_matches([UNFINISHED, ENDING]).replace(':', " ").parse().ok())
            .collect())
    }

    /// Removes marks of records that are gone: whoever had just removed one was killed.
    pub fn sweep(&self) {
        for owner in self.owners().unwrap_or_default() {
            let path = self.path(&owner);
            let mark = ending(&path);
            if mark.exists() && !path.exists() {
                // What stays is swept the next time.
                let _ = remove_file(&unfinished(&unfinished(&path))).and_then(|()| remove_file(&mark));
            }
        }
        self.tidy();
    }

    /// Removes the folder if nothing is in it.
    pub fn tidy(&self) {
        // Those that others use are not empty. An ADD or DEL that was killed may have left only the outer one.
        let _ = fs::remove_dir(&self.folder);
        if let Some(parent) = self.folder.parent() {
            let _ = fs::remove_dir(parent);
        }
    }

    /// All records, the oldest first, and what could not be read.
    #[must_use]
    pub fn all(&self) -> (Vec<Record>, Vec<Error>) {
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (records, errors),
            Err(source) => {
                return (records, vec![Error::Record { action: "list", path: self.folder.clone(), source }]);
            }
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with([UNFINISHED, ENDING])) {
                continue;
            }
            match read(&path) {
                Ok(record) => records.extend(record),
                Err(source) => errors.push(Error::Unreadable { path, source }),
            }
        }
        records.sort_by_key(|record| (record.created_ms, record.attachment()));
        (records, errors)
    }

    /// No part of a name has a colon in it, so nothing is ambiguous, and a mark that fits into the firewall fits here.
    fn path(&self, attachment: &Attachment) -> PathBuf {
        let Attachment { network, container_id, ifname } = attachment;
        self.folder.join(format!("{network}:{container_id}:{ifname}"))
    }
}

/// Where a record is before it is whole.
fn unfinished(path: &Path) -> PathBuf {
    beside(path, UNFINISHED)
}

/// Where the mark of a record is that is ending.
fn ending(path: &Path) -> PathBuf {
    beside(path, ENDING)
}

/// One that is not there is removed.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn beside(path: &Path, mark: char) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{mark}{name}"))
}

/// `None` if it went away in the meantime.
fn read(path: &Path) -> io::Result<Option<Record>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let record: Record = serde_json::from_slice(&text)?;
    if record.version == Record::VERSION && record.attachment().is_some() {
        return Ok(Some(record));
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is not known here", record.version)))
}
