//! Which pools are used up: the marks that spare everybody a search for what is not there.

use std::net::IpAddr;

use cni_spec::NetworkName;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::{Change, Store, decoded, keys};
use crate::pool::{Pool, PoolKey};
use crate::span::Span;

/// A pool that has nothing but leased and kept addresses, and those that are remembered under its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub pool: PoolKey,
    /// What the pool leases. The mark counts for nothing if it leases something else by now.
    pub spans: Vec<Span>,
    /// What was seen when somebody asked in vain.
    pub looked: Option<Looked>,
}

/// A look at all leases of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Looked {
    /// When, in milliseconds of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// On whose behalf.
    pub network: NetworkName,
    pub leased: usize,
    pub held_by_others: usize,
    /// Leases of pods whose namespace is gone, though not provably so.
    pub suspects: usize,
    /// Addresses whose release is remembered.
    pub cooling: usize,
    /// When the first of them has rested, in milliseconds of `CLOCK_BOOTTIME`.
    pub next_free_at: Option<u64>,
}

/// The value of a mark.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    spans: Vec<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    looked: Option<Looked>,
}

/// What a change does to the marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub stale: Vec<sled::IVec>,
    pub new: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Store {
    /// The mark of a pool that is used up.
    pub fn used_up(&self, pool: &Pool) -> Result<Option<UsedUp>, StoreError> {
        let key = keys::used_up(&pool.key());
        let Some(value) = self.get(&key)? else { return Ok(None) };
        let Mark { spans, looked } = decoded(&key, &value)?;
        Ok((spans == pool.spans()).then(|| UsedUp { pool: pool.key(), spans, looked }))
    }

    /// A pool is used up no longer if one of its addresses is nobody's, and not remembered under the pool's name: it was
    /// leased from another pool, is forgotten, or is kept no more.
    pub(super) fn marks_after(&self, change: &Change) -> Result<Marks, StoreError> {
        let mut freed: Vec<(IpAddr, Option<&str>)> = Vec::new();
        for recorded in change.ended.iter().flat_map(|ended| &ended.record.addresses) {
            freed.push((recorded.address.ip(), Some(recorded.pool.as_str())));
        }
        freed.extend(change.forgotten.iter().map(|address| (*address, None)));
        for sticky in &change.sticky {
            let before = self.sticky(&sticky.pod)?.map(|before| before.addresses).unwrap_or_default();
            freed.extend(before.into_iter().filter(|ip| !sticky.addresses.contains(ip)).map(|ip| (ip, None)));
        }
        let is_stale = |pool: &str, spans: &[Span]| {
            let foreign = freed.iter().filter(|(_, of)| *of != Some(pool));
            foreign.into_iter().any(|(address, _)| spans.iter().any(|span| span.contains(*address)))
        };
        let mut marks = Marks::default();
        if !freed.is_empty() {
            for mark in self.scan(keys::USED_UP) {
                let (key, value) = mark?;
                let Mark { spans, .. } = decoded(&key, &value)?;
                let pool = String::from_utf8_lossy(key.get(keys::USED_UP.len()..).unwrap_or_default()).into_owned();
                if is_stale(&pool, &spans) {
                    marks.stale.push(key);
                }
            }
        }
        for UsedUp { pool, spans, looked } in &change.used_up {
            if !is_stale(&pool.0, spans) {
                let mark = Mark { spans: spans.clone(), looked: looked.clone() };
                marks.new.push((keys::used_up(pool), serde_json::json!(mark).to_string().into_bytes()));
            }
        }
        Ok(marks)
    }
}
