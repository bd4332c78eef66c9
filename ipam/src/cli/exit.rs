//! How the command ends.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use cni_spec::ErrorCode;
pub(super) use cni_spec::error::with_causes;

use crate::{Error, StoreError, code};

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Findings = 4,
    Busy = 5,
    Damaged = 6,
    Refused = 7,
    Permission = 8,
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

    /// Nothing fits what was asked for, which is given as on the command line; `see` shows what there is.
    pub fn nothing_fits(what: &str, asked: &[String], place: impl Display, see: &str) -> Self {
        let asked = asked.join(" ");
        Self::new(Exit::NotFound, format!("no {what} fits {asked} in {place}; see what there is with: {see}"))
    }

    /// Whoever reads the output may have read enough: `ipam list | head -1`.
    #[expect(clippy::needless_pass_by_value, reason = "as map_err hands it on")]
    pub fn from_printing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, text: None },
            _ => Self::new(Exit::Failed, format!("cannot print: {error}")),
        }
    }

    /// For `map_err` of what is done to a file.
    pub fn file(action: &str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let text = format!("cannot {action} {}", path.display());
        move |error| match error.kind() {
            io::ErrorKind::PermissionDenied => Self::new(Exit::Permission, format!("{text}: {error}; run it as root")),
            _ => Self::new(Exit::Failed, format!("{text}: {error}")),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Owner(inner) if inner.code == ErrorCode::TryAgainLater => Exit::Busy,
            Error::Owner(inner) if inner.code == code::DAMAGED => Exit::Damaged,
            Error::Owner(inner) if inner.code == code::TAKEN => Exit::Refused,
            Error::Busy { .. } | Error::Store { source: StoreError::Locked, .. } => Exit::Busy,
            Error::Store { source: StoreError::Damaged(_), .. }
            | Error::Quarantine { .. }
            | Error::Rebuild(_)
            | Error::Reservations { .. } => Exit::Damaged,
            Error::Taken { .. } | Error::Changed { .. } | Error::Repeated { .. } => Exit::Refused,
            _ if is_permission(&error) => Exit::Permission,
            _ => Exit::Failed,
        };
        let mut text = with_causes(&error);
        if let Some(step) = error.next_step() {
            text = format!("{text}; {step}");
        }
        match exit {
            Exit::Damaged if matches!(error, Error::Reservations { .. }) => {}
            Exit::Damaged => text.push_str(
                "; the next ADD or DEL puts it aside and makes a new one from its copies and what the kernel says, or do it now with: ipam repair",
            ),
            Exit::Permission => text.push_str("; run it as root"),
            _ => {}
        }
        Self::new(exit, text)
    }
}

fn is_permission(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(next) = cause {
        if next.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = next.source();
    }
    false
}
