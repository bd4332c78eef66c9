//! Running a program of iptables: standard input in, what it complains about out, and an end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, dup};

use super::LOCK_SECONDS;
use crate::error::{Error, Result};

/// How long a change may take: the time for the lock, and time enough for ten thousands of rules.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What iptables exits with when it did not get the lock (`RESOURCE_PROBLEM` of its include/xtables.h).
const RESOURCE_PROBLEM: i32 = 4;

/// The most that is kept of what a program prints, in bytes.
const MOST: usize = 4096;

/// `iptables-restore --noflush --wait SECONDS`.
pub(super) fn restore(program: &Path, text: &str, lock: Option<BorrowedFd<'_>>) -> Result<()> {
    let wait = LOCK_SECONDS.to_string();
    let finished = run(program, &["--noflush", "--wait", &wait], text, lock)?;
    judge(program, finished.status, &finished.stderr, text)
}

/// `--version`, on one line.
pub(super) fn version(program: &Path) -> Result<String> {
    let finished = run(program, &["--version"], "", None)?;
    judge(program, finished.status, &finished.stderr, "")?;
    Ok(String::from_utf8_lossy(&finished.stdout).trim().to_owned())
}

/// What is wrong with the way a program ended; what it printed besides, as a warning, is nobody's business.
pub(super) fn judge(program: &Path, status: ExitStatus, stderr: &[u8], text: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    let program = program.to_owned();
    if status.code() == Some(RESOURCE_PROBLEM) && said.contains("xtables lock") {
        return Err(Error::IptablesBusy { program, seconds: LOCK_SECONDS, said });
    }
    let line = refused_line(&said, text);
    Err(Error::IptablesRefused { program, status, said, line })
}

/// The line of the input that "line 5 failed" or "line 5: RULE_APPEND failed" is about.
fn refused_line(said: &str, text: &str) -> Option<String> {
    let (_, after) = said.split_once("line ").or_else(|| said.split_once("line: "))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let number: usize = digits.parse().ok()?;
    text.lines().nth(number.checked_sub(1)?).map(str::to_owned)
}

struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn run(program: &Path, arguments: &[&str], stdin: &str, lock: Option<BorrowedFd<'_>>) -> Result<Finished> {
    let failed = |source| Error::IptablesRun { program: program.to_owned(), source };
    // A copy without FD_CLOEXEC is the child's too; ours goes once it has begun.
    let inherited = lock.map(dup).transpose().map_err(|errno| failed(errno.into()))?;
    let mut child = command(program, arguments).spawn().map_err(failed)?;
    drop(inherited);
    let input = child.stdin.take();
    let end = Instant::now() + DEADLINE;
    let (stdout, stderr, in_time) = thread::scope(|scope| {
        // A program that complains early reads no more.
        let feed = move || input.map(|mut pipe| pipe.write_all(stdin.as_bytes()));
        thread::Builder::new().spawn_scoped(scope, feed)?;
        let heard = hear(&mut child, end);
        if !matches!(heard, Ok((_, _, true))) {
            kill(&child);
        }
        heard
    })
    .map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if !in_time {
        return Err(Error::IptablesHangs { program: program.to_owned(), seconds: DEADLINE.as_secs() });
    }
    Ok(Finished { status, stdout, stderr })
}

#[expect(clippy::disallowed_methods, reason = "rules of iptables can be written by its own program only")]
fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own, so that the deadline ends what a wrapper script started too.
    command.process_group(0);
    command
}

fn kill(child: &Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        // It may have ended just now.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
}

/// Reads both outputs to their ends; the last value says whether that was before `end`.
fn hear(child: &mut Child, end: Instant) -> io::Result<(Vec<u8>, Vec<u8>, bool)> {
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("it has no output"));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((stdout, stderr, false));
        }
        let mut fds = Vec::new();
        fds.extend(out_open.then(|| PollFd::new(out.as_fd(), PollFlags::POLLIN)));
        fds.extend(err_open.then(|| PollFd::new(err.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ready = ready.into_iter();
        if out_open && ready.next() == Some(true) {
            out_open = take(&mut out, &mut stdout)?;
        }
        if err_open && ready.next() == Some(true) {
            err_open = take(&mut err, &mut stderr)?;
        }
    }
    Ok((stdout, stderr, true))
}

/// Reads what is there; false at the end.
fn take(from: &mut impl Read, to: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; MOST];
    let length = from.read(&mut buffer)?;
    let room = MOST.saturating_sub(to.len());
    to.extend_from_slice(&buffer[..length.min(room)]);
    Ok(length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_line_is_found() {
        let text = "*nat\n-A X -j Y\nCOMMIT\n";
        for said in [
            "iptables-restore: line 2 failed",
            "v1.8.9 (nf_tables): line 2: RULE_APPEND failed",
            "Error occurred at line: 2 Try",
        ] {
            assert_eq!(refused_line(said, text).as_deref(), Some("-A X -j Y"), "{said}");
        }
        assert_eq!(refused_line("line 9 failed", text), None);
        assert_eq!(refused_line("no such thing", text), None);
    }
}
