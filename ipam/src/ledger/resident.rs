//! A ledger that stays open.

use super::lock::Lock;
use super::session::{Slot, make_folder};
use super::{Ledger, Manner};
use crate::Error;
use crate::clock::Moment;
use crate::event::Cause;
use crate::operation::{Answer, Operation, Request};

/// A ledger whose lock is held and whose database stays open from one operation to the next.
#[derive(Debug)]
pub(crate) struct Resident {
    // Before the lock: whoever gets the lock must find the database closed.
    slot: Slot,
    lock: Lock,
    ledger: Ledger,
}

impl Resident {
    /// Takes the lock and opens the database, which is made if there is none.
    pub fn open(ledger: &Ledger) -> Result<Self, Error> {
        make_folder(ledger.dir()).map_err(|source| Error::Folder { path: ledger.dir().to_owned(), source })?;
        let lock = Lock::acquire(&ledger.lock_file(), "ipam serve", ledger.lock_timeout(), || false)?;
        let lock = lock.ok_or(Error::Answer)?;
        let mut resident = Self { slot: Slot::Kept(None), lock, ledger: ledger.clone() };
        let asked = Moment::now()?.boottime;
        let by = Cause::of_this_process("ipam serve");
        resident.carry_out(&Request { by, asked, deadline: u64::MAX, operation: Operation::Look })?;
        Ok(resident)
    }

    /// Carries an operation out.
    pub fn carry_out(&mut self, request: &Request) -> Result<Answer, Error> {
        self.ledger.visit(&mut self.slot, request)
    }

    /// Whether the asker has gone away by now. Only for what makes something: a release is as welcome late.
    pub fn is_late(&self, request: &Request) -> bool {
        let now = Moment::now().map_or(u64::MAX, |now| now.boottime);
        request.operation.manner() == Manner::Serve && now > request.deadline
    }

    /// Whether the ledger is still this one: somebody may have removed its folder, and others made a new one.
    pub fn stands(&self) -> Result<(), Error> {
        if self.lock.is_at(&self.ledger.lock_file()) { Ok(()) } else { Err(Error::Removed) }
    }
}
