//! Where the leases stand.
//!
//! ```text
//! /run/podwire/ipam/          0700, or ipam.dataDir
//!   lock                      held while the database is open; says by whom
//!   ledger/                   the database
//!   ledger.new/               a database being made
//!   leases/                   a plain copy of every lease; see `copies`
//!   generation                how many changes the database has at least
//!   leases.new/               copies being made
//!   unsettled                 whose copies may not be like the database
//!   ledger.corrupt.TIME/      one that was damaged, with reason.txt; the last three
//!   pending-del/              releases that could not be carried out
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_spec::{Attachment, NetConf, NetworkName, ValidAttachments};

use crate::clock::{self, Moment};
use crate::config::Place;
use crate::record::Record;
use crate::store::{Change, Ended};
use crate::{Error, LeaseId, Released};

mod copies;
mod holder;
mod lock;
mod quarantine;
mod rebuild;
mod session;
mod spool;

pub use holder::{Held, Holder};
pub(crate) use session::{Failure, Session};

/// How long to remember that an unknown attachment was deleted, in milliseconds: longer than any runtime lets an
/// ADD run.
const TOMBSTONE_LIFE: u64 = 10 * 60 * 1000;

/// Where a ledger is and how long to wait for it. Opening it, and closing it again, is every call's own
/// business: nothing is held between calls.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
    lock_timeout: Duration,
}

impl Ledger {
    /// Where ledgers are unless `ipam.dataDir` says otherwise: on a tmpfs, as pods and their addresses do not
    /// survive a reboot.
    pub const DEFAULT_DIR: &'static str = "/run/podwire/ipam";

    /// How long to wait for the ledger unless `ipam.lockTimeoutSeconds` says otherwise. Runtimes give up after
    /// minutes, and then try again.
    pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

    /// The ledger that a network config names. Looks at nothing but `ipam.dataDir` and
    /// `ipam.lockTimeoutSeconds`, so that DEL and GC go on when the pools of the config have become invalid.
    ///
    /// # Errors
    /// Code 7 if one of these keys has the wrong type or value.
    pub fn from_config(config: &NetConf) -> Result<Self, Error> {
        let place = Place::from_net_conf(config)?;
        let ledger = Self::at(place.dir.unwrap_or_else(|| PathBuf::from(Self::DEFAULT_DIR)));
        Ok(ledger.with_lock_timeout(place.lock_timeout.unwrap_or(Self::LOCK_TIMEOUT)))
    }

    /// The ledger in a folder.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), lock_timeout: Self::LOCK_TIMEOUT }
    }

    /// The same ledger, waited for so long.
    #[must_use]
    pub fn with_lock_timeout(self, lock_timeout: Duration) -> Self {
        Self { lock_timeout, ..self }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How long the ledger is waited for.
    #[must_use]
    pub fn lock_timeout(&self) -> Duration {
        self.lock_timeout
    }

    /// Ends the attachment's lease; its addresses cool down. An unknown attachment is no error, and neither
    /// is a ledger that cannot be had: the request is then spooled.
    ///
    /// # Errors
    /// [`Error::Spool`] if not even that was possible.
    pub fn release(&self, attachment: &Attachment) -> Result<Released, Error> {
        let asked = Moment::now()?;
        let ended = self.tend(&format!("DEL {attachment}"), &|session| {
            let Some(record) = session.store.lease(attachment)? else {
                bury(session, attachment)?;
                return Ok(Released::Nothing);
            };
            let addresses = record.ips().collect();
            let ended = vec![Ended { record, released_at: session.now.boottime }];
            session.commit(&Change { ended, ..Change::default() })?;
            Ok(Released::Lease(addresses))
        });
        match ended {
            Ok(released) => Ok(released.unwrap_or(Released::Nothing)),
            Err(error) => self.spool(attachment, None, asked, error),
        }
    }

    /// Ends a lease if it is still this one.
    pub(crate) fn release_lease(
        &self,
        purpose: &str,
        attachment: &Attachment,
        lease_id: &LeaseId,
        cooldown: Cooldown,
    ) -> Result<Released, Error> {
        let ended = self.amend(purpose, &|session| {
            let record = session.store.lease(attachment)?.filter(|record| record.lease_id == *lease_id);
            let Some(record) = record else { return Ok(Released::Nothing) };
            let addresses = record.ips().collect();
            let released_at = match cooldown {
                Cooldown::Full => session.now.boottime,
                Cooldown::None => 0,
            };
            let ended = vec![Ended { record, released_at }];
            session.commit(&Change { ended, ..Change::default() })?;
            Ok(Released::Lease(addresses))
        })?;
        Ok(ended.unwrap_or(Released::Nothing))
    }

    /// Ends every lease of the network whose attachment is not in the list, and tells how many. Leases made
    /// after this call began are kept: the list cannot know them.
    ///
    /// # Errors
    /// 11 if the ledger is busy, 5 if it cannot be written, 103 if it is damaged and cannot be rebuilt.
    pub fn gc(&self, network: &NetworkName, valid: &ValidAttachments) -> Result<usize, Error> {
        let asked = Moment::now()?;
        let ended = self.tend(&format!("GC {network}"), &|session| {
            let mut ended = Vec::new();
            for record in session.store.leases_of(network) {
                let record = record?;
                if !valid.contains(&record.attachment) && record.created_boottime_ms <= asked.boottime {
                    ended.push(Ended { record, released_at: session.now.boottime });
                }
            }
            let change = Change { ended, ..Change::default() };
            session.commit(&change)?;
            Ok(change.ended.len())
        })?;
        Ok(ended.unwrap_or(0))
    }

    /// All leases, in the order of network, container id and interface; none if there is no ledger. Makes no
    /// ledger, mends none, and changes no lease: those of another boot, and those whose release is written down
    /// but not carried out, are left out and stay where they are.
    ///
    /// # Errors
    /// 11 if the ledger is busy, 5 if it cannot be read, 103 if it is damaged.
    pub fn leases(&self, purpose: &str) -> Result<Option<Vec<Record>>, Error> {
        self.look(purpose)
    }

    /// Databases that were damaged and put aside, oldest first.
    ///
    /// # Errors
    /// If the ledger's folder cannot be read.
    pub fn quarantined(&self) -> std::io::Result<Vec<PathBuf>> {
        quarantine::put_aside_before(&self.dir)
    }

    fn database(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// Writes the release down for whoever opens the ledger next.
    pub(crate) fn spool(
        &self,
        attachment: &Attachment,
        lease_id: Option<LeaseId>,
        asked: Moment,
        instead: Error,
    ) -> Result<Released, Error> {
        let pending = spool::Pending::new(attachment, lease_id, asked, &clock::boot_id()?);
        match pending.write(&self.dir) {
            Ok(()) => Ok(Released::Spooled),
            Err(source) => Err(Error::Spool { path: pending.path(&self.dir), source, instead: Box::new(instead) }),
        }
    }
}

/// Whether released addresses rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cooldown {
    /// As long as the network's config says.
    Full,
    /// Not at all: nobody has seen the addresses.
    None,
}

/// Whether the kernel has a link that says it is the attachment's.
pub(crate) use rebuild::has_link;

/// Remembers that an attachment was deleted that is not known. Its ADD may have been given up by the runtime and
/// be waiting for the ledger still: it must not lease what nobody will release.
fn bury(session: &Session<'_>, attachment: &Attachment) -> Result<(), Failure> {
    let now = session.now.boottime;
    let change = Change {
        tombstones: vec![(attachment.clone(), now)],
        levelled: session.store.tombstones_before(now.saturating_sub(TOMBSTONE_LIFE))?,
        ..Change::default()
    };
    session.commit(&change)
}
