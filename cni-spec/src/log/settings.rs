//! Where a plugin logs, and how much.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;
use tracing_subscriber::filter::LevelFilter;

use crate::{CniError, Environment, ErrorCode};

/// From the config's `logFile` and `logLevel`, or where a key is missing from `CNI_LOG_FILE` and `CNI_LOG_LEVEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A file, or the journal where none is named.
    pub target: Target,
    /// If it is not said: `info` for a file, which somebody asked for, and `error` for the journal.
    pub level: Level,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Lines of JSON at the end of this file.
    File(PathBuf),
    /// journald(8), where there is one.
    Journal,
}

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing.
    Off,
    /// Calls that failed.
    Error,
    /// All calls.
    Info,
    /// All calls and their steps.
    Debug,
}

impl Level {
    pub(super) fn filter(self) -> Option<LevelFilter> {
        match self {
            Self::Off => None,
            Self::Error => Some(LevelFilter::ERROR),
            Self::Info => Some(LevelFilter::INFO),
            Self::Debug => Some(LevelFilter::DEBUG),
        }
    }
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// Code 7 or 4 with the key or variable, its value and what is wrong.
    pub fn of(environment: &Environment, config: &Value) -> Result<Self, CniError> {
        let file = said("logFile", "CNI_LOG_FILE", environment, config)?;
        let target = match file {
            Some(file) if file.value.starts_with('/') => Target::File(PathBuf::from(file.value)),
            Some(file) => return Err(file.refuse("is not an absolute path")),
            None => Target::Journal,
        };
        let level = match said("logLevel", "CNI_LOG_LEVEL", environment, config)? {
            Some(level) => match level.value.as_str() {
                "off" => Level::Off,
                "error" => Level::Error,
                "info" => Level::Info,
                "debug" => Level::Debug,
                _ => return Err(level.refuse("must be \"off\", \"error\", \"info\" or \"debug\"")),
            },
            None if target == Target::Journal => Level::Error,
            None => Level::Info,
        };
        Ok(Self { target, level })
    }
}

/// Failures, to the journal.
impl Default for Settings {
    fn default() -> Self {
        Self { target: Target::Journal, level: Level::Error }
    }
}

/// A value with the place it stands in.
struct Said {
    place: &'static str,
    code: ErrorCode,
    value: String,
}

impl Said {
    fn refuse(&self, why: &str) -> CniError {
        let what = if self.code == ErrorCode::InvalidConfig { "network config" } else { "environment" };
        CniError::new(self.code, format!("invalid {what}: {}={:?}: {why}", self.place, self.value))
    }
}

/// The config wins over the environment; empty and null are as good as missing.
fn said(
    key: &'static str,
    variable: &'static str,
    environment: &Environment,
    config: &Value,
) -> Result<Option<Said>, CniError> {
    let (code, place) = (ErrorCode::InvalidConfig, key);
    match config.get(key) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => return Ok(Some(Said { place, code, value: text.clone() })),
        Some(other) => return Err(Said { place, code, value: other.to_string() }.refuse("is not a string")),
    }
    let value = environment.get(variable).map(|value| value.to_string_lossy().into_owned());
    Ok(value.map(|value| Said { place: variable, code: ErrorCode::InvalidEnvironment, value }))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Journal => f.write_str("the journal"),
        }
    }
}
