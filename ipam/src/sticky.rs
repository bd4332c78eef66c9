//! Addresses that pods get again: `sticky.jsonl`, which outlives a boot.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cni_spec::{Attachment, IfName, NetworkName};
use serde::{Deserialize, Serialize};

use crate::ledger::make_folder;
use crate::record::Pod;

/// The addresses of a pod, from one for each pool of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sticky {
    #[serde(flatten)]
    pub pod: StickyPod,
    pub addresses: Vec<IpAddr>,
}

/// A pod by the names that it comes back under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StickyPod {
    pub network: NetworkName,
    pub namespace: String,
    pub name: String,
    pub ifname: IfName,
}

impl StickyPod {
    /// None for a pod whose name or namespace is not known.
    pub fn of(attachment: &Attachment, pod: &Pod) -> Option<Self> {
        let (namespace, name) = (pod.namespace.clone()?, pod.name.clone()?);
        Some(Self { network: attachment.network.clone(), namespace, name, ifname: attachment.ifname.clone() })
    }
}

const FILE: &str = "sticky.jsonl";

/// Appends a line for each. Of a pod's lines the last counts.
pub(crate) fn record(state_dir: &Path, new: &[Sticky]) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    make_folder(state_dir)?;
    let lines: String = new.iter().map(|sticky| format!("{}\n", serde_json::json!(sticky))).collect();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(state_dir.join(FILE))?;
    file.write_all(lines.as_bytes())
}

/// All pods and their addresses. A line that cannot be read costs its pod the address it had, and nobody else
/// anything.
pub(crate) fn read(state_dir: &Path) -> Vec<Sticky> {
    let text = fs::read(state_dir.join(FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Sticky>(line).ok());
    let last: BTreeMap<StickyPod, Sticky> = lines.map(|sticky| (sticky.pod.clone(), sticky)).collect();
    last.into_values().collect()
}
