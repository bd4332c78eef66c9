//! One visit to the database: lock, open, work, flush, close, unlock.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::lock::Lock;
use super::{Ledger, quarantine, rebuild, spool};
use crate::Error;
use crate::clock::{self, Moment};
use crate::store::{Change, Damage, Store, StoreError, sheltered};

/// What a visit may do to a ledger that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Make it if it is missing, mend it if it is damaged: an ADD must go on.
    Serve,
    /// Mend it if it is damaged; where there is none, there is nothing to do.
    Tend,
    /// Touch nothing: somebody only wants to look.
    Look,
}

/// The open database, and the moment.
pub(crate) struct Session<'a> {
    pub store: &'a Store,
    pub now: Moment,
    pub boot_id: &'a str,
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
    /// Runs `work` on the open database, which is made if there is none, and mended if it is damaged.
    pub(crate) fn serve<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<T, Error> {
        make_folder(&self.dir).map_err(|source| Error::Folder { path: self.dir.clone(), source })?;
        self.locked(purpose, Access::Serve, work)
    }

    /// Runs `work` on the open database, which is mended if it is damaged. None if there is no ledger.
    pub(crate) fn tend<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<Option<T>, Error> {
        self.database().is_dir().then(|| self.locked(purpose, Access::Tend, work)).transpose()
    }

    /// Runs `work` on the open database as it is. None if there is no ledger.
    pub(crate) fn look<T>(&self, purpose: &str, work: Work<'_, T>) -> Result<Option<T>, Error> {
        self.database().is_dir().then(|| self.locked(purpose, Access::Look, work)).transpose()
    }

    fn locked<T>(&self, purpose: &str, access: Access, work: Work<'_, T>) -> Result<T, Error> {
        let _lock = Lock::acquire(&self.dir.join("lock"), purpose, self.lock_timeout)?;
        let boot_id = clock::boot_id()?;
        let mut result = self.attempt(access, &boot_id, work);
        if matches!(result, Err(Failure::Store(StoreError::Damaged(Damage::Panic(_))))) {
            // The engine panics for want of memory or threads, too.
            result = self.attempt(access, &boot_id, work);
        }
        if access != Access::Look
            && let Err(Failure::Store(StoreError::Damaged(damage))) = &result
        {
            quarantine::put_aside(&self.dir, &self.database(), damage)?;
            result = self.attempt(Access::Serve, &boot_id, work);
        }
        result.map_err(|failure| match failure {
            Failure::Store(source) => Error::Store { dir: self.dir.clone(), source },
            Failure::Refusal(error) => *error,
        })
    }

    fn attempt<T>(&self, access: Access, boot_id: &str, work: Work<'_, T>) -> Result<T, Failure> {
        sheltered(|| {
            let database = self.database();
            if access == Access::Serve && !database.is_dir() {
                self.create(&database, boot_id)?;
            }
            let store = Store::open(&database, boot_id)?;
            let session = Session { store: &store, now: Moment::now()?, boot_id };
            let pending = spool::carry_out(&self.dir, &session)?;
            let answer = work(&session)?;
            store.flush()?;
            spool::remove(pending);
            Ok(answer)
        })
    }

    /// A new ledger starts with what the kernel says is in use, so that nobody's address is given again when a
    /// ledger was damaged, or removed by hand. It is made beside its place and moved there whole.
    fn create(&self, database: &Path, boot_id: &str) -> Result<(), Failure> {
        let building = self.dir.join("ledger.new");
        let failed = |source| Error::Folder { path: building.clone(), source };
        match fs::remove_dir_all(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            Ok(()) | Err(_) => make_folder(&building).map_err(failed)?,
        }
        let recovered = rebuild::leases_in_kernel(Moment::now()?, boot_id)?;
        let store = Store::create(&building, boot_id)?;
        store.commit(&Change { begun: recovered, ..Change::default() })?;
        store.flush()?;
        drop(store);
        fs::rename(&building, database).map_err(failed)?;
        Ok(())
    }
}

/// Only the owner looks into it: the ledger names every pod.
fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}
