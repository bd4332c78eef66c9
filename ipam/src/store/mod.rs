//! The database: the only module that names the engine, sled.
//!
//! sled was built for one process that opens its database once. Here every call is a process of its own, so the
//! engine is kept behind three things: the ledger's lock around everything (in [`crate::ledger`]), [`open`],
//! which clears away what a killed opener leaves and makes errors of panics, and the habit of flushing before
//! an answer is given.

use std::net::IpAddr;
use std::path::Path;

use cni_spec::{Attachment, NetworkName};
use serde::de::DeserializeOwned;

use crate::operation::{KnownPool, Rest, Tombstone};
use crate::pool::PoolKey;
use crate::record::Record;
use crate::sticky::{Sticky, StickyPod};

mod change;
mod error;
mod examine;
mod hurry;
mod keys;
mod occupancy;
mod open;
mod used_up;

pub(crate) use change::{Change, Ended};
pub use error::{Damage, StoreError};
pub(crate) use open::sheltered;
pub(crate) use used_up::{Looked, UsedUp};

/// The version of keys and values, counted up when an older program could misread them.
const SCHEMA: u32 = 1;

/// A key and its value.
type Entry = (sled::IVec, sled::IVec);

/// An open database. The caller holds the ledger's lock.
#[derive(Debug)]
pub(crate) struct Store {
    db: sled::Db,
    /// How many entries were looked at, by their key or in a scan: what an operation costs, without a clock.
    #[cfg(test)]
    reads: std::sync::atomic::AtomicUsize,
}

impl Store {
    fn of(db: sled::Db) -> Self {
        Self {
            db,
            #[cfg(test)]
            reads: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    #[cfg(test)]
    fn count(&self) {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "what is counted in tests costs nothing elsewhere")]
    const fn count(&self) {}

    /// The value of a key. Here and in [`Store::scan`] and [`Store::range`] entries are looked at, and in transactions.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<sled::IVec>, StoreError> {
        self.count();
        Ok(self.db.get(key)?)
    }

    /// The entries whose keys begin so.
    fn scan<'a>(&'a self, beginning: &[u8]) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a> {
        self.counted(self.db.scan_prefix(beginning))
    }

    /// The first key of a kind from a key on.
    fn first_key(&self, beginning: &[u8], from: Vec<u8>) -> Result<Option<sled::IVec>, StoreError> {
        let first = self.counted(self.db.range(from..)).next().transpose()?;
        Ok(first.map(|(key, _)| key).filter(|key| key.starts_with(beginning)))
    }

    /// The entries from one key to another.
    fn range(&self, first: Vec<u8>, last: Vec<u8>) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'_> {
        self.counted(self.db.range(first..=last))
    }

    fn counted(&self, entries: sled::Iter) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'_> {
        entries.map(|entry| {
            self.count();
            Ok(entry?)
        })
    }

    /// Makes a new database in an empty folder, which counts its changes from a number on.
    pub fn create(dir: &Path, boot_id: &str, generation: u64) -> Result<Self, StoreError> {
        let store = Self::of(open::open(dir)?);
        let mut stamps = sled::Batch::default();
        stamps.insert(keys::SCHEMA, &SCHEMA.to_be_bytes());
        stamps.insert(keys::BOOT, boot_id.as_bytes());
        stamps.insert(keys::GENERATION, &generation.to_be_bytes());
        store.db.apply_batch(stamps)?;
        Ok(store)
    }

    /// Opens a database and changes nothing in it. (The engine may tidy its own files.)
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let store = Self::of(open::open(dir)?);
        let schema = store.get(keys::SCHEMA)?.ok_or(StoreError::Damaged(Damage::NoSchema))?;
        match schema.as_ref().try_into().map(u32::from_be_bytes) {
            Ok(SCHEMA) => Ok(store),
            Ok(found) if found > SCHEMA => Err(StoreError::Newer { found, known: SCHEMA }),
            Ok(_) | Err(_) => Err(malformed(keys::SCHEMA)),
        }
    }

    /// Whether this boot wrote it last. If not, all its leases are void.
    pub fn is_of_boot(&self, boot_id: &str) -> Result<bool, StoreError> {
        Ok(self.get(keys::BOOT)?.as_deref() == Some(boot_id.as_bytes()))
    }

    /// How many changes have ended or begun leases. The engine takes a log whose end is damaged for a shorter one;
    /// this tells.
    pub fn generation(&self) -> Result<u64, StoreError> {
        generation(self.get(keys::GENERATION)?.as_deref())
    }

    /// Makes what was committed safe from the death of this process. (It is in the kernel's hands then; a
    /// loss of power ends the boot, and with it the leases.)
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }

    /// The attachment's lease.
    pub fn lease(&self, attachment: &Attachment) -> Result<Option<Record>, StoreError> {
        let key = keys::lease(attachment);
        self.get(&key)?.map(|value| record(&key, &value)).transpose()
    }

    /// All leases, in the order of network, container id and interface.
    pub fn leases(&self) -> impl Iterator<Item = Result<Record, StoreError>> {
        self.scan_leases(keys::LEASES)
    }

    /// All leases of a network.
    pub fn leases_of(&self, network: &NetworkName) -> impl Iterator<Item = Result<Record, StoreError>> {
        self.scan_leases(&keys::leases_of(network))
    }

    /// The leases that were read off the kernel: those of [`crate::Origin::Recovered`].
    pub fn recovered(&self) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        for entry in self.scan(keys::RECOVERED) {
            let (key, _) = entry?;
            let attachment = keys::attachment_in(&key).ok_or_else(|| malformed(&key))?;
            found.extend(self.lease(&attachment)?);
        }
        Ok(found)
    }

    /// The networks of these leases. Passes over all but one lease of each.
    pub fn recovered_networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        let mut found: Vec<NetworkName> = Vec::new();
        let mut from = keys::RECOVERED.to_vec();
        while let Some(key) = self.first_key(keys::RECOVERED, from)? {
            let network = keys::attachment_in(&key).ok_or_else(|| malformed(&key))?.network;
            from = keys::after_recovered_of(&network);
            found.push(network);
        }
        Ok(found)
    }

    /// Whether one of the network's pools was described.
    pub fn knows_a_pool_of(&self, network: &NetworkName) -> Result<bool, StoreError> {
        Ok(self.scan(&keys::known_pools_of(network)).next().transpose()?.is_some())
    }

    /// The lease that holds the address.
    pub fn holder(&self, address: IpAddr) -> Result<Option<Record>, StoreError> {
        let Some(attachment) = self.get(keys::address(address))? else { return Ok(None) };
        let key = [keys::LEASES, &attachment].concat();
        let value = self.get(&key)?.ok_or(StoreError::Damaged(Damage::Index(address)))?;
        record(&key, &value).map(Some)
    }

    /// When the attachment was deleted last, in milliseconds of `CLOCK_BOOTTIME`, if that is remembered.
    pub fn tombstone(&self, attachment: &Attachment) -> Result<Option<u64>, StoreError> {
        let key = keys::tombstone(attachment);
        self.get(&key)?.map(|value| number(&key, &value)).transpose()
    }

    /// A pool as it was described last.
    pub fn known_pool(&self, network: &NetworkName, pool: &str) -> Result<Option<KnownPool>, StoreError> {
        let key = keys::known_pool(network, pool);
        self.get(&key)?.map(|value| decoded(&key, &value)).transpose()
    }

    /// All pools, in the order of network and name.
    pub fn known_pools(&self) -> Result<Vec<KnownPool>, StoreError> {
        self.scan(keys::POOLS).map(|entry| entry.and_then(|(key, value)| decoded(&key, &value))).collect()
    }

    /// The addresses that are kept for a pod, unless they have gone to another.
    pub fn sticky(&self, pod: &StickyPod) -> Result<Option<Sticky>, StoreError> {
        let key = keys::sticky(pod);
        let Some(value) = self.get(&key)? else { return Ok(None) };
        let mut sticky: Sticky = decoded(&key, &value)?;
        let mut own = Vec::new();
        for address in sticky.addresses {
            if self.get(keys::kept(address))?.is_some_and(|pod| *pod == key[1..]) {
                own.push(address);
            }
        }
        sticky.addresses = own;
        Ok(Some(sticky))
    }

    /// All remembered releases, in the order of addresses.
    pub fn releases(&self) -> Result<Vec<Rest>, StoreError> {
        let rest = |entry: Result<Entry, StoreError>| {
            let (key, value) = entry?;
            let (address, release) =
                keys::address_in(&key).zip(Release::from_bytes(&value)).ok_or_else(|| malformed(&key))?;
            Ok(Rest { address, pool: release.pool.0, released_boottime_ms: release.at })
        };
        self.scan(keys::RELEASES).map(rest).collect()
    }

    /// All tombstones, in the order of their attachments.
    pub fn tombstones(&self) -> Result<Vec<Tombstone>, StoreError> {
        let tombstone = |entry: Result<Entry, StoreError>| {
            let (key, value) = entry?;
            let attachment = keys::attachment_in(&key).ok_or_else(|| malformed(&key))?;
            Ok(Tombstone { attachment, deleted_boottime_ms: number(&key, &value)? })
        };
        self.scan(keys::TOMBSTONES).map(tombstone).collect()
    }

    /// Attachments whose tombstone is older than a moment of `CLOCK_BOOTTIME`, in milliseconds: the oldest few, as
    /// whoever adds one removes more than that, and none pays for all.
    pub fn tombstones_before(&self, moment: u64) -> Result<Vec<Attachment>, StoreError> {
        const AT_A_TIME: usize = 4;
        let mut old = Vec::new();
        for entry in self.scan(keys::TOMBSTONES_BY_AGE).take(AT_A_TIME) {
            let (key, _) = entry?;
            let (at, attachment) = keys::buried_in(&key).ok_or_else(|| malformed(&key))?;
            if at < moment {
                old.push(attachment);
            }
        }
        Ok(old)
    }

    fn scan_leases<'a>(&'a self, prefix: &[u8]) -> impl Iterator<Item = Result<Record, StoreError>> + use<'a> {
        self.scan(prefix).map(|entry| {
            let (key, value) = entry?;
            record(&key, &value)
        })
    }

    /// Drops what another boot wrote: no pod survives a reboot.
    pub fn begin_boot(&self, boot_id: &str) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for kind in keys::OF_THE_BOOT {
            for entry in self.scan(kind) {
                batch.remove(entry?.0);
            }
        }
        // Nobody has a kept address any more.
        for entry in self.scan(keys::KEPT) {
            let (key, _) = entry?;
            let address = keys::address_in(&key).ok_or_else(|| malformed(&key))?;
            batch.insert(keys::kept_and_free(address), &[]);
        }
        batch.insert(keys::BOOT, boot_id.as_bytes());
        self.db.apply_batch(batch)?;
        Ok(())
    }
}

#[cfg(test)]
impl Store {
    /// Overwrites the attachment's lease, as a failing memory might.
    pub fn spoil(&self, attachment: &Attachment) {
        self.db.insert(keys::lease(attachment), "no lease").unwrap();
    }

    /// How many entries have been looked at since the last time.
    pub fn reads(&self) -> usize {
        self.reads.swap(0, std::sync::atomic::Ordering::Relaxed)
    }

    /// Puts many leases in at once, as if each had been asked for: the pool's cursor is at the last address.
    pub fn fill(&self, leases: &[Record]) {
        let mut batch = sled::Batch::default();
        for lease in leases {
            let key = keys::lease(&lease.attachment);
            lease.ips().for_each(|address| batch.insert(keys::address(address), &key[1..]));
            batch.insert(key, serde_json::json!(lease).to_string().as_bytes());
        }
        for recorded in leases.last().iter().flat_map(|last| &last.addresses) {
            batch.insert(keys::cursor(&PoolKey(recorded.pool.clone())), keys::address(recorded.address.ip()));
        }
        self.db.apply_batch(batch).unwrap();
    }
}

/// When an address was released, and from which pool: the value that leads to its place in the queue.
#[derive(Debug, Clone)]
struct Release {
    at: u64,
    pool: PoolKey,
}

impl Release {
    fn to_bytes(&self) -> Vec<u8> {
        [self.at.to_be_bytes().as_slice(), self.pool.0.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, pool) = bytes.split_first_chunk()?;
        Some(Self { at: u64::from_be_bytes(*at), pool: PoolKey(String::from_utf8(pool.to_vec()).ok()?) })
    }
}

fn record(key: &[u8], value: &[u8]) -> Result<Record, StoreError> {
    decoded(key, value)
}

fn decoded<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|source| {
        let key = String::from_utf8_lossy(key).replace('\0', " ");
        StoreError::Damaged(Damage::Value { key, source })
    })
}

/// None is a database that has not counted yet.
fn generation(value: Option<&[u8]>) -> Result<u64, StoreError> {
    value.map_or(Ok(0), |value| number(keys::GENERATION, value))
}

fn number(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| malformed(key))
}

fn malformed(key: &[u8]) -> StoreError {
    StoreError::Damaged(Damage::Key(String::from_utf8_lossy(key).into_owned()))
}

#[cfg(test)]
mod tests;
