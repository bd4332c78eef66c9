//! How the command ends.

use std::io;
use std::process::ExitCode;

use cni_spec::error::with_causes;

use crate::error::Error;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Stopped = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end before the end, and what to say about it.
#[derive(Debug)]
pub(super) struct Stop {
    pub exit: Exit,
    pub text: Option<String>,
}

/// Of printing: whoever reads the output may have read enough, as `head -1` has.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, text: None },
            _ => Self { exit: Exit::Failed, text: Some(format!("cannot print: {error}")) },
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self { exit: Exit::Failed, text: Some(with_causes(&error)) }
    }
}
