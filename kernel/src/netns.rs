//! Network namespaces: opening them, working in them, naming them.
//!
//! A thread enters a namespace and dies there, so nothing has to be restored and no error can leave a
//! thread in the wrong place. This is the only module of the workspace that calls `setns(2)`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::{Error, Result};

/// The namespace of the calling thread; `/proc/self` would be the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives as long as this value, whatever becomes of its path.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    device: u64,
    inode: u64,
}

impl NetNs {
    /// Opens the namespace at a path, e.g. `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`Error::NetnsMissing`], [`Error::NetnsNotANamespace`] or [`Error::NetnsOtherKind`], each with the path;
    /// [`Error::NetnsOpen`] for everything else, e.g. missing permission.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |source| Error::NetnsOpen { path: path.into(), source };
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => Error::NetnsMissing { path: path.into() },
            // A socket's file, or a device without a driver.
            Errno::ENXIO | Errno::ENODEV => Error::NetnsNotANamespace { path: path.into() },
            other => failed(other),
        })?;
        // Looked at first, so that no device driver is asked for the kind of namespace that it is.
        if fstatfs(&fd).map_err(failed)?.filesystem_type() != NSFS_MAGIC {
            return Err(Error::NetnsNotANamespace { path: path.into() });
        }
        match kind_of(fd.as_fd()).map_err(failed)? {
            "network" => {}
            kind => return Err(Error::NetnsOtherKind { path: path.into(), kind }),
        }
        let stat = fstat(&fd).map_err(failed)?;
        Ok(Self { fd, device: stat.st_dev, inode: stat.st_ino })
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// Whether both are one namespace, whatever their paths.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The number in `net:[NUMBER]`. It is unique among the namespaces that exist at a time.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. A panic goes on in the caller.
    ///
    /// What `work` opens inside, e.g. an [`Rtnl`](crate::rtnl::Rtnl), belongs to the namespace and goes on
    /// working from outside.
    ///
    /// # Errors
    /// If the thread cannot start or enter; `work` has not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place that enters a namespace, on a thread that ends"
            )]
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .map_err(|source| Error::NetnsEnter { inode: self.inode, source })?;
            Ok(work())
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `work` in a network namespace that is made for it and ends with it: what the kernel makes because it was asked for
/// is nobody else's there.
///
/// # Errors
/// If the thread cannot start, or the namespace not be made; `work` has not run then.
pub fn in_a_new_one<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    on_a_thread(|| {
        #[expect(clippy::disallowed_methods, reason = "makes a namespace on a thread that ends")]
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::NetnsMake)?;
        Ok(work())
    })
}

/// Makes a network namespace and mounts it on `path`, as `ip netns add` does; folders on the way are made.
/// Its `lo` is down.
///
/// # Errors
/// If something is at `path` already, or a step fails; nothing is left then.
pub fn create_named(path: impl AsRef<Path>) -> Result<NetNs> {
    let path = path.as_ref();
    let no_file = |source| Error::NetnsFile { path: path.into(), source };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(no_file)?;
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o444).open(path).map_err(no_file)?;
    let mounted = on_a_thread(|| {
        #[expect(clippy::disallowed_methods, reason = "makes a namespace on a thread that ends")]
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::NetnsMake)?;
        let nothing: Option<&str> = None;
        mount(Some(OWN), path, nothing, MsFlags::MS_BIND, nothing)
            .map_err(|source| Error::NetnsMount { path: path.into(), source })?;
        NetNs::current()
    });
    if mounted.is_err() {
        // The error that is returned is the one that matters; the file is empty and ours.
        drop(remove_named(path));
    }
    mounted
}

/// Unmounts the namespace at `path` and removes the path; `Ok(false)` if there is nothing. Processes,
/// sockets and [`NetNs`] values keep the namespace itself alive.
///
/// # Errors
/// [`Error::NetnsNotANamespace`] if there is anything but a namespace or the empty file that is left when
/// one was unmounted; otherwise the step that failed.
pub fn remove_named(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => {}
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
        Err(Errno::EINVAL) if is_empty_file(path) => {}
        Err(Errno::EINVAL) => return Err(Error::NetnsNotANamespace { path: path.into() }),
        Err(source) => return Err(Error::NetnsUnmount { path: path.into(), source }),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::NetnsUnlink { path: path.into(), source }),
    }
}

fn is_empty_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0)
}

/// Runs `work` on a new thread and waits for it; a panic goes on in the caller.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        match thread.map_err(Error::NetnsThread)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The kind of a namespace (`ioctl_ns(2)`, NS_GET_NSTYPE).
fn kind_of(namespace: BorrowedFd<'_>) -> nix::Result<&'static str> {
    let flag = CloneFlags::from_bits_retain(ioctl::kind(namespace)?);
    Ok(match flag {
        CloneFlags::CLONE_NEWNET => "network",
        CloneFlags::CLONE_NEWNS => "mount",
        CloneFlags::CLONE_NEWPID => "pid",
        CloneFlags::CLONE_NEWUSER => "user",
        CloneFlags::CLONE_NEWUTS => "uts",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWCGROUP => "cgroup",
        _ => "time",
    })
}

mod ioctl {
    use std::os::fd::{AsRawFd, BorrowedFd};

    use nix::libc;

    /// `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

    /// A CLONE_NEW... flag.
    #[expect(unsafe_code, reason = "no library wraps this ioctl")]
    pub(super) fn kind(namespace: BorrowedFd<'_>) -> nix::Result<i32> {
        // SAFETY: the descriptor is open, and this request reads and writes no memory of the caller.
        nix::errno::Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) })
    }
}
