//! Changes to the ledger: each is one transaction, there whole or not at all.

use std::net::IpAddr;

use cni_spec::Attachment;
use sled::IVec;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};

use super::error::{Damage, StoreError};
use super::{Release, Store, UsedUp, decoded, generation, keys, malformed, number};
use crate::operation::KnownPool;
use crate::pool::PoolKey;
use crate::record::{Origin, Record};
use crate::sticky::Sticky;

/// What one transaction does: first what ends, then what begins.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Leases to end, as they were read.
    pub ended: Vec<Ended>,
    /// Leases to begin.
    pub begun: Vec<Record>,
    /// Leases that stand, with the same addresses, as they are to be told from now on.
    pub retold: Vec<Record>,
    /// Pools whose cursor moves.
    pub cursors: Vec<(PoolKey, IpAddr)>,
    /// Releases that need not be remembered any longer.
    pub forgotten: Vec<IpAddr>,
    /// Attachments that were deleted, and when.
    pub tombstones: Vec<(Attachment, u64)>,
    /// Pools that are used up.
    pub used_up: Vec<UsedUp>,
    /// Addresses to be kept for pods.
    pub sticky: Vec<Sticky>,
    /// Pools that are described otherwise than before.
    pub pools: Vec<KnownPool>,
    /// Tombstones that nobody needs any more. An attachment that is deleted now gets its new one after that.
    pub levelled: Vec<Attachment>,
}

impl Change {
    /// Whether leases end or begin, or are told otherwise.
    pub fn is_about_leases(&self) -> bool {
        !self.ended.is_empty() || !self.begun.is_empty() || !self.retold.is_empty()
    }
}

/// The end of a lease.
#[derive(Debug)]
pub(crate) struct Ended {
    pub record: Record,
    /// In milliseconds of `CLOCK_BOOTTIME`; 0 for addresses that need no rest.
    pub released_at: u64,
}

type InTransaction<T> = Result<T, ConflictableTransactionError<StoreError>>;

/// The tree in a transaction, in which the store counts what is looked at as elsewhere. The engine looks at what is to be
/// overwritten or removed, too.
struct Tree<'a> {
    tree: &'a TransactionalTree,
    store: &'a Store,
}

impl Tree<'_> {
    fn get(&self, key: impl AsRef<[u8]>) -> InTransaction<Option<IVec>> {
        self.store.count();
        Ok(self.tree.get(key)?)
    }

    fn insert(&self, key: impl AsRef<[u8]> + Into<IVec>, value: impl Into<IVec>) -> InTransaction<Option<IVec>> {
        self.store.count();
        Ok(self.tree.insert(key, value)?)
    }

    fn remove(&self, key: impl AsRef<[u8]> + Into<IVec>) -> InTransaction<Option<IVec>> {
        self.store.count();
        Ok(self.tree.remove(key)?)
    }
}

impl Store {
    /// Carries the change out. It is not safe from the death of this process before [`Store::flush`].
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let marks = self.marks_after(change)?;
        let applied = self.db.transaction(|tree| {
            let tree = &Tree { tree, store: self };
            marks.stale.iter().try_for_each(|key| tree.remove(key).map(drop))?;
            marks.new.iter().try_for_each(|(key, value)| tree.insert(key.as_slice(), value.as_slice()).map(drop))?;
            apply(tree, change)
        });
        applied.map_err(|error| match error {
            TransactionError::Abort(ours) => ours,
            TransactionError::Storage(engines) => engines.into(),
        })
    }
}

fn apply(tree: &Tree<'_>, change: &Change) -> InTransaction<()> {
    if change.is_about_leases() {
        let before = generation(tree.get(keys::GENERATION)?.as_deref()).map_err(ConflictableTransactionError::Abort)?;
        tree.insert(keys::GENERATION, before.saturating_add(1).to_be_bytes().as_slice())?;
    }
    for ended in &change.ended {
        end(tree, ended)?;
    }
    for record in &change.begun {
        begin(tree, record)?;
    }
    for record in &change.retold {
        tree.insert(keys::lease(&record.attachment), serde_json::json!(record).to_string().as_bytes())?;
    }
    for (pool, address) in &change.cursors {
        tree.insert(keys::cursor(pool), keys::address(*address))?;
    }
    for sticky in &change.sticky {
        keep(tree, sticky)?;
    }
    for pool in &change.pools {
        tree.insert(keys::known_pool(&pool.network, &pool.name), serde_json::json!(pool).to_string().as_bytes())?;
    }
    for address in &change.forgotten {
        forget(tree, *address)?;
    }
    for attachment in &change.levelled {
        level(tree, attachment)?;
    }
    for (attachment, at) in &change.tombstones {
        let latest = level(tree, attachment)?.map_or(*at, |known| known.max(*at));
        tree.insert(keys::tombstone(attachment), latest.to_be_bytes().as_slice())?;
        tree.insert(keys::tombstone_by_age(latest, attachment), &[])?;
    }
    Ok(())
}

/// An address that was kept for another is that one's no more.
fn keep(tree: &Tree<'_>, sticky: &Sticky) -> InTransaction<()> {
    let key = keys::sticky(&sticky.pod);
    if let Some(before) = tree.get(&key)? {
        let before: Sticky = decoded(&key, &before).map_err(ConflictableTransactionError::Abort)?;
        for address in before.addresses {
            if tree.get(keys::kept(address))?.is_some_and(|pod| *pod == key[1..]) {
                tree.remove(keys::kept(address))?;
                tree.remove(keys::kept_and_free(address))?;
                if let Some(release) = release_of(tree, address)? {
                    tree.insert(keys::queued(&release.pool, release.at, address), &[])?;
                }
            }
        }
    }
    for address in &sticky.addresses {
        tree.insert(keys::kept(*address), &key[1..])?;
        if let Some(release) = release_of(tree, *address)? {
            tree.remove(keys::queued(&release.pool, release.at, *address))?;
        }
        if tree.get(keys::address(*address))?.is_none() {
            tree.insert(keys::kept_and_free(*address), &[])?;
        }
    }
    tree.insert(key, serde_json::json!(sticky).to_string().as_bytes())?;
    Ok(())
}

fn end(tree: &Tree<'_>, ended: &Ended) -> InTransaction<()> {
    let key = keys::lease(&ended.record.attachment);
    tree.remove(key.as_slice())?;
    tree.remove(keys::recovered(&ended.record.attachment))?;
    for recorded in &ended.record.addresses {
        let (address, pool) = (recorded.address.ip(), PoolKey(recorded.pool.clone()));
        let index = keys::address(address);
        // An entry that names somebody else is that one's: it is not freed here.
        if tree.get(&index)?.is_some_and(|holder| *holder == key[1..]) {
            tree.remove(index)?;
            forget(tree, address)?;
            let release = Release { at: ended.released_at, pool: pool.clone() };
            tree.insert(keys::released(address), release.to_bytes())?;
            if tree.get(keys::kept(address))?.is_some() {
                tree.insert(keys::kept_and_free(address), &[])?;
            } else {
                tree.insert(keys::queued(&pool, ended.released_at, address), &[])?;
            }
        }
    }
    Ok(())
}

fn begin(tree: &Tree<'_>, record: &Record) -> InTransaction<()> {
    let key = keys::lease(&record.attachment);
    for address in record.ips() {
        // The caller looked; if this is taken nevertheless, leases and index tell different stories.
        if tree.insert(keys::address(address), &key[1..])?.is_some() {
            let damage = StoreError::Damaged(Damage::Index(address));
            return Err(ConflictableTransactionError::Abort(damage));
        }
        tree.remove(keys::kept_and_free(address))?;
        forget(tree, address)?;
    }
    let value = serde_json::json!(record).to_string();
    tree.insert(key, value.as_bytes())?;
    if record.origin == Origin::Recovered {
        tree.insert(keys::recovered(&record.attachment), &[])?;
    }
    level(tree, &record.attachment)?;
    Ok(())
}

/// Removes the attachment's tombstone, and tells the moment on it.
fn level(tree: &Tree<'_>, attachment: &Attachment) -> InTransaction<Option<u64>> {
    let key = keys::tombstone(attachment);
    let Some(value) = tree.remove(key.as_slice())? else { return Ok(None) };
    let at = number(&key, &value).map_err(ConflictableTransactionError::Abort)?;
    tree.remove(keys::tombstone_by_age(at, attachment))?;
    Ok(Some(at))
}

fn forget(tree: &Tree<'_>, address: IpAddr) -> InTransaction<()> {
    let Some(release) = release_of(tree, address)? else { return Ok(()) };
    tree.remove(keys::released(address))?;
    tree.remove(keys::queued(&release.pool, release.at, address))?;
    Ok(())
}

/// The release of the address that is remembered.
fn release_of(tree: &Tree<'_>, address: IpAddr) -> InTransaction<Option<Release>> {
    let key = keys::released(address);
    let Some(value) = tree.get(key.as_slice())? else { return Ok(None) };
    let release = Release::from_bytes(&value).ok_or_else(|| malformed(&key));
    release.map(Some).map_err(ConflictableTransactionError::Abort)
}
