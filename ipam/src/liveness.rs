//! Whether a lease's pod is still there, as far as can be seen from here.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cni_spec::Attachment;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::ledger::attachments_with_link;
use crate::{Namespaces, NetnsId, Origin, Record};

/// Whether a pod's network namespace is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetnsState {
    /// It is where it was, or a process lives in it.
    There,
    /// By two signs that do not depend on each other: it is not where it was, and no process lives in it.
    Gone,
    /// Why nobody can tell from here.
    Unknown(String),
}

/// Everything alive on the node, counted once for many leases. What cannot be seen is not taken for gone.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// From where it is looked; none if that is not known.
    from: Option<Namespaces>,
    /// The process in whose mount namespace paths lead where they shall; none if it is this one's.
    asker: Option<u32>,
    namespaces: Option<io::Result<BTreeSet<u64>>>,
    linked: Option<kernel::Result<BTreeSet<Attachment>>>,
}

impl Census {
    /// As this process sees it.
    pub fn from_here() -> Self {
        Self { from: Namespaces::of_this_thread().ok(), ..Self::default() }
    }

    /// As another process sees it, that lives in the network and the pid namespace of this one, and waits for the answer.
    pub fn on_behalf_of(from: Namespaces, asker: u32) -> Self {
        let here = Namespaces::of_this_thread().ok();
        let asker = here.is_none_or(|here| here.mnt != from.mnt).then_some(asker);
        Self { from: Some(from), asker, ..Self::default() }
    }

    /// Whether the pod is gone for sure: its namespace is, and there is no link that says it is the attachment's. Such
    /// a link is a sign of life, whatever else is gone; only podwire makes it, so that it is missing says nothing.
    pub fn is_provably_dead(&mut self, record: &Record) -> bool {
        self.netns(record) == NetnsState::Gone && matches!(self.has_link(&record.attachment), Ok(false))
    }

    /// Whether the lease was read off a link that is there no more.
    pub fn has_lost_its_link(&mut self, record: &Record) -> bool {
        record.origin == Origin::Recovered && matches!(self.has_link(&record.attachment), Ok(false))
    }

    /// Why the lease must not be ended; none if the pod is gone for sure.
    pub fn objection(&mut self, record: &Record) -> Option<String> {
        match self.has_link(&record.attachment) {
            Ok(true) => return Some("its link is there".to_owned()),
            Err(error) => return Some(format!("its link cannot be looked for: {error}")),
            Ok(false) => {}
        }
        match self.netns(record) {
            NetnsState::There => Some("its network namespace is there".to_owned()),
            NetnsState::Gone => None,
            NetnsState::Unknown(why) => Some(format!("nobody can tell whether its network namespace is there: {why}")),
        }
    }

    /// Whether a link on this host says that it is the attachment's.
    pub fn has_link(&mut self, attachment: &Attachment) -> Result<bool, &kernel::Error> {
        let linked = self.linked.get_or_insert_with(attachments_with_link);
        linked.as_ref().map(|linked| linked.contains(attachment))
    }

    /// Whether the pod's network namespace is known, and is not where it was, which one sign alone says.
    pub fn is_not_where_it_was(&self, record: &Record) -> bool {
        let known = record.netns.as_ref().filter(|netns| netns.id.is_some());
        known.is_some_and(|netns| matches!(netns.is_at_its_path(|path| self.found_at(path)), Ok(false)))
    }

    /// Whether the pod's network namespace is there.
    pub fn netns(&mut self, record: &Record) -> NetnsState {
        let known = record.netns.as_ref().and_then(|netns| Some((netns, netns.id?)));
        let Some((netns, NetnsId { inode, seen_from, .. })) = known else {
            return NetnsState::Unknown("the lease does not know it".to_owned());
        };
        match netns.is_at_its_path(|path| self.found_at(path)) {
            Ok(true) => return NetnsState::There,
            Ok(false) => {}
            Err(error) => return NetnsState::Unknown(format!("{}: {error}", netns.path.display())),
        }
        if let Some(seen_from) = seen_from
            && let Some(which) = self.from.map_or(Some("own"), |from| from.differs_in(&seen_from))
        {
            return NetnsState::Unknown(format!("it was seen from another {which} namespace than this one"));
        }
        match self.namespaces.get_or_insert_with(namespaces_of_processes) {
            Ok(namespaces) if namespaces.contains(&inode) => NetnsState::There,
            Ok(_) => NetnsState::Gone,
            Err(error) => NetnsState::Unknown(format!("not all processes can be looked into: {error}")),
        }
    }

    /// What a path leads to. In /proc it is the same in all mount namespaces, and its magic links are not to be followed
    /// from outside.
    fn found_at(&self, path: &Path) -> io::Result<Metadata> {
        match self.asker {
            Some(asker) if !path.starts_with("/proc") => found_below(&format!("/proc/{asker}/root"), path),
            Some(_) | None => fs::metadata(path),
        }
    }
}

/// What a path leads to below another root, whose symbolic links stay below it (openat2(2), `RESOLVE_IN_ROOT`).
fn found_below(root: &str, path: &Path) -> io::Result<Metadata> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| io::Error::other(format!("{root}: {errno}")))?;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    File::from(openat2(&root, path, how)?).metadata()
}

/// The inodes of the network namespaces that processes live in (proc_pid_ns(5)). The runtime starts pods as it starts
/// this process, so their processes can be seen from here. Whoever is root in a user namespace of his own may not look
/// into the machine's other processes, and these are not in his pods. In the initial user namespace they may be: that
/// one of them cannot be looked into is an error there, as always for an ordinary user.
fn namespaces_of_processes() -> io::Result<BTreeSet<u64>> {
    let is_initial = fs::read_to_string("/proc/self/uid_map")?.split_whitespace().eq(["0", "0", "4294967295"]);
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
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && (!is_initial || name == "1") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
