//! The runtimes' programs: found where they were unpacked, or else where the machine has them. What they print goes to
//! files, because daemons that they leave behind would keep a pipe open.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::mounts;

/// How long anything may take before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at that is waited for.
const LOOK_UP: Duration = Duration::from_millis(10);
/// Folders with programs and libraries, below the folder where packages were unpacked.
const BIN: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Where programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    unpacked: Option<PathBuf>,
}

impl Programs {
    /// Those below the folder, if there is one, and those of the machine.
    #[must_use]
    pub fn new(unpacked: Option<PathBuf>) -> Self {
        Self { unpacked }
    }

    /// The program's path.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let folders = self.folders().into_iter().chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from));
        folders.map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// A command that finds its helpers and libraries.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = sandbox::command(self.find(name).unwrap_or_else(|| name.into()));
        // What a developer or a CI has set for a podman or containerd of their own is not for these.
        command.env_clear();
        let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        if let Ok(path) = env::join_paths(self.folders().into_iter().chain(system)) {
            command.env("PATH", path);
        }
        if let Some(libraries) = self.libraries() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.env("TMPDIR", "/opt/tmp").env("HOME", mounts::KEPT).stdin(Stdio::null());
        command
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.unpacked.iter().flat_map(|root| BIN.map(|folder| root.join(folder))).collect()
    }

    /// Debian has one folder for each architecture.
    fn libraries(&self) -> Option<PathBuf> {
        let lib = fs::read_dir(self.unpacked.as_ref()?.join("usr/lib")).ok()?;
        lib.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
    }
}

/// Runs it to its end and returns what it printed on standard output.
///
/// # Errors
/// If it fails, or does not end in time.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let line = line(command);
    let (mut stdout, mut stderr) = (scratch()?, scratch()?);
    let (out, err) = (clone(&stdout)?, clone(&stderr)?);
    let mut child = command.stdout(out).stderr(err).spawn().map_err(start(&line))?;
    let ended = wait_for(&line, || child.try_wait().map_err(start(&line)), || read(&mut stderr).unwrap_or_default());
    let status = ended.inspect_err(|_| end(&mut child))?;
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    if status.success() { Ok(stdout) } else { Err(Error::Failed { command: line, status, output: stdout + &stderr }) }
}

/// Waits until there is something, with a deadline; `log` is asked when it has passed.
///
/// # Errors
/// What `look` fails with, or that it is late.
pub fn wait_for<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
    log: impl FnOnce() -> String,
) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::Late { what: what.to_owned(), waited: PATIENCE, log: log() });
        }
        thread::sleep(LOOK_UP);
    }
}

/// Kills it and waits for its end.
pub fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// As it would be typed.
#[must_use]
pub fn line(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// For `map_err` of a program that does not start.
pub fn start(line: &str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Start { program: line.to_owned(), source }
}

fn scratch() -> Result<File, Error> {
    tempfile::tempfile_in(mounts::KEPT).map_err(Error::file("write in", mounts::KEPT))
}

fn clone(file: &File) -> Result<File, Error> {
    file.try_clone().map_err(Error::file("write in", mounts::KEPT))
}

fn read(file: &mut File) -> Result<String, Error> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(Error::file("read in", mounts::KEPT))?;
    Ok(text)
}
