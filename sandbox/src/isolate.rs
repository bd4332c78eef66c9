//! The way in: unshare, id maps, mounts, `lo`.
//!
//! [`Identity::isolate`] also runs between fork and exec in a child of a threaded test binary, so it
//! neither allocates nor takes a lock; whatever needs memory is prepared in [`Identity::of_caller`].

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getegid, geteuid};

use crate::error::{SandboxError, Step};
use crate::loopback;

/// Moves this process into a sandbox: new network and mount namespaces, and a new user namespace in which
/// it is root unless it is root already. Programs that it starts afterwards are inside too; it never
/// comes back.
///
/// # Errors
/// If the process has other threads, or a step is refused; the process may then be half inside and
/// should end.
pub fn enter() -> Result<(), SandboxError> {
    let tasks = Path::new("/proc/self/task");
    let count = fs::read_dir(tasks).map_err(|source| SandboxError::Proc { path: tasks.into(), source })?.count();
    if count != 1 {
        return Err(SandboxError::Threads { count });
    }
    Identity::of_caller().isolate().map_err(|(step, source)| SandboxError::Refused { step, source })
}

/// Who enters, and the id maps that make it root inside.
pub(crate) struct Identity {
    euid: Uid,
    uid_map: String,
    gid_map: String,
}

impl Identity {
    pub(crate) fn of_caller() -> Self {
        let euid = geteuid();
        Self { euid, uid_map: format!("0 {euid} 1"), gid_map: format!("0 {} 1", getegid()) }
    }

    /// All of it, for the calling thread.
    pub(crate) fn isolate(&self) -> Result<(), (Step, Errno)> {
        self.unshare()?;
        set_up_mounts()?;
        loopback::set_up().map_err(|errno| (Step::LoopbackUp, errno))
    }

    fn unshare(&self) -> Result<(), (Step, Errno)> {
        let private = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if self.euid.is_root() {
            match leave(private) {
                // Root without CAP_SYS_ADMIN, as in most containers: go the ordinary user's way.
                Err(Errno::EPERM) => {}
                result => return result.map_err(|errno| (Step::Unshare, errno)),
            }
        }
        leave(private | CloneFlags::CLONE_NEWUSER).map_err(|errno| (Step::Unshare, errno))?;
        self.map_ids().map_err(|error| (Step::MapIds, errno_of(&error)))
    }

    /// `setgroups` must be denied first, or the kernel refuses an ordinary user's `gid_map`.
    fn map_ids(&self) -> io::Result<()> {
        write_once("/proc/self/setgroups", "deny")?;
        write_once("/proc/self/uid_map", &self.uid_map)?;
        write_once("/proc/self/gid_map", &self.gid_map)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one way out of the machine's namespaces")]
fn leave(flags: CloneFlags) -> nix::Result<()> {
    unshare(flags)
}

/// The kernel takes an id map in one write only.
fn write_once(path: &str, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn set_up_mounts() -> Result<(), (Step, Errno)> {
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|errno| (Step::PrivateMounts, errno))?;
    mount_fresh("tmpfs", "/run", Some("mode=0755")).map_err(|errno| (Step::MountRun, errno))?;
    mount_fresh("tmpfs", "/var/lib", Some("mode=0755")).map_err(|errno| (Step::MountVarLib, errno))?;
    fs::create_dir("/run/netns").map_err(|error| (Step::MakeNetnsFolder, errno_of(&error)))?;
    match mount_fresh("sysfs", "/sys", None) {
        // Where the machine hides parts of its own sysfs, the kernel refuses a whole one to a user
        // namespace. Nothing here depends on it: /sys/class/net just shows the machine's interfaces.
        Ok(()) | Err(Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(errno) => Err((Step::MountSysfs, errno)),
    }
}

fn mount_fresh(kind: &str, target: &str, options: Option<&str>) -> nix::Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, options)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
