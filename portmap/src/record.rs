//! What was asked for, in a file for each attachment: what a flushed firewall is filled from, and what tells whose a
//! host port is.
//!
//! The firewall is the truth about who holds what; a record says what would have to be there. A record is the request
//! itself, so whatever reads it plans anew, with the rules and the backend of its own version.
//!
//! An ADD writes its record before it claims anything, and a DEL removes it before it releases anything. So, for a
//! process that is killed anywhere:
//!
//! - a record without a mapping belongs to an ADD that was never answered, or to a DEL that was: the pod is gone soon,
//!   and [`reconcile`](crate::reconcile) keeps no record of a pod that is gone;
//! - a mapping without a record is released by its DEL, or by GC, which go by the mark in the firewall alone.
//!
//! A DEL that is not killed, but cannot release, writes the record again: see [`crate::Portmap`].
//!
//! They live below /run, so that none outlives its boot, as no pod does.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_spec::{AddRequest, Attachment, NetConf, PodIdentity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;

/// Where records are.
pub const FOLDER: &str = "/run/podwire/portmap";

/// How often a record is written again because others remove the folder.
const ATTEMPTS: u32 = 100;
/// What no network's name begins with.
const UNFINISHED: char = '~';

/// An attachment with host ports, as its ADD asked for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this format.
    version: u32,
    network: String,
    container_id: String,
    ifname: String,
    /// The pod, as far as the runtime told.
    #[serde(default, skip_serializing_if = "Pod::is_unknown")]
    pub pod: Pod,
    /// The pod's network namespace, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// The network config of the ADD, `prevResult` and `runtimeConfig` included.
    config: Value,
}

/// What a Kubernetes runtime tells of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A network namespace, by what tells it from a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// `CNI_NETNS`.
    pub path: PathBuf,
    /// Of the namespace's file system, nsfs.
    pub device: u64,
    /// The number that `ip netns identify` and `/proc/PID/ns/net` show.
    pub inode: u64,
}

impl Record {
    const VERSION: u32 = 1;

    /// The record of an ADD.
    #[must_use]
    pub fn of(request: &AddRequest) -> Self {
        let PodIdentity { namespace, name, .. } = request.args.pod();
        let pod = Pod { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) };
        let netns = Netns::at(&request.netns);
        Self::new(&request.attachment, pod, netns, request.config.json.clone())
    }

    /// A record of what is known, made now.
    #[must_use]
    pub fn new(attachment: &Attachment, pod: Pod, netns: Option<Netns>, config: Value) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            version: Self::VERSION,
            network: attachment.network.to_string(),
            container_id: attachment.container_id.to_string(),
            ifname: attachment.ifname.to_string(),
            pod,
            netns,
            created_ms: now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            config,
        }
    }

    /// Whose it is; `None` if the names are none.
    #[must_use]
    pub fn attachment(&self) -> Option<Attachment> {
        format!("{} {} {}", self.network, self.container_id, self.ifname).parse().ok()
    }

    /// The request again, checked as if it came now. `None` if it asks for no host port.
    ///
    /// # Errors
    /// Those of [`Config::new`], and of a config that cannot be read.
    pub fn request(&self) -> Result<Option<Config>, Error> {
        let conf = self.conf()?;
        let (Some(attachment), Some(prev_result)) = (self.attachment(), conf.prev_result.as_ref()) else {
            return Err(Error::NotChained);
        };
        Config::new(&attachment, &conf, prev_result)
    }

    /// The interfaces on the node that earlier plugins of the chain made or used for the pod.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let interfaces = self.conf().ok().and_then(|conf| conf.prev_result).unwrap_or_default().interfaces;
        let on_node = |sandbox: &Option<String>| sandbox.as_ref().is_none_or(String::is_empty);
        interfaces.into_iter().filter(|link| on_node(&link.sandbox)).map(|link| link.name).collect()
    }

    fn conf(&self) -> Result<NetConf, Error> {
        NetConf::from_bytes(self.config.to_string().into_bytes()).map_err(Error::Config)
    }
}

impl Pod {
    fn is_unknown(&self) -> bool {
        self.namespace.is_none() && self.name.is_none()
    }

    /// `namespace/name`, the name alone, or `None`.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (None, Some(name)) => Some(name.clone()),
            (_, None) => None,
        }
    }
}

impl Netns {
    /// The namespace at a path; `None` if there is nothing.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

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

    fn write_to(&self, path: &Path, record: &Record) -> io::Result<()> {
        let text = format!("{}\n", serde_json::json!(record));
        for _ in 0..ATTEMPTS {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let unfinished = unfinished(path);
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
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

    /// Removes the record of an attachment, and with the last one the folder. One that is not there is removed.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.path(attachment);
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        let unfinished = [unfinished(&unfinished(&path)), unfinished(&path)];
        let removed = unfinished.iter().try_for_each(|path| remove(path)).and_then(|()| remove(&path));
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
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::remove_file(&aside)?;
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
        Ok(names.filter_map(|name| name.trim_start_matches(UNFINISHED).replace(':', " ").parse().ok()).collect())
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
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
                continue;
            }
            match read(&path) {
                Ok(record) => records.extend(record),
                Err(source) => errors.push(Error::Record { action: "read", path, source }),
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{UNFINISHED}{name}"))
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
