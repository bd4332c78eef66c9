//! Running a program to its end, or to its deadline.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::RwLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::verdict::{Finding, Verdict};

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// From start to exit.
    pub took: Duration,
    /// Whether something still held stdout or stderr open when the program had ended. A runtime waits for both.
    pub held_open: bool,
}

impl Finished {
    /// Exit code, or how else it ended.
    #[must_use]
    pub fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        }
    }
}

/// Held for reading while a program of ours runs. Whoever reaps strangers' children holds it for writing, or it would take
/// the exit status of a program that another thread waits for.
pub static RUNNING: RwLock<()> = RwLock::new(());

/// How long a stream may stay open after its program has ended.
const STREAM_GRACE: Duration = Duration::from_secs(2);

/// Runs the program with this input. It becomes the leader of a process group, which is killed at the deadline.
///
/// # Errors
/// Trouble if it cannot be started; failed if it has not ended by the deadline.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Verdict<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let _running = RUNNING.read();
    let start = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| Finding::Trouble(format!("cannot start {name}: {error}")))?;
    feed(&mut child, input.to_vec());
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let Some(status) = wait(&mut child, start + limit) else {
        kill_group(&child);
        let _ = child.wait();
        return Err(Finding::Failed(format!("{name} had not ended after {} s", limit.as_secs())));
    };
    let took = start.elapsed();
    let mut held_open = false;
    let mut take = |stream: &Receiver<Vec<u8>>| match stream.recv_timeout(STREAM_GRACE) {
        Ok(bytes) => bytes,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            held_open = true;
            Vec::new()
        }
    };
    let (stdout, stderr) = (take(&stdout), take(&stderr));
    Ok(Finished { status, stdout, stderr, took, held_open })
}

/// Writes on a thread: a program that does not read must not block the suite.
fn feed(child: &mut Child, input: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading closes the pipe; that is its right.
        thread::spawn(move || stdin.write_all(&input));
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    if let Some(mut stream) = stream {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    receiver
}

fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(5));
    }
}

fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended by itself meanwhile.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Runs one of the system's own tools and returns its stdout.
///
/// # Errors
/// Trouble if it cannot be started or fails.
pub fn tool(program: &str, args: &[&str]) -> Verdict<Vec<u8>> {
    tool_with_input(program, args, b"")
}

/// The same, with input.
///
/// # Errors
/// Trouble if it cannot be started or fails.
pub fn tool_with_input(program: &str, args: &[&str], input: &[u8]) -> Verdict<Vec<u8>> {
    let mut command = sandbox::command(program);
    command.args(args);
    let finished = run(&mut command, input, Duration::from_secs(60))?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    let text = String::from_utf8_lossy(&finished.stderr);
    Err(Finding::Trouble(format!("{program} {}: {}: {}", args.join(" "), finished.ending(), text.trim())))
}
