//! Why a host port does not reach its pod: the way of a packet, step by step, until the first that does not let it
//! through.

mod forwarding;
mod pod;
mod steps;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use nft_model::{Family, Proto};

use crate::error::Error;

pub use self::steps::trace;

/// What somebody asks about: `192.168.50.1:8080/tcp`, `[fd50::1]:53/udp`. Without a protocol it is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The address and port that the packet is sent to.
    pub to: SocketAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
}

impl Question {
    fn family(&self) -> Family {
        Family::of(self.to.ip())
    }
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (to, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Proto::by_name(protocol).ok_or_else(|| format!("{protocol:?} is not tcp, udp or sctp"))?;
        let to: SocketAddr =
            to.parse().map_err(|_| format!("{to:?} is not ADDRESS:PORT, as 192.168.50.1:8080 or [fd50::1]:8080"))?;
        Ok(Self { to: SocketAddr::new(IpAddr::to_canonical(&to.ip()), to.port()), protocol })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.to, self.protocol)
    }
}

/// What was seen at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was looked at, in a word.
    pub name: &'static str,
    /// Whether a packet gets through.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub next: Option<String>,
}

/// Whether a packet gets through a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Ok,
    /// It may not, or it was not always so: worth a look.
    Note,
    /// It does not, and nothing after it was looked at.
    Stop,
}

impl Verdict {
    /// As people and programs read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Stop => "STOP",
        }
    }
}

/// The steps so far; the last one may be a [`Verdict::Stop`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// In the order of the packet's way.
    pub steps: Vec<Step>,
}

impl Trace {
    fn ok(&mut self, name: &'static str, seen: impl Into<String>) {
        self.steps.push(Step { name, verdict: Verdict::Ok, seen: seen.into(), next: None });
    }

    fn note(&mut self, name: &'static str, seen: impl Into<String>, next: impl Into<String>) {
        self.steps.push(Step { name, verdict: Verdict::Note, seen: seen.into(), next: Some(next.into()) });
    }

    fn stop(&mut self, name: &'static str, seen: impl Into<String>, next: impl Into<String>) -> Stopped {
        self.steps.push(Step { name, verdict: Verdict::Stop, seen: seen.into(), next: Some(next.into()) });
        Stopped::Here
    }

    /// Whether a step says that there is more to look at.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        self.steps.iter().any(|step| step.verdict == Verdict::Note)
    }

    /// The step that does not let the packet through.
    #[must_use]
    pub fn stopped(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.verdict == Verdict::Stop)
    }
}

/// Why a trace ends before its end.
#[derive(Debug)]
enum Stopped {
    /// The last step says why.
    Here,
    /// The kernel refused to tell.
    Unknown(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Unknown(error)
    }
}
