//! From where somebody looks: what a process sees of pods depends on the namespaces it lives in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The inodes of the namespaces (namespaces(7)) that decide which links, paths and processes are seen. No two of one
/// machine have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Namespaces {
    /// Which links there are.
    pub net: u64,
    /// Where paths lead.
    pub mnt: u64,
    /// Which processes are in /proc.
    pub pid: u64,
}

const NET: &str = "/proc/thread-self/ns/net";
const MNT: &str = "/proc/thread-self/ns/mnt";
const PID: &str = "/proc/thread-self/ns/pid";

impl Namespaces {
    /// Those of the calling thread.
    pub(crate) fn of_this_thread() -> Result<Self, Error> {
        let inode = |path: &'static str| {
            let found: io::Result<fs::Metadata> = fs::metadata(path);
            found.map(|found| found.ino()).map_err(|source| Error::Proc { path, source })
        };
        Ok(Self { net: inode(NET)?, mnt: inode(MNT)?, pid: inode(PID)? })
    }

    /// The first that differs, by its name in proc_pid_ns(5).
    pub(crate) fn differs_in(&self, other: &Self) -> Option<&'static str> {
        let pairs = [("net", self.net, other.net), ("pid", self.pid, other.pid), ("mnt", self.mnt, other.mnt)];
        pairs.into_iter().find(|(_, mine, theirs)| mine != theirs).map(|(name, ..)| name)
    }
}
