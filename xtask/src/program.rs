//! Running programs, shown as they would be typed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// A command in the workspace's root folder. Never a shell.
#[expect(clippy::disallowed_methods, reason = "the one place of xtask that runs programs")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    // An ordinary user's PATH may lack the folders of iptables(8), which the reference plugins look for.
    if let Ok(path) = std::env::join_paths(folders()) {
        command.env("PATH", path);
    }
    command
}

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Runs it to its end, its output shown.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: line(command), status }) }
}

/// Runs it to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|source| start_error(command, source))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Failed { command: line(command), status: output.status })
    }
}

/// Whether the program can be started at all.
pub fn exists(name: &str) -> bool {
    folders().iter().any(|folder| folder.join(name).is_file())
}

/// Where programs are looked for.
fn folders() -> Vec<PathBuf> {
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(env_path().as_os_str()).chain(system).collect()
}

/// As it would be typed.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "where programs are looked for")]
fn env_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}
