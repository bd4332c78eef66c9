//! One run of an executable: config in, JSON out.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::DelegateError;
use super::error::bad_output;
use crate::{CniError, Environment, ErrorCode};

/// An executable that is being written cannot be started (ETXTBSY): a plugin's upgrade in place takes a
/// moment. This often it is tried, with [`BUSY_PAUSE`] between.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Runs an executable with exactly this environment and standard input, and returns its standard output.
/// Its standard error is ours (spec section 4).
///
/// # Errors
/// [`DelegateError::Failed`] if it exits with an error object; [`DelegateError::Silent`] if it fails without one.
pub fn exec(program: &Path, environment: &Environment, stdin: &[u8]) -> Result<Vec<u8>, DelegateError> {
    let mut command = command(program, environment);
    let child = spawn(&mut command, || thread::sleep(BUSY_PAUSE))
        .map_err(|source| DelegateError::Spawn { program: program.to_owned(), source })?;
    let output =
        converse(child, stdin).map_err(|source| DelegateError::Pipe { program: program.to_owned(), source })?;
    judge(program, output.status, output.stdout)
}

#[expect(clippy::disallowed_methods, reason = "the one place that runs other plugins")]
fn command(program: &Path, environment: &Environment) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(environment.iter());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

fn spawn(command: &mut Command, mut pause: impl FnMut()) -> io::Result<Child> {
    for _ in 1..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => pause(),
            done => return done,
        }
    }
    command.spawn()
}

/// Writes and reads at the same time, so that neither side waits for the other however much there is.
fn converse(mut child: Child, stdin: &[u8]) -> io::Result<Output> {
    let pipe = child.stdin.take();
    thread::scope(|scope| {
        let feed = move || pipe.map_or(Ok(()), |mut pipe| pipe.write_all(stdin));
        let feeder = thread::Builder::new().spawn_scoped(scope, feed);
        let output = child.wait_with_output()?;
        match feeder?.join() {
            // A plugin need not read its standard input, and may close it early.
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(output),
        }
    })
}

/// Exit status 0 is success whatever was printed; otherwise there should be an error object (spec section 5).
fn judge(program: &Path, status: ExitStatus, stdout: Vec<u8>) -> Result<Vec<u8>, DelegateError> {
    if status.success() {
        return Ok(stdout);
    }
    if stdout.trim_ascii().is_empty() {
        return Err(DelegateError::Silent { program: program.to_owned(), status });
    }
    let object: ErrorObject = serde_json::from_slice(&stdout).map_err(|source| bad_output(program, &stdout, source))?;
    Err(DelegateError::Failed(object.into()))
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl From<ErrorObject> for CniError {
    fn from(object: ErrorObject) -> Self {
        let code = if object.code == 0 { ErrorCode::INTERNAL } else { ErrorCode::from_number(object.code) };
        Self { code, msg: object.msg, details: object.details }
    }
}
