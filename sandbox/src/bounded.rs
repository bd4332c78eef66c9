//! A test's process, from its start to the end of everything that it started.
//!
//! A test that fails halfway leaves behind what it started: owners of ledgers, servers, plugins that hang. Whoever
//! waited for the end of their output would wait for ever, so output goes to files, what is left when the test's
//! process has ended is killed, and a test that does not end is.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How the process ended, and whether it had to be ended.
pub(crate) struct Ended {
    pub(crate) output: Output,
    pub(crate) overdue: bool,
}

/// Runs the command as a process group of its own, for `longest` at the most, and ends the whole group.
pub(crate) fn run(command: &mut Command, longest: Duration) -> io::Result<Ended> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command.process_group(0).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).spawn()?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (ended, overdue) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        let overdue = overdue.recv_timeout(longest) == Err(RecvTimeoutError::Timeout);
        if overdue {
            kill(group)?;
        }
        Ok::<_, io::Error>(overdue)
    });
    // It is not reaped yet, so that its number is nobody else's while the group is ended.
    while waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    drop(ended);
    let overdue = guard.join().map_err(|_| io::Error::other("the guard of a test's time has panicked"))??;
    kill(group)?;
    let status = child.wait()?;
    let output = Output { status, stdout: content(&mut stdout)?, stderr: content(&mut stderr)? };
    Ok(Ended { output, overdue })
}

fn kill(group: Pid) -> io::Result<()> {
    match killpg(group, Signal::SIGKILL) {
        // Nobody is left but who waits to be reaped; in a user namespace of its own, that one is beyond our rights.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whoever wrote shared its offset with us.
fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_end_is_ended() {
        let mut command = crate::command("sh");
        command.args(["-c", "echo here; sleep 1000"]);
        let Ended { output, overdue } = run(&mut command, Duration::from_millis(300)).unwrap();
        assert!(overdue);
        assert!(!output.status.success());
    }

    #[test]
    fn who_ends_in_time_is_heard() {
        let mut command = crate::command("sh");
        command.args(["-c", "echo here; echo there >&2; exit 3"]);
        let Ended { output, overdue } = run(&mut command, Duration::from_secs(600)).unwrap();
        assert_eq!((overdue, output.status.code()), (false, Some(3)));
        assert_eq!((output.stdout, output.stderr), (b"here\n".to_vec(), b"there\n".to_vec()));
    }
}
