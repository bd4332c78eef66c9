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

    /// What the asker means. A question of another version is answered with an error, in the form that answers have in
    /// all versions; what is no question at all, with none.
    pub fn read(line: &[u8]) -> Result<Request, Option<Refused>> {
        /// What questions have in all versions.
        #[derive(Deserialize)]
        struct Stamp {
            version: u32,
        }
        let Stamp { version } = serde_json::from_slice(line).map_err(|_| None)?;
        let question = serde_json::from_slice::<Self>(line).ok().filter(|_| version == VERSION);
        question.map(|question| question.request).ok_or_else(|| Some(Refused::other_version(version)))
    }
}

impl Refused {
    /// Only the owner stays when a new version is installed, so it is the one to restart.
    fn other_version(asked: u32) -> Self {
        let what = if asked == VERSION { "of another release" } else { "in another version" };
        Self {
            code: ErrorCode::TryAgainLater.number(),
            msg: format!(
                "the ledger's owner (ipam serve, podwire {}, version {VERSION} of its protocol) was asked {what} ({asked})",
                env!("CARGO_PKG_VERSION")
            ),
            details: "restart it after an update: systemctl restart podwire-ipam".to_owned(),
        }
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
