//! How the command ends.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use crate::{Error, StoreError};

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Busy = 5,
    Damaged = 6,
    Refused = 7,
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

impl Stop {
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: Some(text.into()) }
    }

    /// Whoever reads the output may have read enough: `ipam list | head -1`.
    #[expect(clippy::needless_pass_by_value, reason = "as map_err hands it on")]
    pub fn from_printing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, text: None },
            _ => Self::new(Exit::Failed, format!("cannot print: {error}")),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Busy { .. } | Error::Store { source: StoreError::Locked, .. } => Exit::Busy,
            Error::Store { source: StoreError::Damaged(_), .. } | Error::Quarantine { .. } | Error::Rebuild(_) => {
                Exit::Damaged
            }
            _ => Exit::Failed,
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        if exit == Exit::Damaged {
            text.push_str(
                "; the next ADD or DEL puts it aside and makes a new one from its copies and what the kernel says",
            );
        }
        Self::new(exit, text)
    }
}
