//! What happened to leases, as it is told to the [history](crate::history).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::{Origin, Record};

/// A lease that began or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When the change was made.
    pub at: Timestamp,
    pub event: EventKind,
    pub lease: Record,
    pub by: Cause,
}

/// What happened to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EventKind {
    /// Begun: an ADD was answered.
    Leased,
    /// Begun: the ledger was lost, and the kernel showed that the addresses are in use.
    Recovered,
    /// Begun: taken over from another ledger, or put in by a person.
    Imported,
    /// Ended: by DEL, or by a person.
    Released,
    /// Ended: the ADD that made it failed after all.
    Undone,
    /// Ended: the attachment got a new lease, for a new namespace or from other pools.
    Replaced,
    /// Ended: GC did not name its attachment.
    Collected,
    /// Ended: its pod was provably gone, and the addresses were needed; or the link it was read off is gone.
    Reclaimed,
    /// Ended: the machine was booted.
    Voided,
}

impl EventKind {
    pub(crate) fn of_begun(record: &Record) -> Self {
        match record.origin {
            Origin::Add => Self::Leased,
            Origin::Recovered => Self::Recovered,
            Origin::Imported => Self::Imported,
        }
    }

    /// Whether a lease begins with it.
    pub(crate) fn begins(self) -> bool {
        matches!(self, Self::Leased | Self::Recovered | Self::Imported)
    }
}

/// Who asked for a change, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// `ADD NETWORK CONTAINERID IFNAME`, `ipam release`.
    pub purpose: String,
    /// The process that asked.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Why, in a person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Cause {
    /// This process, and no reason.
    pub(crate) fn of_this_process(purpose: impl Into<String>) -> Self {
        let (pid, uid) = (std::process::id(), nix::unistd::geteuid().as_raw());
        Self { purpose: purpose.into(), pid, uid, reason: None }
    }
}
