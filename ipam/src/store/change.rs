//! Changes to the ledger: each is one transaction, there whole or not at all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_spec::Attachment;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};

use super::error::{Damage, StoreError};
use super::{Release, Store, decoded, generation, keys, malformed};
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
    /// Pools whose cursor moves.
    pub cursors: Vec<(PoolKey, IpAddr)>,
    /// Releases that need not be remembered any longer.
    pub forgotten: Vec<IpAddr>,
    /// Attachments that were deleted before they were known, and when.
    pub tombstones: Vec<(Attachment, u64)>,
    /// Pools that have nothing but leased, released and kept addresses, and what they have.
    pub used_up: Vec<(PoolKey, [u8; 16])>,
    /// Addresses to be kept for pods.
    pub sticky: Vec<Sticky>,
    /// Pools that are described otherwise than before.
    pub pools: Vec<KnownPool>,
    /// Tombstones that nobody needs any more.
    pub levelled: Vec<Attachment>,
}

impl Change {
    /// Whether leases end or begin.
    pub fn is_about_leases(&self) -> bool {
        !self.ended.is_empty() || !self.begun.is_empty()
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

impl Store {
    /// Carries the change out. It is not safe from the death of this process before [`Store::flush`].
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let stale = self.no_longer_used_up(change)?;
        let applied = self.db.transaction(|tree| {
            stale.iter().try_for_each(|key| tree.remove(key).map(drop))?;
            apply(tree, change)
        });
        applied.map_err(|error| match error {
            TransactionError::Abort(ours) => ours,
            TransactionError::Storage(engines) => engines.into(),
        })
    }
}

impl Store {
    /// The marks of pools that may get an address back without remembering it: it is remembered under the pool that
    /// it was leased from.
    fn no_longer_used_up(&self, change: &Change) -> Result<Vec<sled::IVec>, StoreError> {
        let ended = change.ended.iter().flat_map(|ended| &ended.record.addresses);
        let pools: BTreeSet<Vec<u8>> = ended.map(|address| keys::used_up(&PoolKey(address.pool.clone()))).collect();
        let Some(only) = pools.first() else { return Ok(Vec::new()) };
        let marks = self.db.scan_prefix(keys::USED_UP).keys().collect::<Result<Vec<_>, _>>()?;
        Ok(marks.into_iter().filter(|mark| pools.len() > 1 || **mark != **only).collect())
    }
}

fn apply(tree: &TransactionalTree, change: &Change) -> InTransaction<()> {
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
    for (pool, address) in &change.cursors {
        tree.insert(keys::cursor(pool), keys::address(*address))?;
    }
    for (pool, had) in &change.used_up {
        tree.insert(keys::used_up(pool), had.as_slice())?;
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
    for (attachment, at) in &change.tombstones {
        tree.insert(keys::tombstone(attachment), at.to_be_bytes().as_slice())?;
    }
    for attachment in &change.levelled {
        tree.remove(keys::tombstone(attachment))?;
    }
    Ok(())
}

/// An address that was kept for another is that one's no more.
fn keep(tree: &TransactionalTree, sticky: &Sticky) -> InTransaction<()> {
    let key = keys::sticky(&sticky.pod);
    if let Some(before) = tree.get(&key)? {
        let before: Sticky = decoded(&key, &before).map_err(ConflictableTransactionError::Abort)?;
        for address in before.addresses {
            if tree.get(keys::kept(address))?.is_some_and(|pod| *pod == key[1..]) {
                tree.remove(keys::kept(address))?;
            }
        }
    }
    for address in &sticky.addresses {
        tree.insert(keys::kept(*address), &key[1..])?;
    }
    tree.insert(key, serde_json::json!(sticky).to_string().as_bytes())?;
    Ok(())
}

fn end(tree: &TransactionalTree, ended: &Ended) -> InTransaction<()> {
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
            tree.insert(keys::queued(&pool, ended.released_at, address), &[])?;
        }
    }
    Ok(())
}

fn begin(tree: &TransactionalTree, record: &Record) -> InTransaction<()> {
    let key = keys::lease(&record.attachment);
    for address in record.ips() {
        // The caller looked; if this is taken nevertheless, leases and index tell different stories.
        if tree.insert(keys::address(address), &key[1..])?.is_some() {
            let damage = StoreError::Damaged(Damage::Index(address));
            return Err(ConflictableTransactionError::Abort(damage));
        }
        forget(tree, address)?;
    }
    let value = serde_json::json!(record).to_string();
    tree.insert(key, value.as_bytes())?;
    if record.origin == Origin::Recovered {
        tree.insert(keys::recovered(&record.attachment), &[])?;
    }
    tree.remove(keys::tombstone(&record.attachment))?;
    Ok(())
}

fn forget(tree: &TransactionalTree, address: IpAddr) -> InTransaction<()> {
    let key = keys::released(address);
    let Some(value) = tree.remove(key.as_slice())? else { return Ok(()) };
    let Some(release) = Release::from_bytes(&value) else {
        return Err(ConflictableTransactionError::Abort(malformed(&key)));
    };
    tree.remove(keys::queued(&release.pool, release.at, address))?;
    Ok(())
}
