//! Results kept between ADD and DEL, in libcni's place and format (`cniCacheV1`), so that tools which read
//! libcni's find ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Container, RuntimeError};
use crate::conflist::Conflist;

const KIND: &str = "cniCacheV1";

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// The file's keys, as libcni names them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    netns: PathBuf,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    capability_args: BTreeMap<String, Value>,
    result: Value,
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps the final result of an ADD.
    pub(super) fn store(&self, list: &Conflist, container: &Container, result: &Value) -> Result<(), RuntimeError> {
        let file = self.file(list, container);
        let entry = Entry {
            kind: KIND.to_owned(),
            container_id: container.id.to_string(),
            config: BASE64.encode(list.json.to_string().as_bytes()),
            if_name: container.ifname.to_string(),
            network_name: list.name.to_string(),
            netns: container.netns.clone(),
            cni_args: container.args.clone(),
            capability_args: container.capability_args.clone(),
            result: result.clone(),
        };
        let write = || {
            fs::create_dir_all(self.results())?;
            fs::write(&file, serde_json::to_vec(&entry)?)
        };
        write().map_err(|source| RuntimeError::Cache { file: file.clone(), source })
    }

    /// The kept result, if there is one. libcni takes a damaged file for a missing one, so that DEL runs.
    pub(super) fn result(&self, list: &Conflist, container: &Container) -> Result<Option<Value>, RuntimeError> {
        let file = self.file(list, container);
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| RuntimeError::Cache { file, source })?,
        };
        let entry = serde_json::from_slice::<Entry>(&text).ok().filter(|entry| entry.kind == KIND);
        Ok(entry.map(|entry| entry.result))
    }

    /// Forgets an attachment, and removes the folders that this leaves empty.
    pub(super) fn forget(&self, list: &Conflist, container: &Container) -> Result<(), RuntimeError> {
        let file = self.file(list, container);
        missing_is_fine(fs::remove_file(&file)).map_err(|source| RuntimeError::Cache { file, source })?;
        for folder in [self.results(), self.folder.clone()] {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// All kept attachments of a network.
    pub(super) fn containers(&self, list: &Conflist) -> Result<Vec<Container>, RuntimeError> {
        let folder = self.results();
        let failed = |source| RuntimeError::Cache { file: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut containers = Vec::new();
        for entry in entries {
            let text = fs::read(entry.map_err(failed)?.path()).map_err(failed)?;
            let Ok(entry) = serde_json::from_slice::<Entry>(&text) else { continue };
            if entry.kind == KIND && entry.network_name == list.name.as_str() {
                containers.extend(entry.container());
            }
        }
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(containers)
    }

    fn results(&self) -> PathBuf {
        self.folder.join("results")
    }

    fn file(&self, list: &Conflist, container: &Container) -> PathBuf {
        self.results().join(format!("{}-{}-{}", list.name, container.id, container.ifname))
    }
}

impl Entry {
    fn container(self) -> Option<Container> {
        Some(Container {
            id: self.container_id.parse().ok()?,
            netns: self.netns,
            ifname: self.if_name.parse().ok()?,
            args: self.cni_args,
            capability_args: self.capability_args,
        })
    }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
