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

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn judged(status: ExitStatus, stdout: &str) -> Result<Vec<u8>, DelegateError> {
        judge(Path::new("/p"), status, stdout.as_bytes().to_vec())
    }

    #[test]
    fn success_passes_the_output_on_unread() {
        assert_eq!(judged(exited(0), "no { JSON").expect("an output"), b"no { JSON");
        assert_eq!(judged(exited(0), "").expect("an output"), b"");
    }

    #[test]
    fn an_error_object_keeps_code_message_and_details() {
        let error = |code, details: &str| CniError::new(code, "m").with_details(details);
        for (stdout, expected) in [
            (r#"{"cniVersion":"1.0.0","code":11,"msg":"m","details":"d"}"#, error(ErrorCode::TryAgainLater, "d")),
            (r#"{"code":100,"msg":"m"}"#, error(ErrorCode::Plugin(100), "")),
            (r#"{"code":8,"msg":"m","more":1}"#, error(ErrorCode::Plugin(8), "")),
            (r#"{"msg":"m"}"#, error(ErrorCode::INTERNAL, "")),
        ] {
            let Err(DelegateError::Failed(error)) = judged(exited(1), stdout) else { panic!("{stdout}") };
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn a_failure_without_a_document_tells_how_it_ended() {
        for (status, expected) in [
            (exited(3), "/p failed (exit status: 3) and printed no error"),
            (ExitStatus::from_raw(9), "/p failed (signal: 9 (SIGKILL)) and printed no error"),
        ] {
            let error = judged(status, " \n").expect_err("a failure");
            assert_eq!(error.to_string(), expected);
            assert_eq!(CniError::from(error).code, ErrorCode::INTERNAL);
        }
    }

    #[test]
    fn a_failure_with_something_else_shows_it() {
        for stdout in ["oops", r#"{"code":1,"msg":"a"}{"code":2,"msg":"b"}"#, r#"{"cniVersion":"1.0.0"}"#, "[]"] {
            let error = judged(exited(1), stdout).expect_err("a failure");
            assert_eq!(error.to_string(), format!("/p printed no valid JSON: {stdout:?}"));
            assert_eq!(CniError::from(error).code, ErrorCode::Decode);
        }
        let error = judged(exited(1), &"ä".repeat(1000)).expect_err("a failure");
        assert_eq!(error.to_string(), format!("/p printed no valid JSON: {:?}", "ä".repeat(200)));
    }

    #[test]
    fn an_executable_that_is_being_written_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("busy");
        fs::copy("/bin/true", &program).expect("a copy");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("permissions");
        let mut writer = Some(File::options().append(true).open(&program).expect("a writer"));
        let mut pauses = 0;
        let mut command = command(&program, &Environment::default());
        let child = spawn(&mut command, || {
            pauses += 1;
            if pauses == 3 {
                writer = None;
            } else if pauses > 3 {
                // Another test's child may hold a copy of the descriptor for a moment, until it executes.
                thread::sleep(BUSY_PAUSE);
            }
        });
        assert!(child.expect("a child").wait().expect("a status").success());
        assert!(pauses >= 3, "{pauses}");
    }

    #[test]
    fn an_executable_that_stays_busy_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("busy");
        fs::copy("/bin/true", &program).expect("a copy");
        let _writer = File::options().append(true).open(&program).expect("a writer");
        let mut pauses = 0;
        let error = spawn(&mut command(&program, &Environment::default()), || pauses += 1).expect_err("busy");
        assert_eq!((error.kind(), pauses), (io::ErrorKind::ExecutableFileBusy, BUSY_TRIES - 1));
    }
}
