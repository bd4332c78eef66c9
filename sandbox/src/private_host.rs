//! A test's body in a process of its own, inside a sandbox.

use std::any::type_name;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, pipe2, write};

use crate::bounded::{self, Ended};
use crate::error::{SandboxError, Step};
use crate::isolate::Identity;

/// Marks the child: "FD:INODE:PID", the report pipe, the network namespace that it must have left and its
/// parent. Programs that the body starts inherit the mark, but have another parent.
const MARK: &str = "SANDBOX_REPORT";
/// The child's report that it reached the test's body.
const REACHED: u8 = b'!';
/// Longer than any test takes on a machine that is busy with others.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// Whether this process is a child that has reported.
static INSIDE: AtomicBool = AtomicBool::new(false);

/// Runs the body of a `#[test]` in a private user, network and mount namespace.
///
/// Call it from the test itself, with a closure: the test binary is started again with
/// `--exact NAME --nocapture --test-threads=1`, NAME being the closure's path, and in that
/// process the closure runs. Its output is passed on, so it shows when the test fails.
///
/// What the body started and left running is killed after it, unless it made a process group of its own.
///
/// # Panics
/// If the child fails, or has not ended after 20 minutes, if no test has the closure's name, or if the sandbox cannot be made: the text then
/// says which step was refused, and which settings to look at.
pub fn private_host<F: FnOnce()>(body: F) {
    if let Some(report) = inherited_report() {
        announce(report);
    }
    if INSIDE.load(Ordering::Relaxed) {
        return body();
    }
    let name = test_name(type_name::<F>());
    match run_child(&name) {
        Ok(child) => judge(&name, &child),
        Err(error) => fail(&describe(&error)),
    }
}

/// How the child ended, and whether it got as far as the body.
struct Child {
    ended: Ended,
    reached: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the child's output is the test's output")]
fn judge(name: &str, child: &Child) {
    // Printed with the macros, so that the test harness captures it like any test's output.
    let Ended { output, overdue } = &child.ended;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if *overdue {
        fail(&format!("the sandboxed test {name} did not end within 20 minutes, and was killed"));
    }
    if !output.status.success() {
        fail(&format!("the sandboxed test {name} failed: {}", output.status));
    }
    if !child.reached {
        fail(&format!("no test is called {name}: private_host must be called by the test itself, with a closure"));
    }
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn fail(text: &str) -> ! {
    panic!("{text}")
}

fn describe(error: &SandboxError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// `binary::module::test::{{closure}}` without the binary and the closure.
fn test_name(closure: &str) -> String {
    let path = closure.split_once("::").map_or(closure, |(_, path)| path);
    path.trim_end_matches("::{{closure}}").to_owned()
}

fn run_child(name: &str) -> Result<Child, SandboxError> {
    let program = env::current_exe().map_err(|source| SandboxError::Proc { path: "/proc/self/exe".into(), source })?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| SandboxError::Pipe(errno.into()))?;
    let mark = format!("{}:{}:{}", writer.as_raw_fd(), network_inode()?, std::process::id());
    let mut command = crate::command(&program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, mark);
    command.stdin(Stdio::null());
    isolate_before_exec(&mut command, Identity::of_caller(), writer);
    let ended = bounded::run(&mut command, LONGEST);
    // The command owns the pipe's writing end; the read below ends only when that is closed.
    drop(command);
    let mut report = Vec::new();
    File::from(reader).read_to_end(&mut report).map_err(SandboxError::Pipe)?;
    match (ended, report.first()) {
        (Ok(ended), first) => Ok(Child { ended, reached: first == Some(&REACHED) }),
        (Err(source), first) => Err(refusal(program, first.copied(), source)),
    }
}

/// The pipe carries the step, the failed spawn its errno.
fn refusal(program: PathBuf, step: Option<u8>, source: io::Error) -> SandboxError {
    match (step.and_then(Step::from_number), source.raw_os_error()) {
        (Some(step), Some(code)) => SandboxError::Refused { step, source: nix::errno::Errno::from_raw(code) },
        _ => SandboxError::Spawn { program, source },
    }
}

fn isolate_before_exec(command: &mut Command, identity: Identity, report: OwnedFd) {
    let parent = Pid::this();
    let enter = move || {
        let result = identity.isolate().and_then(|()| {
            // Whoever is in a group of its own hears nothing of the terminal, where a run of tests is ended.
            set_pdeathsig(Signal::SIGKILL).map_err(|errno| (Step::FollowParent, errno))?;
            if getppid() != parent {
                return Err((Step::FollowParent, nix::errno::Errno::ESRCH));
            }
            let inherit = FcntlArg::F_SETFD(FdFlag::empty());
            fcntl(&report, inherit).map(drop).map_err(|errno| (Step::KeepReport, errno))
        });
        result.map_err(|(step, errno)| {
            // If this write fails too, the errno alone is reported.
            let _ = write(&report, &[step as u8]);
            io::Error::from(errno)
        })
    };
    #[expect(unsafe_code, reason = "a namespace must be entered between fork and exec, while single-threaded")]
    // SAFETY: the closure makes system calls only: it neither allocates, nor locks, nor unwinds, so it is
    // sound in the forked child of a threaded process.
    unsafe {
        command.pre_exec(enter);
    }
}

/// The report pipe, if this process is such a child and has not reported yet. A stale or forged mark counts
/// for nothing: the body must never run in the network namespace that should have been left.
fn inherited_report() -> Option<OwnedFd> {
    if INSIDE.load(Ordering::Relaxed) {
        return None;
    }
    #[expect(clippy::disallowed_methods, reason = "how a child knows that it is one")]
    let mark = env::var(MARK).ok()?;
    let [fd, outer, parent] = mark.split(':').collect::<Vec<_>>().try_into().ok()?;
    if parent != getppid().to_string() || outer == network_inode().ok()?.to_string() {
        return None;
    }
    let fd: i32 = fd.parse().ok().filter(|fd| Path::new(&format!("/proc/self/fd/{fd}")).exists())?;
    #[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
    // SAFETY: the parent opened the descriptor for this process, it is still open (just looked at), and it
    // is taken only once: INSIDE is set right after.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closing the pipe at once keeps it from programs that the body starts.
fn announce(report: OwnedFd) {
    INSIDE.store(true, Ordering::Relaxed);
    if let Err(error) = File::from(report).write_all(&[REACHED]) {
        fail(&format!("cannot report to the test outside: {error}"));
    }
}

fn network_inode() -> Result<u64, SandboxError> {
    let path = Path::new("/proc/thread-self/ns/net");
    fs::metadata(path).map(|meta| meta.ino()).map_err(|source| SandboxError::Proc { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_found_by_its_closure() {
        assert_eq!(test_name("binary::a_test::{{closure}}"), "a_test");
        assert_eq!(test_name("library::tests::a_test::{{closure}}::{{closure}}"), "tests::a_test");
    }
}
