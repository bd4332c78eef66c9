//! A child process that takes over what the kernel makes callers wait for.
//!
//! Deleting an interface, and closing a netfilter socket after something was deleted, wait for RCU grace periods: 10
//! to 50 ms in which nothing is left to be done. A thread is no help, as a process has not ended before all its threads
//! have. So the system call is made by a forked child, which leaves the caller's session and its standard streams and
//! ends by itself a moment later.
//!
//! The child inherits every open descriptor, and with them what they hold: a lock, a namespace, somebody's pipe. Fork
//! before taking a lock.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::unistd::{ForkResult, chdir, close, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, read, setsid, write};

/// What a process of this kind is called in `ps`.
const NAME: &std::ffi::CStr = c"podwire-waits";

/// A child at work, as its parent sees it.
#[derive(Debug)]
pub(crate) struct Aside {
    verdict: OwnedFd,
}

/// What the parent knows about the child's work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may have been done or not.
    Pending,
    /// It was done.
    Done,
    /// The kernel refused.
    Refused(Errno),
    /// The child ended without saying anything, e.g. because it was killed.
    Died,
}

impl Aside {
    /// Has a child do the work, and then keep all descriptors open for `linger`. As other threads of this process may
    /// hold locks, of the allocator for one, the work makes system calls only: it neither allocates nor locks.
    ///
    /// `None` if the kernel gives no process. Then the caller has to do the work, and to wait.
    pub(crate) fn begin(linger: Duration, work: impl FnOnce() -> nix::Result<()>) -> Option<Self> {
        let (verdict, report) = pipe2(OFlag::O_CLOEXEC).ok()?;
        #[expect(unsafe_code, reason = "only a process of its own can wait in this one's place")]
        // SAFETY: the child makes system calls only and never returns, so no state of other threads matters to it.
        match unsafe { fork() }.ok()? {
            ForkResult::Parent { .. } => Some(Self { verdict }),
            ForkResult::Child => {
                drop(verdict);
                serve(report, linger, work)
            }
        }
    }

    /// Waits for the verdict, but no longer than this.
    pub(crate) fn verdict(&self, patience: Duration) -> Verdict {
        let mut fds = [PollFd::new(self.verdict.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(patience)), None) {
            Ok(0) | Err(Errno::EINTR) => Verdict::Pending,
            Ok(_) => self.read(),
            Err(_) => Verdict::Died,
        }
    }

    fn read(&self) -> Verdict {
        let mut bytes = [0; size_of::<i32>()];
        match read(&self.verdict, &mut bytes) {
            Ok(length) if length == bytes.len() => match i32::from_ne_bytes(bytes) {
                0 => Verdict::Done,
                errno => Verdict::Refused(Errno::from_raw(errno)),
            },
            _ => Verdict::Died,
        }
    }
}

/// The child's life: system calls only.
fn serve(report: OwnedFd, linger: Duration, work: impl FnOnce() -> nix::Result<()>) -> ! {
    // None of these keeps the work from being done.
    let _ = (setsid(), chdir("/"), nix::sys::prctl::set_name(NAME));
    leave_standard_streams();
    let verdict = work().err().map_or(0, |errno| errno as i32);
    // Nobody reads it if the parent has seen enough.
    let _ = write(&report, &verdict.to_ne_bytes());
    drop(report);
    std::thread::sleep(linger);
    #[expect(unsafe_code, reason = "handlers for the end of the process are the parent's")]
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe {
        nix::libc::_exit(0)
    }
}

/// A runtime waits until nobody can write to a plugin's output any more.
fn leave_standard_streams() {
    match open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        Ok(null) => {
            let _ = (dup2_stdin(&null), dup2_stdout(&null), dup2_stderr(&null));
        }
        Err(_) => {
            for stream in 0..=2 {
                let _ = close(stream);
            }
        }
    }
}
