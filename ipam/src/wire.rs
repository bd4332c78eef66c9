//! What goes over the resident owner's socket: one line of JSON there, one line of JSON back.

use std::io::{self, BufRead, Write};

use cni_spec::{CniError, ErrorCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::operation::{Answer, Request};

/// The name of the socket in the ledger's folder.
pub(crate) const SOCKET: &str = "ipam.sock";

/// The version of requests and answers, counted up when an older program could misread them.
const VERSION: u32 = 1;

/// A longer line is nobody's request. The largest that is made imports a node's leases.
pub(crate) const LONGEST: u64 = 64 << 20;

/// A request as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    version: u32,
    pub request: Request,
}

/// An answer as it is sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    Answer(Answer),
    Refused(Refused),
}

/// An error, as much of it as a runtime sees.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    code: u32,
    msg: String,
    details: String,
}

impl Question {
    pub fn new(request: Request) -> Self {
        Self { version: VERSION, request }
    }

    /// Whether this program knows what the asker means.
    pub fn is_understood(&self) -> bool {
        self.version == VERSION
    }
}

impl From<CniError> for Refused {
    fn from(CniError { code, msg, details }: CniError) -> Self {
        Self { code: code.number(), msg, details }
    }
}

impl From<Refused> for CniError {
    fn from(Refused { code, msg, details }: Refused) -> Self {
        Self { code: ErrorCode::from_number(code), msg, details }
    }
}

/// Writes a line.
pub(crate) fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a line. The end before the line's end is an error: its writer has died.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
