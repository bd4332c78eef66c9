//! An IPAM plugin that the suite brings itself: it writes down how it was called and answers as a case wants.
//!
//! Main plugins are told to delegate to it. It is this very executable under another name.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::OWN_FOLDER;
use crate::host::shape;
use crate::verdict::{Finding, Verdict};

/// A variable that means nothing to any plugin.
pub const FOREIGN: &str = "CONFORMANCE_FOREIGN";

/// Its `type`.
pub const NAME: &str = "conformance-ipam";

/// How it was called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The CNI_* variables that were set, and as examples of others TRACEPARENT and [`FOREIGN`].
    pub env: BTreeMap<String, String>,
    /// All of stdin.
    pub stdin: String,
}

impl Record {
    /// A variable, empty if it was not set.
    #[must_use]
    pub fn var(&self, key: &str) -> &str {
        self.env.get(key).map_or("", String::as_str)
    }
}

/// What it is to answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Script {
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// The exit code.
    pub code: u8,
}

/// The folder that it is found in.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(OWN_FOLDER).join("bin")
}

/// A folder in which a folder has its name.
///
/// # Errors
/// Trouble if it cannot be made.
pub fn decoy() -> Verdict<PathBuf> {
    let path = place("decoy");
    match fs::create_dir_all(path.join(NAME)) {
        Ok(()) => Ok(path),
        Err(error) => Err(Finding::Trouble(format!("cannot make {}: {error}", path.display()))),
    }
}

fn place(name: &str) -> PathBuf {
    Path::new(OWN_FOLDER).join(name)
}

/// Puts it where plugins find it.
pub(crate) fn install() -> io::Result<()> {
    fs::create_dir_all(folder())?;
    match symlink(std::env::current_exe()?, folder().join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Whether this process was started under its name.
#[must_use]
pub fn is_meant() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name == NAME)
}

/// Its `main`.
#[must_use]
pub fn run() -> ExitCode {
    match answer() {
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::from(99),
    }
}

fn answer() -> io::Result<u8> {
    let mut stdin = String::new();
    io::stdin().read_to_string(&mut stdin)?;
    #[expect(clippy::disallowed_methods, reason = "what it was started with is what it is there to record")]
    let env: BTreeMap<_, _> =
        std::env::vars().filter(|(key, _)| key.starts_with("CNI_") || key == "TRACEPARENT" || key == FOREIGN).collect();
    let command = env.get("CNI_COMMAND").cloned().unwrap_or_default();
    let record = Record { env, stdin };
    let line = serde_json::to_string(&record)? + "\n";
    OpenOptions::new().create(true).append(true).open(place("calls"))?.write_all(line.as_bytes())?;
    let script = match fs::read(place(&format!("answer-{command}"))) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => default_script(&command, &record.stdin),
    };
    io::stderr().write_all(script.stderr.as_bytes())?;
    io::stdout().write_all(script.stdout.as_bytes())?;
    Ok(script.code)
}

fn default_script(command: &str, stdin: &str) -> Script {
    let version = serde_json::from_str::<Value>(stdin).ok().map(|config| shape::text(&config, "cniVersion").to_owned());
    let version = version.filter(|version| !version.is_empty()).unwrap_or_else(|| "0.1.0".to_owned());
    let stdout = match command {
        "ADD" => shape::reshape(&lease(), &version).to_string(),
        "VERSION" => json!({ "cniVersion": version, "supportedVersions": shape::VERSIONS }).to_string(),
        _ => String::new(),
    };
    Script { stdout, ..Script::default() }
}

/// What it gives out unless told otherwise.
#[must_use]
pub fn lease() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "ips": [{ "address": "10.111.0.7/24", "gateway": "10.111.0.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": { "nameservers": ["10.111.0.53"], "domain": "ipam.test", "search": ["a.ipam.test"], "options": ["ndots:3"] },
    })
}

/// Makes it answer `command` so from now on.
///
/// # Errors
/// Trouble if its file cannot be written.
pub fn script(command: &str, script: &Script) -> Verdict {
    let text = serde_json::to_vec(script).map_err(|error| Finding::Trouble(error.to_string()))?;
    let path = place(&format!("answer-{command}"));
    fs::write(&path, text).map_err(|error| Finding::Trouble(format!("cannot write {}: {error}", path.display())))
}

/// How it has been called since the last time this was asked.
///
/// # Errors
/// Trouble if its file is not readable.
pub fn records() -> Verdict<Vec<Record>> {
    let path = place("calls");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    let parsed = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    parsed.map_err(|error| Finding::Trouble(format!("{}: {error}", path.display())))
}
