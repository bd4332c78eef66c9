//! Where a real container runtime can do no harm, and nothing that it starts outlives the run.
//!
//! Three processes, one inside the other. The outermost leaves the machine's mounts, waits, and removes the control groups.
//! The second is process 1 of a process namespace: when it ends, however it ends, the kernel ends all others there - daemons, shims, monitors,
//! containers. It collects those whose parents are gone, as an init does. The third is the node: it leaves the machine's
//! network and mounts, and plays.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cgroup::{self, Groups};
use crate::error::Error;

/// How often process 1 looks whether others have ended, in milliseconds.
const LOOK_UP: u16 = 10;
/// How long a whole play may take; it takes seconds where nothing else runs.
const WHOLE: Duration = Duration::from_secs(600);

/// Which of the three a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// The first, when it has left the machine's mounts.
    Outside,
    /// The second.
    Init,
    /// The third.
    Node,
}

/// Becomes the outermost process, which has mounts of its own. It returns only if that does not work.
///
/// # Errors
/// If this is not root, or the programs for it are not there.
pub fn leave(command_line: &[OsString]) -> Result<ExitCode, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    // podman and containerd call modprobe(8), which would change the machine.
    let mut unshare = sandbox::command("setpriv");
    unshare.args(["--bounding-set=-sys_module", "--inh-caps=-sys_module", "unshare"]);
    unshare.args(["--mount", "--propagation", "private", "--"]).args(command_line).args(["--place", "outside"]);
    Err(start("setpriv")(unshare.exec()))
}

/// Starts the second process with this command line, waits for it, and leaves no control group.
///
/// # Errors
/// If something of it does not work.
pub fn outside(command_line: &[OsString]) -> Result<ExitCode, Error> {
    let hierarchies = cgroup::all()?;
    cgroup::mount_all(&hierarchies)?;
    let groups = Groups::of_this_run(hierarchies)?;
    let mut unshare = sandbox::command("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--"]);
    unshare.args(command_line).args(["--place", "init", "--cgroup-parent", groups.parent()]);
    let mut child = unshare.stdin(Stdio::piped()).spawn().map_err(start("unshare"))?;
    // It is never written to: when this process ends, the second one reads the end of it.
    let lifeline = child.stdin.take();
    let status = child.wait().map_err(start("unshare"))?;
    drop(lifeline);
    groups.remove()?;
    Ok(exit_code(status.code()))
}

/// Starts the third process and collects the dead, until it has ended or the outermost has.
///
/// # Errors
/// If it cannot be started, or the play does not end in time.
pub fn init(command_line: &[OsString]) -> Result<ExitCode, Error> {
    let Some((program, arguments)) = command_line.split_first() else { return Ok(ExitCode::FAILURE) };
    let mut node = sandbox::command(program);
    let node = node.args(arguments).args(["--place", "node"]).stdin(Stdio::null()).spawn().map_err(start("myself"))?;
    let node = Pid::from_raw(node.id().cast_signed());
    let stdin = std::io::stdin();
    let deadline = Instant::now() + WHOLE;
    loop {
        if Instant::now() > deadline {
            return Err(Error::Late { what: "the play to end".to_owned(), waited: WHOLE, log: String::new() });
        }
        let mut lifeline = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut lifeline, PollTimeout::from(LOOK_UP)) {
            Ok(0) | Err(Errno::EINTR) => {}
            // Nobody waits for a verdict any more.
            Ok(_) | Err(_) => return Ok(ExitCode::FAILURE),
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == node => return Ok(exit_code(Some(code))),
                Ok(WaitStatus::Signaled(pid, ..)) if pid == node => return Ok(ExitCode::FAILURE),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}

fn exit_code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn start(program: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Start { program: program.to_owned(), source }
}
