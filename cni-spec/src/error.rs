//! The error object and its codes (spec section 5, "Error").

use std::error::Error;
use std::fmt;

use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

use crate::json::{Malformed, shown};

/// The codes of the spec's error table, and the range it leaves to plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 1: the config asks for a spec version, or a verb, that this version does not have.
    IncompatibleVersion,
    /// 2: a config field is not supported; the message names key and value.
    UnsupportedField,
    /// 3: the container is unknown; the runtime need not send DEL.
    UnknownContainer,
    /// 4: environment variables are missing or invalid; the message names them.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: what was read is not the JSON it should be.
    Decode,
    /// 7: the network config is invalid.
    InvalidConfig,
    /// 11: a passing condition; the runtime should try again.
    TryAgainLater,
    /// 50: STATUS only: ADD cannot be served.
    NotAvailable,
    /// 51: STATUS only: as 50, and running containers may have limited connectivity.
    LimitedConnectivity,
    /// 100 and above: the plugin's own. Lower numbers are reserved by the spec.
    Plugin(u32),
}

impl ErrorCode {
    /// What no other code fits, such as a panic. The number is the reference implementation's.
    pub const INTERNAL: Self = Self::Plugin(999);

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Plugin(number) => number,
        }
    }

    /// The code for a number read from another plugin; every unknown number is [`ErrorCode::Plugin`].
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::IncompatibleVersion,
            2 => Self::UnsupportedField,
            3 => Self::UnknownContainer,
            4 => Self::InvalidEnvironment,
            5 => Self::Io,
            6 => Self::Decode,
            7 => Self::InvalidConfig,
            11 => Self::TryAgainLater,
            50 => Self::NotAvailable,
            51 => Self::LimitedConnectivity,
            other => Self::Plugin(other),
        }
    }
}

/// What a plugin prints when it fails: `{cniVersion, code, msg, details}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// Why, as a number.
    pub code: ErrorCode,
    /// One line for people: what failed, with key and value where there is one.
    pub msg: String,
    /// The causes and the next step; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// `msg` from the error itself, `details` from its chain of sources, outermost first.
    #[must_use]
    pub fn from_source(code: ErrorCode, error: &dyn Error) -> Self {
        Self { code, msg: error.to_string(), details: causes(error).join(": ") }
    }

    /// One error for several independent failures of a DEL or GC: the first one's code, every message.
    #[must_use]
    pub fn several(errors: &[Self]) -> Self {
        let code = errors.first().map_or(ErrorCode::Io, |first| first.code);
        let msg = format!("{} steps failed, the rest was done", errors.len());
        Self::new(code, msg).with_details(one_line_each(errors))
    }

    /// The same failure, of an ADD that could not be taken back whole.
    #[must_use]
    pub fn with_failed_undo(self, undo: &[Self]) -> Self {
        let msg = format!("{}; undoing it failed too, so something is left until DEL or GC", self.msg);
        let details = format!("{}; not undone: {}", self.details, one_line_each(undo));
        Self::new(self.code, msg).with_details(details.trim_start_matches("; "))
    }

    /// Message and details on one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        if self.details.is_empty() { self.msg.clone() } else { format!("{}: {}", self.msg, self.details) }
    }

    /// The JSON document for standard output. `cni_version` is the config's, as far as it could be read.
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> Value {
        let mut object = json!({ "cniVersion": cni_version, "code": self.code.number(), "msg": self.msg });
        if !self.details.is_empty() {
            object["details"] = Value::from(self.details.clone());
        }
        object
    }
}

/// An error with everything that led to it, on one line, as commands print it.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    [vec![error.to_string()], causes(error)].concat().join(": ")
}

/// Outermost first.
fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| (*error).source()).map(ToString::to_string).collect()
}

fn one_line_each(errors: &[CniError]) -> String {
    errors.iter().map(CniError::one_line).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code.number())?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl Error for CniError {}

/// Code 7 for a key of the config that could not be deserialized: names its path, its value and the reason.
pub(crate) fn invalid_key(json: &Value, path: &Path, reason: &dyn fmt::Display) -> CniError {
    let value = path.iter().try_fold(json, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { variant } => value.get(variant),
        Segment::Unknown => None,
    });
    // The value of the path's end is the culprit; the whole config is not, when one of its keys is missing.
    let place = match value {
        Some(value) if path.iter().next().is_some() => format!("{path}={}: ", shown(value)),
        Some(_) => String::new(),
        None => format!("{path}: "),
    };
    CniError::new(ErrorCode::InvalidConfig, format!("invalid network config: {place}{reason}"))
}

/// Code 7 for a malformed value of the config.
pub(crate) fn malformed_config(malformed: &Malformed) -> CniError {
    CniError::new(ErrorCode::InvalidConfig, format!("invalid network config: {malformed}"))
}
