//! What a ledger can be asked, and what it answers: plain values, so that the same request is carried out by this
//! process on the database itself, or by the resident owner at the other end of a socket.
//!
//! Plugins and the command line call [`crate::Ledger::ask`] and never the database. `ask` finds out which of the two
//! it is; [`crate::service::carry_out`] is the one place where operations are carried out, in both cases. A new
//! question is a variant here and an arm there. Every change compares before it swaps: it names a lease by a
//! [`LeaseName`], and nothing happens if that lease has ended, or its pod has asked for it again.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::{Attachment, NetworkName};
use serde::{Deserialize, Serialize};

use crate::event::{Cause, EventKind};
use crate::lease::Netns;
use crate::pool::Pool;
use crate::record::{Pod, Record};
use crate::{LeaseId, Namespaces, Released};

/// An operation and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub by: Cause,
    /// When it was asked, in milliseconds of `CLOCK_BOOTTIME`.
    pub asked: u64,
    /// When the asker will have gone away: later, the request counts for nothing. In milliseconds of
    /// `CLOCK_BOOTTIME`.
    pub deadline: u64,
    /// Where the asker lives. A plugin lives where the runtime does, which knows the pods.
    pub from: Namespaces,
    /// What the asker's config says of where history and reservations are.
    pub state_dir: PathBuf,
    pub operation: Operation,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Lease one address from each pool, or repeat the answer to the same wish.
    Lease(Box<Wish>),
    /// End the attachment's lease if its ADD is older than the request; its addresses rest. Remember that it was deleted.
    Release(Attachment),
    /// End a lease if it is still this one. Addresses of it that somebody has whom this ledger does not know are kept for no
    /// pod any longer.
    End {
        name: LeaseName,
        rests: bool,
        #[serde(default)]
        in_use: Vec<IpAddr>,
        why: EventKind,
    },
    /// End leases that are still these, their addresses rest; and begin others as they are given: all of it or none.
    /// None may hold what another holds that stays, nor be held already.
    Replace { end: Vec<LeaseName>, begin: Vec<Record> },
    /// Whether the attachment's lease stands and its addresses are among these.
    Check { attachment: Attachment, ips: Vec<IpAddr> },
    /// End the leases of the network that are older than the request, but for those of these attachments.
    Gc { network: NetworkName, valid: Vec<Attachment> },
    /// Whether a lease could be had from each pool.
    Status(Box<Terms>),
    /// Everything that stands in the ledger.
    Look,
    /// The same, after every value was read and the index compared with the leases. What does not fit is damage, which
    /// is mended if that is wanted, and otherwise told.
    Examine { mend: bool },
}

impl Operation {
    /// Whether it makes a lease, of which nobody would know if the asker has gone away. An end is as welcome late.
    pub fn makes_leases(&self) -> bool {
        matches!(self, Self::Lease(_) | Self::Check { .. } | Self::Replace { .. })
    }
}

/// One lease and no later one of its attachment, nor the same one if a later request was answered with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseName {
    pub attachment: Attachment,
    pub lease_id: LeaseId,
    /// When the latest request began that it answered, as far as is known to who ends it. In milliseconds of
    /// `CLOCK_BOOTTIME`.
    pub began: u64,
}

impl LeaseName {
    /// That of a lease as it was seen.
    pub fn of(seen: &Record) -> Self {
        Self { attachment: seen.attachment.clone(), lease_id: seen.lease_id.clone(), began: seen.began() }
    }

    /// Whether what the attachment has now is still this lease.
    pub fn means(&self, standing: &Record) -> bool {
        standing.lease_id == self.lease_id && standing.is_meant_by_a_release_of(self.began)
    }
}

/// What a lease is made from: the network's part of a [`Wish`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub network: NetworkName,
    /// One address is leased from each.
    pub pools: Vec<Pool>,
    /// How long a released address rests, in milliseconds.
    pub cooldown: u64,
    /// Whether it rests even if there is no other.
    pub strict: bool,
}

/// A request for addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub attachment: Attachment,
    /// The new lease's name, if it comes to one. Made up by the asker: who asks twice, because the first answer did
    /// not arrive, knows by it whether the lease is his.
    pub lease_id: LeaseId,
    pub netns: Netns,
    pub pod: Pod,
    pub terms: Terms,
    /// The address that each pool is asked for; none where any will do.
    pub wanted: Vec<Option<IpAddr>>,
    /// Whether the pod is to get the addresses that it had before, and will get these again.
    pub sticky: bool,
    /// When the request reached its process, in milliseconds of `CLOCK_BOOTTIME`.
    pub began: u64,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// There is no ledger, so there was nothing to do.
    NoLedger,
    Done,
    Leased(Box<Record>),
    Released(Released),
    /// How many leases were ended.
    Collected(usize),
    Contents(Box<Contents>),
}

/// Everything that stands in a ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Contents {
    /// `CLOCK_BOOTTIME` when it was read, in milliseconds: what the other such numbers are to be compared with.
    pub now_boottime_ms: u64,
    /// How many changes of leases there have been.
    pub generation: u64,
    /// In the order of network, container id and interface.
    pub leases: Vec<Record>,
    /// Addresses that were released and not leased since. They cool down until the release is as old as their
    /// pool's `cooldownMs`.
    pub released: Vec<Rest>,
    /// Attachments that were deleted lately.
    pub tombstones: Vec<Tombstone>,
    /// Pools as the latest ADD of their network described them.
    pub pools: Vec<KnownPool>,
}

impl Contents {
    /// Counts the attachment as deleted at a moment of `CLOCK_BOOTTIME`, in milliseconds, if not later.
    pub fn bury(&mut self, attachment: Attachment, deleted_boottime_ms: u64) {
        match self.tombstones.iter_mut().find(|it| it.attachment == attachment) {
            Some(it) => it.deleted_boottime_ms = it.deleted_boottime_ms.max(deleted_boottime_ms),
            None => self.tombstones.push(Tombstone { attachment, deleted_boottime_ms }),
        }
    }
}

/// A released address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rest {
    pub address: IpAddr,
    /// The pool, as its first and last address.
    pub pool: String,
    /// 0 for an address that nobody has seen, and that need not rest.
    pub released_boottime_ms: u64,
}

/// A DEL of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tombstone {
    pub attachment: Attachment,
    pub deleted_boottime_ms: u64,
}

/// A pool as a network's config described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KnownPool {
    pub network: NetworkName,
    /// The name that leases and releases call it by: its first and last address.
    pub name: String,
    #[serde(flatten)]
    pub pool: Pool,
    pub cooldown_ms: u64,
    /// Whether released addresses rest even if there is no other.
    #[serde(default)]
    pub strict: bool,
}
