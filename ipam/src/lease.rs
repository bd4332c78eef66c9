//! What a caller asks for and what it gets: the values that cross the crate's border.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cni_spec::{Attachment, CniArgs, CniResult, Dns, IpConfig, Route};
use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Namespaces;

/// One request for addresses: what ADD knows about the attachment.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// Who asks. A second request of the same attachment from the same namespace gets the same answer.
    pub attachment: Attachment,
    /// The pod's network namespace.
    pub netns: Netns,
    /// `CNI_ARGS`: the pod's names, and `IP` if an address is asked for.
    pub args: CniArgs,
}

/// A network namespace as a path and, where the path leads to something, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Netns {
    /// `CNI_NETNS`.
    pub path: PathBuf,
    /// What the path led to; none if nothing is there, as when a plugin is tried by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<NetnsId>,
}

impl Netns {
    /// Looks at the path. A path that leads nowhere is no error here: the main plugin opens the namespace
    /// and says what is wrong with it.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), id: std::fs::metadata(path).ok().map(|found| NetnsId::of(&found)) }
    }

    /// Whether its path leads to it; `look` tells where paths lead. An error if that cannot be seen, as without the
    /// right to look: what cannot be seen is not gone.
    pub(crate) fn is_at_its_path(&self, look: impl Fn(&Path) -> io::Result<Metadata>) -> io::Result<bool> {
        match look(&self.path) {
            Ok(found) => Ok(self.id.is_some_and(|id| id.is_of(&found))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether both are the same namespace: by device and inode if both are known, else by path.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self.id, other.id) {
            (Some(mine), Some(theirs)) => (mine.device, mine.inode) == (theirs.device, theirs.inode),
            (None, None) => self.path == other.path,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Device and inode of a namespace file: together the same as long as the namespace lives (namespaces(7)).
/// Whoever cannot see the file, or a process in it, from elsewhere than where it was seen, knows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetnsId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Where the process lived that saw it there: the plugin's, and so the runtime's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_from: Option<Namespaces>,
}

impl NetnsId {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), seen_from: Namespaces::of_this_thread().ok() }
    }

    fn is_of(&self, found: &Metadata) -> bool {
        (self.device, self.inode) == (found.dev(), found.ino())
    }
}

/// The name of one lease, never used twice. Whoever gives a lease back by this name cannot free an address
/// that has moved on to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LeaseId(pub(crate) String);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LeaseId {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// One address of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedAddress {
    /// The address with its pool's prefix length.
    pub address: IpNetwork,
    /// The pool's gateway; none if the pool has none.
    pub gateway: Option<IpAddr>,
}

/// Addresses held by an attachment until it is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub attachment: Attachment,
    /// One address from each pool of the config, in the config's order.
    pub addresses: Vec<LeasedAddress>,
    /// `ipam.routes` of the config.
    pub routes: Vec<Route>,
    /// What `ipam.resolvConf` says.
    pub dns: Dns,
    /// The lease's name.
    pub lease_id: LeaseId,
    /// Whether this call made the lease. False for the repeated answer to an ADD that was sent again: such a
    /// lease is older than the call, so a failure of the call must not end it.
    pub fresh: bool,
}

impl From<&Lease> for CniResult {
    /// The abbreviated result of an IPAM plugin: no interfaces (spec section 4, "Delegated plugins").
    fn from(lease: &Lease) -> Self {
        let ips = lease
            .addresses
            .iter()
            .map(|leased| IpConfig { address: leased.address, gateway: leased.gateway, interface: None })
            .collect();
        Self { interfaces: Vec::new(), ips, routes: lease.routes.clone(), dns: lease.dns.clone() }
    }
}

/// What became of a request to release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Released {
    /// The lease is gone; these were its addresses.
    Lease(Vec<IpAddr>),
    /// There was nothing to release, which is as good.
    Nothing,
    /// The ledger could not be had now. The request is written down and whoever opens the ledger next
    /// carries it out first.
    Spooled,
}
