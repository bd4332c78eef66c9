//! One visit to the database: lock, open, work, flush, close, unlock.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::copies::Copies;
use super::lock::Lock;
use super::{Ledger, quarantine, rebuild, spool};
use crate::Error;
use crate::clock::{self, Moment};
use crate::record::Record;
use crate::store::{Change, Damage, Store, StoreError, sheltered};

/// The open database, and the moment.
pub(crate) struct Session<'a> {
    pub store: &'a Store,
    pub now: Moment,
    pub boot_id: &'a str,
    copies: &'a Copies,
}

impl Session<'_> {
    /// Carries a change out, after noting which leases it is about.
    pub fn commit(&self, change: &Change) -> Result<(), Failure> {
        self.copies.note(change)?;
        Ok(self.store.commit(change)?)
    }
}

/// Whether a call that cannot keep the leases' copies must fail for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Yes: it leases.
    Copies,
    /// No: it only ends leases, or looks, and the next one that leases sees to the copies.
    Later,
}

/// Why a visit came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database is to blame.
    Store(StoreError),
    /// The request is, or the machine.
    Refusal(Box<Error>),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refusal(Box::new(error))
    }
}

/// What a visit is for: it may be done again if the database had to be mended.
type Work<'a, T> = &'a dyn Fn(&Session<'_>) -> Result<T, Failure>;

impl Ledger {
    /// Runs `work` on the open database, which is made if there is none, and mended if it is damaged. Before that,
    /// leases end that were read off the kernel and are not to be seen there any more.
    pub(crate) fn serve<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<T, Error> {
        make_folder(&self.dir).map_err(|source| Error::Folder { path: self.dir.clone(), source })?;
        self.mend_and_visit(purpose, Care::Copies, &|session| {
            rebuild::end_what_is_gone(session)?;
            work(session)
        })
    }

    /// The same, but where there is not even a folder for a ledger, there is nothing to do, and none is made.
    pub(crate) fn tend<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<Option<T>, Error> {
        self.amend(purpose, &|session| {
            rebuild::end_what_is_gone(session)?;
            work(session)
        })
    }

    /// The same, and the kernel is not looked at: a person may ask from another network namespace than the node's.
    pub(crate) fn amend<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<Option<T>, Error> {
        self.dir.is_dir().then(|| self.mend_and_visit(purpose, Care::Later, work)).transpose()
    }

    /// The leases as the next visit will find them, without changing any. None if there is no ledger.
    pub(crate) fn look(&self, purpose: &str) -> Result<Option<Vec<Record>>, Error> {
        if !self.dir.is_dir() {
            return Ok(None);
        }
        let _lock = self.lock(purpose)?;
        if !self.database().is_dir() {
            return Ok(None);
        }
        let boot_id = clock::boot_id()?;
        let looked = twice_if_panicked(|| self.read(&boot_id));
        looked.map(Some).map_err(|failure| self.blame(failure))
    }

    /// Whether there is a database is only known under the lock: somebody may be making it, or have just put a
    /// damaged one aside.
    fn mend_and_visit<T>(&self, purpose: &str, care: Care, work: Work<'_, T>) -> Result<T, Error> {
        let _lock = self.lock(purpose)?;
        let boot_id = clock::boot_id()?;
        let attempt = || {
            sheltered(|| if self.database().is_dir() { Ok(()) } else { self.create(&boot_id) })?;
            self.visit(&boot_id, care, work)
        };
        let mut result = twice_if_panicked(attempt);
        if let Err(Failure::Store(StoreError::Damaged(damage))) = &result {
            quarantine::put_aside(&self.dir, &self.database(), damage)?;
            result = attempt();
        }
        result.map_err(|failure| self.blame(failure))
    }

    fn visit<T>(&self, boot_id: &str, care: Care, work: Work<'_, T>) -> Result<T, Failure> {
        sheltered(|| {
            let copies = Copies::in_folder(&self.dir);
            let store = Store::open(&self.database())?;
            if !store.is_of_boot(boot_id)? {
                copies.void();
                store.begin_boot(boot_id)?;
            }
            is_up_to_date(&store, &copies)?;
            settle(&copies, &store, care)?;
            let session = Session { store: &store, now: Moment::now()?, boot_id, copies: &copies };
            let pending = spool::carry_out(&self.dir, &session)?;
            let answer = work(&session)?;
            store.flush()?;
            settle(&copies, &store, care)?;
            spool::remove(pending);
            Ok(answer)
        })
    }

    fn read(&self, boot_id: &str) -> Result<Vec<Record>, Failure> {
        sheltered(|| {
            let store = Store::open(&self.database())?;
            if !store.is_of_boot(boot_id)? {
                return Ok(Vec::new());
            }
            let (copies, now) = (Copies::in_folder(&self.dir), Moment::now()?);
            is_up_to_date(&store, &copies)?;
            let session = Session { store: &store, now, boot_id, copies: &copies };
            let (ended, _) = spool::due(&self.dir, &session)?;
            let ends = |record: &Record| ended.iter().any(|ended| ended.record.lease_id == record.lease_id);
            let stands = |record: &Result<Record, _>| !record.as_ref().is_ok_and(ends);
            Ok(store.leases().filter(stands).collect::<Result<_, _>>()?)
        })
    }

    fn lock(&self, purpose: &str) -> Result<Lock, Error> {
        Lock::acquire(&self.dir.join("lock"), purpose, self.lock_timeout())
    }

    fn blame(&self, failure: Failure) -> Error {
        match failure {
            Failure::Store(source) => Error::Store { dir: self.dir.clone(), source },
            Failure::Refusal(error) => *error,
        }
    }

    /// A new ledger starts with what copies and kernel say is in use, so that nobody's address is given again when
    /// a ledger was damaged, or removed by hand. It is made beside its place and moved there whole.
    fn create(&self, boot_id: &str) -> Result<(), Failure> {
        let building = self.dir.join("ledger.new");
        let failed = |source| Error::Folder { path: building.clone(), source };
        match fs::remove_dir_all(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            Ok(()) | Err(_) => make_folder(&building).map_err(failed)?,
        }
        let copies = Copies::in_folder(&self.dir);
        let mut recovered = copies.read(boot_id)?;
        let in_kernel = rebuild::leases_in_kernel(&recovered, Moment::now()?, boot_id)?;
        recovered.extend(in_kernel);
        let store = Store::create(&building, boot_id, copies.generation())?;
        store.commit(&Change { begun: recovered, ..Change::default() })?;
        store.flush()?;
        drop(store);
        fs::rename(&building, self.database()).map_err(failed)?;
        Ok(())
    }
}

fn is_up_to_date(store: &Store, copies: &Copies) -> Result<(), StoreError> {
    let (found, made) = (store.generation()?, copies.generation());
    if found < made { Err(StoreError::Damaged(Damage::Behind { found, made })) } else { Ok(()) }
}

fn settle(copies: &Copies, store: &Store, care: Care) -> Result<(), Failure> {
    match copies.settle(store) {
        Err(Failure::Refusal(_)) if care == Care::Later => Ok(()),
        result => result,
    }
}

/// The engine panics for want of memory or threads, too, and not only over damage.
fn twice_if_panicked<T>(attempt: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    match attempt() {
        Err(Failure::Store(StoreError::Damaged(Damage::Panic(_)))) => attempt(),
        result => result,
    }
}

/// Only the owner looks into it: the ledger names every pod.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}
