//! Whether a lease's pod is still there, as far as can be seen from here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use cni_spec::Attachment;

use crate::ledger::{attachments_with_link, has_link};
use crate::{Netns, NetnsId, Record};

/// Two signs of life. What cannot be seen is not taken for gone.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// Whether a link on this host says that it is the attachment's.
    pub link: kernel::Result<bool>,
    /// Whether the pod's network namespace is where it was; none if the lease does not say where.
    pub netns: Option<bool>,
}

impl Liveness {
    pub fn of(record: &Record) -> Self {
        Self { link: has_link(&record.attachment), netns: Self::netns_of(record) }
    }

    /// The second sign alone.
    pub fn netns_of(record: &Record) -> Option<bool> {
        let netns = record.netns.as_ref().filter(|netns| netns.id.is_some())?;
        Some(Netns::at(&netns.path).is_same_as(netns))
    }

    /// Why the lease must not be ended; none if nothing speaks for the pod.
    pub fn objection(&self) -> Option<String> {
        match &self.link {
            Ok(true) => Some("its link is there".to_owned()),
            Err(error) => Some(format!("its link cannot be looked for: {error}")),
            Ok(false) if self.netns == Some(true) => Some("its network namespace is there".to_owned()),
            Ok(false) => None,
        }
    }
}

/// Everything alive on the node, counted once for many leases.
#[derive(Debug, Default)]
pub(crate) struct Census {
    namespaces: Option<io::Result<BTreeSet<u64>>>,
    linked: Option<kernel::Result<BTreeSet<Attachment>>>,
}

impl Census {
    /// Whether the pod is gone for sure. Two signs that do not depend on each other must say so: the namespace is not
    /// where it was, and no process lives in it. A link that says it is the attachment's is a sign of life, whatever
    /// the others say; and what cannot be seen is not taken for gone.
    pub fn is_provably_dead(&mut self, record: &Record) -> bool {
        let Some(NetnsId { inode, .. }) = record.netns.as_ref().filter(|netns| netns.is_gone()).and_then(|ns| ns.id)
        else {
            return false;
        };
        let deserted = self.namespaces.get_or_insert_with(namespaces_of_processes);
        let unlinked = self.linked.get_or_insert_with(attachments_with_link);
        deserted.as_ref().is_ok_and(|namespaces| !namespaces.contains(&inode))
            && unlinked.as_ref().is_ok_and(|linked| !linked.contains(&record.attachment))
    }
}

/// The inodes of the network namespaces that processes live in (proc_pid_ns(5)). The runtime starts pods as it starts
/// this process, so their processes can be seen from here. Whoever is root in a user namespace of his own may not look
/// into the machine's other processes, and these are not in his pods; for the machine's root, that is an error.
fn namespaces_of_processes() -> io::Result<BTreeSet<u64>> {
    let is_machines_root = fs::read_to_string("/proc/self/uid_map")?.split_whitespace().eq(["0", "0", "4294967295"]);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        match fs::metadata(entry.path().join("ns/net")) {
            Ok(namespace) => drop(found.insert(namespace.ino())),
            // It ended meanwhile, or is a zombie.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => {}
            // Init may have more capabilities than this process, and is no pod's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && (!is_machines_root || name == "1") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
