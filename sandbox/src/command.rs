//! Programs for tests and demos.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// A command that is looked for on `PATH` and, as ordinary users' `PATH` often lacks them, in `/usr/sbin`
/// and `/sbin`. The program gets the longer `PATH` too.
///
/// The one place where tests, the demo and the developer's commands may build a [`Command`].
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place for tests and demos; PATH is what programs are found by")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/sbin:/sbin");
    let mut command = Command::new(program);
    // The standard library searches the child's PATH once it has been set here.
    command.env("PATH", path);
    command
}
