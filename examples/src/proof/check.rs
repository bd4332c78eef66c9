//! One question: who asks whom, what must come back, and what that stands on.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::need::Need;
use crate::exchange::Reply;
use crate::manifest::Protocol;
use crate::stage::Machine;

/// A question that is ready to be asked.
#[derive(Debug, Clone)]
pub struct Check<'a> {
    /// Stable name, for tests and scripts.
    pub id: String,
    /// Who asks.
    pub from: &'a Machine,
    /// The asker's address, for people; the kernel chooses the real one.
    pub from_address: IpAddr,
    /// How.
    pub protocol: Protocol,
    /// Whom.
    pub to: Spot<'a>,
    /// What must come back.
    pub expected: Expected,
    /// What it stands on; a refusal stands on nothing.
    pub needs: Vec<Need>,
}

/// An address with its owner's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot<'a> {
    /// Whose.
    pub name: &'a str,
    /// Where.
    pub address: SocketAddr,
}

/// What must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// An answer of `name` who saw one of `peers`; none means that any address will do.
    Answer {
        /// Who must answer.
        name: String,
        /// Whom it must have seen.
        peers: Vec<IpAddr>,
    },
    /// A refusal.
    Refused,
    /// An ICMP "unreachable" from this router.
    Unreachable(IpAddr),
}

impl Expected {
    /// Whether this is what came back.
    #[must_use]
    pub fn is(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Answer { name, peers }, Reply::Answer(answer)) => {
                answer.name == *name && (peers.is_empty() || peers.contains(&answer.peer.ip()))
            }
            (Self::Refused, Reply::Refused) => true,
            (Self::Unreachable(router), Reply::Unreachable { by }) => *by == Some(*router),
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { name, peers } if peers.is_empty() => write!(f, "an answer of {name}"),
            Self::Answer { name, peers } => {
                let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
                write!(f, "an answer of {name}, having seen {}", peers.join(" or "))
            }
            Self::Refused => f.write_str("a refusal"),
            Self::Unreachable(router) => write!(f, "unreachable, said by {router}"),
        }
    }
}

impl<'a> Check<'a> {
    /// `name` answers, whoever it saw.
    #[must_use]
    pub fn answered_by(self, name: &str) -> Self {
        Self { expected: Expected::Answer { name: name.to_owned(), peers: Vec::new() }, ..self }
    }

    /// `name` answers and saw one of `peers`.
    #[must_use]
    pub fn seen_by(self, name: &str, peers: Vec<IpAddr>) -> Self {
        Self { expected: Expected::Answer { name: name.to_owned(), peers }, ..self }
    }

    /// This router says that it knows no way.
    #[must_use]
    pub fn unreachable_by(self, router: IpAddr) -> Self {
        Self { expected: Expected::Unreachable(router), ..self }
    }

    /// What it stands on.
    #[must_use]
    pub fn needing(self, needs: impl IntoIterator<Item = Need>) -> Self {
        Self { needs: needs.into_iter().collect(), ..self }
    }

    /// Asked from another address than the asker's first.
    #[must_use]
    pub fn from_address(self, from_address: IpAddr) -> Self {
        Self { from_address, ..self }
    }

    /// Asked over another protocol than TCP.
    #[must_use]
    pub fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }
}
