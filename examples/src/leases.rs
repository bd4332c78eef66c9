//! Which addresses the chain's IPAM plugin says are taken, read with the tools it has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::Serialize;

use crate::conflist::Conflist;
use crate::swap::Reference;

/// podwire-ipam's folder, if its config names no other.
pub const PODWIRE_IPAM: &str = "/run/podwire/ipam";

/// The command line of podwire-ipam's ledger.
pub const COMMAND: &str = "ipam";

/// Its exit code where no lease is the network's.
const NOTHING_FOUND: i32 = 3;

/// host-local's folder, if its config names no other.
pub const HOST_LOCAL: &str = "/var/lib/cni/networks";

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leases {
    /// How it was read: a command line or a folder.
    pub source: String,
    /// What it says, for people.
    pub text: Vec<String>,
    /// The addresses that are taken.
    pub taken: BTreeSet<IpAddr>,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LeasesError {
    /// The `ipam` executable could not be run.
    #[error("cannot run {command}")]
    Run {
        /// Its command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// host-local's folder could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads the leases of the list's network; `None` if its IPAM plugin is neither ours nor host-local. `ipam` is
/// our command line's path.
///
/// # Errors
/// If the plugin is known, but its leases cannot be read.
pub fn read(list: &Conflist, ipam: Option<&Path>) -> Result<Option<Leases>, LeasesError> {
    let ours = Reference::HostLocal.ours();
    match (list.plugins.iter().find_map(|plugin| plugin.ipam_type()), ipam) {
        (Some(name), Some(ipam)) if name == ours => podwire(list, ipam).map(Some),
        (Some(name), _) if name == Reference::HostLocal.name() => host_local(list).map(Some),
        _ => Ok(None),
    }
}

/// The table that people see; every word in it that is an address is a lease.
fn podwire(list: &Conflist, ipam: &Path) -> Result<Leases, LeasesError> {
    let mut arguments = vec!["list".to_owned(), "--network".to_owned(), list.name.to_string()];
    if let Some(folder) = data_dir(list) {
        arguments.extend(["--dir".to_owned(), folder.to_owned()]);
    }
    let command = format!("{COMMAND} {}", arguments.join(" "));
    let output = sandbox::command(ipam)
        .args(&arguments)
        .output()
        .map_err(|source| LeasesError::Run { command: command.clone(), source })?;
    if !output.status.success() && output.status.code() != Some(NOTHING_FOUND) {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LeasesError::Failed { command, status: output.status, stderr });
    }
    let text: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    let words = text.iter().flat_map(|line| line.split_whitespace());
    let taken = words.filter_map(|word| word.parse().ok()).collect();
    Ok(Leases { source: command, text, taken })
}

/// One file per address, with the container's id in its first line.
fn host_local(list: &Conflist) -> Result<Leases, LeasesError> {
    let folder = Path::new(data_dir(list).unwrap_or(HOST_LOCAL)).join(list.name.as_str());
    let failed = |path: &Path, source| LeasesError::Read { path: path.to_owned(), source };
    let mut leases =
        Leases { source: format!("files in {}", folder.display()), text: Vec::new(), taken: BTreeSet::new() };
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(leases),
        entries => entries.map_err(|source| failed(&folder, source))?,
    };
    for entry in entries {
        let path = entry.map_err(|source| failed(&folder, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(address) = name.parse::<IpAddr>() else { continue };
        let owner = fs::read_to_string(&path).map_err(|source| failed(&path, source))?;
        leases.taken.insert(address);
        leases.text.push(format!("{name}  {}", owner.split_whitespace().collect::<Vec<_>>().join("  ")));
    }
    leases.text.sort();
    Ok(leases)
}

/// `ipam.dataDir`.
#[must_use]
pub fn data_dir(list: &Conflist) -> Option<&str> {
    list.plugins.iter().find_map(|plugin| plugin.json.get("ipam")?.get("dataDir")?.as_str())
}
