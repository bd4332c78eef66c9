//! Where the leases stand.
//!
//! ```text
//! /run/podwire/ipam/          0700, or ipam.dataDir
//!   ipam.sock                 where the resident owner listens, if there is one
//!   lock                      held while the database is open; says by whom
//!   ledger/                   the database
//!   ledger.new/               a database being made
//!   leases/                   a plain copy of every lease; see `copies`
//!   ballast                   space for releases on a full file system
//!   generation                how many changes the database has at least
//!   leases.new/               copies being made
//!   unsettled                 whose copies may not be like the database
//!   ledger.corrupt.TIME/      one that was damaged, with reason.txt; the last three
//!   pending-del/              releases that could not be carried out
//! /run/podwire/pending-del/HASH/    the same, where nothing can be written beside the ledger; by the ledger's path
//! ```

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cni_spec::{Attachment, NetConf, NetworkName, ValidAttachments};

use crate::clock::{self, Moment};
use crate::config::Place;
use crate::event::{Cause, EventKind};
use crate::operation::{Answer, Contents, LeaseName, Operation, Request};
use crate::record::Record;
use crate::wire::Reply;
use crate::{Error, LeaseId, Namespaces, Released};

mod ballast;
mod client;
mod copies;
mod holder;
mod lock;
mod peek;
mod quarantine;
mod rebuild;
mod resident;
mod session;
mod spool;

use client::Asked;
pub(crate) use client::{is_listened_at, socket_in};
pub use holder::{Held, Holder};
use lock::Lock;
pub(crate) use resident::Resident;
pub(crate) use session::{Failure, Session, make_folder};
use session::{Manner, Slot};

/// How often somebody may hang up at that socket before it is left alone, and only the lock waited for. Each time, a
/// thread of this process goes on waiting for the lock.
const HANG_UPS: u32 = 3;

/// Where a ledger is and how long to wait for it. Opening it, and closing it again, is every call's own
/// business: nothing is held between calls.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
    state_dir: PathBuf,
    lock_timeout: Duration,
}

impl Ledger {
    /// Where ledgers are unless `ipam.dataDir` says otherwise: on a tmpfs, as pods and their addresses do not
    /// survive a reboot.
    pub const DEFAULT_DIR: &'static str = "/run/podwire/ipam";

    /// Where that is which outlives a boot - history, reservations - beside the ledger in
    /// [`Ledger::DEFAULT_DIR`]. Beside one that is elsewhere, it is in the ledger's own folder.
    pub const DEFAULT_STATE_DIR: &'static str = "/var/lib/podwire";

    /// How long to wait for the ledger unless `ipam.lockTimeoutSeconds` says otherwise. Runtimes give up after
    /// minutes, and then try again.
    pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

    /// The ledger that a network config names. Looks at nothing but `ipam.dataDir`, `ipam.stateDir` and
    /// `ipam.lockTimeoutSeconds`, so that DEL and GC go on when the pools of the config have become invalid.
    ///
    /// # Errors
    /// Code 7 if one of these keys has the wrong type or value.
    pub fn from_config(config: &NetConf) -> Result<Self, Error> {
        Place::from_net_conf(config).map(Self::of_place)
    }

    /// The same for DEL, which must not fail for a key that it can do without: an invalid `ipam.stateDir` or
    /// `ipam.lockTimeoutSeconds` counts as not given.
    ///
    /// # Errors
    /// Code 7 if `ipam.dataDir` has the wrong type or value.
    pub fn for_release(config: &NetConf) -> Result<Self, Error> {
        Place::of_release(config).map(Self::of_place)
    }

    fn of_place(place: Place) -> Self {
        let ledger = Self::at(place.dir.unwrap_or_else(|| PathBuf::from(Self::DEFAULT_DIR)));
        let ledger = ledger.with_lock_timeout(place.lock_timeout.unwrap_or(Self::LOCK_TIMEOUT));
        match place.state_dir {
            Some(state_dir) => ledger.with_state_dir(state_dir),
            None => ledger,
        }
    }

    /// The ledger in a folder.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let is_default = dir == Path::new(Self::DEFAULT_DIR);
        let state_dir = if is_default { PathBuf::from(Self::DEFAULT_STATE_DIR) } else { dir.clone() };
        Self { dir, state_dir, lock_timeout: Self::LOCK_TIMEOUT }
    }

    /// The same ledger, whose history and reservations are in this folder.
    #[must_use]
    pub fn with_state_dir(self, state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), ..self }
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

    /// Where history and reservations are.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// How long the ledger is waited for.
    #[must_use]
    pub fn lock_timeout(&self) -> Duration {
        self.lock_timeout
    }

    /// Whether a resident owner answers for the ledger.
    pub(crate) fn has_owner(&self) -> bool {
        client::is_there(&self.dir)
    }

    /// Makes the folder of a ledger that is to be filled before any plugin has made it.
    pub(crate) fn make_dir(&self) -> Result<(), Error> {
        make_folder(&self.dir).map_err(|source| Error::Folder { path: self.dir.clone(), source })
    }

    /// Asks the ledger: its resident owner if there is one, else under its lock on a database that is opened for this
    /// one question.
    ///
    /// # Errors
    /// Those of the operation; 11 if the ledger is busy, 5 if it cannot be read or written, 103 if it is damaged.
    pub(crate) fn ask(&self, by: Cause, operation: Operation) -> Result<Answer, Error> {
        let asked = Moment::now()?.boottime;
        self.ask_at(asked, by, operation)
    }

    /// A question of this process: when it is asked, and until when it waits for the answer, in milliseconds of
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn request(&self, by: Cause, when: (u64, u64), operation: Operation) -> Result<Request, Error> {
        let ((asked, deadline), state_dir) = (when, self.state_dir.clone());
        Ok(Request { by, asked, deadline, from: Namespaces::of_this_thread()?, state_dir, operation })
    }

    fn ask_at(&self, asked: u64, by: Cause, operation: Operation) -> Result<Answer, Error> {
        let wait = u64::try_from(self.lock_timeout.as_millis()).unwrap_or(u64::MAX);
        let request = self.request(by, (asked, asked.saturating_add(wait)), operation)?;
        let manner = request.operation.manner();
        if manner == Manner::Serve {
            make_folder(&self.dir).map_err(|source| Error::Folder { path: self.dir.clone(), source })?;
        } else if !self.is_there()? {
            if let Operation::Status(_) = request.operation {
                self.may_be_made()?;
            }
            return Ok(Answer::NoLedger);
        }
        let deadline = Instant::now() + self.lock_timeout;
        let mut hung_up = 0;
        let _lock = loop {
            let asked = if hung_up < HANG_UPS { client::ask(&self.dir, &request, deadline) } else { Asked::Nobody };
            match asked {
                Asked::Reply(Reply::Answer(answer)) => return Ok(answer),
                Asked::Reply(Reply::Refused(refused)) => return Err(Error::Owner(refused.into())),
                Asked::Silent => return Err(lock::busy(&self.lock_file(), self.lock_timeout)),
                Asked::Strange => return Err(Error::Answer),
                Asked::HungUp => hung_up += 1,
                Asked::Nobody => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let owner_came = || hung_up < HANG_UPS && client::is_there(&self.dir);
            let purpose = &request.by.purpose;
            if let Some(lock) = Lock::acquire(&self.lock_file(), purpose, left, owner_came)? {
                break lock;
            }
        };
        match manner {
            Manner::Look => self.look(&request),
            Manner::Serve | Manner::Tend | Manner::Amend => self.visit(&mut Slot::Once, &request),
        }
    }

    /// Whether there is a folder for a ledger. One that cannot be looked at may have one.
    fn is_there(&self) -> Result<bool, Error> {
        match std::fs::metadata(&self.dir) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(source) => Err(Error::Folder { path: self.dir.clone(), source }),
        }
    }

    /// Whether an ADD could make the folder that is not there, as far as that shows without trying.
    fn may_be_made(&self) -> Result<(), Error> {
        let there = self.dir.ancestors().find_map(|path| std::fs::metadata(path).ok());
        if there.is_none_or(|found| found.is_dir()) {
            return Ok(());
        }
        Err(Error::Folder { path: self.dir.clone(), source: ErrorKind::NotADirectory.into() })
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Ends the attachment's lease; its addresses cool down. An unknown attachment is no error, and neither
    /// is a ledger that cannot be had: the request is then spooled.
    ///
    /// # Errors
    /// [`Error::Spool`] if not even that was possible.
    pub fn release(&self, attachment: &Attachment) -> Result<Released, Error> {
        let asked = Moment::now()?;
        let by = Cause::of_this_process(format!("DEL {attachment}"));
        match self.ask_at(asked.boottime, by, Operation::Release(attachment.clone())) {
            Ok(Answer::Released(released)) => Ok(released),
            Ok(_) => Ok(Released::Nothing),
            Err(error) => self.spool(attachment, None, asked, error),
        }
    }

    /// Ends a lease if it is still this one, and nobody has asked for it again.
    pub(crate) fn end(&self, by: Cause, lease: &Ending<'_>) -> Result<Released, Error> {
        let (attachment, lease_id) = (lease.attachment.clone(), lease.lease_id.clone());
        let name = LeaseName { attachment, lease_id, began: lease.began };
        let Ending { rests, in_use, why, .. } = *lease;
        match self.ask(by, Operation::End { name, rests, in_use: in_use.to_vec(), why })? {
            Answer::Released(released) => Ok(released),
            _ => Ok(Released::Nothing),
        }
    }

    /// Ends every lease of the network whose attachment is not in the list, and tells how many. Leases made
    /// after this call began are kept: the list cannot know them.
    ///
    /// # Errors
    /// 11 if the ledger is busy, 5 if it cannot be written, 103 if it is damaged and cannot be rebuilt.
    pub fn gc(&self, network: &NetworkName, valid: &ValidAttachments) -> Result<usize, Error> {
        let named = |valid: &cni_spec::ValidAttachment| Attachment {
            network: network.clone(),
            container_id: valid.container_id.clone(),
            ifname: valid.ifname.clone(),
        };
        let valid = valid.0.iter().map(named).collect();
        let operation = Operation::Gc { network: network.clone(), valid };
        match self.ask(Cause::of_this_process(format!("GC {network}")), operation)? {
            Answer::Collected(count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// All leases, in the order of network, container id and interface; none if there is no ledger. Makes no
    /// ledger, mends none, and changes no lease: those of another boot, and those whose release is written down
    /// but not carried out, are left out and stay where they are.
    ///
    /// # Errors
    /// 11 if the ledger is busy, 5 if it cannot be read, 103 if it is damaged.
    pub fn leases(&self, purpose: &str) -> Result<Option<Vec<Record>>, Error> {
        Ok(self.contents(purpose)?.map(|contents| contents.leases))
    }

    /// Everything that stands in the ledger, as [`Ledger::leases`] reads it.
    pub(crate) fn contents(&self, purpose: &str) -> Result<Option<Contents>, Error> {
        match self.ask(Cause::of_this_process(purpose), Operation::Look)? {
            Answer::Contents(contents) => Ok(Some(*contents)),
            _ => Ok(None),
        }
    }

    /// The contents after everything was read and compared; mends what is damaged, if that is wanted.
    pub(crate) fn examine(&self, by: Cause, mend: bool) -> Result<Option<Contents>, Error> {
        match self.ask(by, Operation::Examine { mend })? {
            Answer::Contents(contents) => Ok(Some(*contents)),
            _ => Ok(None),
        }
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
        let written = match pending.write_beside(&self.dir) {
            Err(error) if ballast::is_about_space(&error) && ballast::give_up(&self.dir) => {
                pending.write_beside(&self.dir)
            }
            result => result,
        };
        let Err(source) = written else { return Ok(Released::Spooled) };
        match pending.write_elsewhere(&self.dir) {
            Ok(()) => Ok(Released::Spooled),
            Err(elsewhere) => {
                let (path, elsewhere) = (pending.path_beside(&self.dir), format!("{}: {elsewhere}", spool::ELSEWHERE));
                Err(Error::Spool { path, source, elsewhere, instead: Box::new(instead) })
            }
        }
    }

    /// What is written down and still to be carried out: each file, and whom it is about; none if that cannot be read.
    pub(crate) fn pending(&self) -> Vec<(PathBuf, Option<Attachment>)> {
        let whose = |path: PathBuf| {
            let attachment = spool::read(&path).and_then(|pending| pending.attachment());
            (path, attachment)
        };
        spool::to_be_told(&self.dir).map(whose).collect()
    }
}

/// A lease to end, by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub attachment: &'a Attachment,
    pub lease_id: &'a LeaseId,
    /// When the latest request began that it answered, as far as is known to who ends it. In milliseconds of
    /// `CLOCK_BOOTTIME`.
    pub began: u64,
    /// Whether the addresses rest before they are given again.
    pub rests: bool,
    /// Addresses of it that somebody has whom the ledger does not know: they are kept for no pod any longer.
    pub in_use: &'a [IpAddr],
    /// What the history says.
    pub why: EventKind,
}

pub(crate) use rebuild::{attachments_with_link, leases_in_kernel, owner};

#[cfg(test)]
mod tests;
