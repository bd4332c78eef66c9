//! What [`crate::allocate`] wants to know, from the database.

use std::net::IpAddr;

use super::error::{Damage, StoreError};
use super::{Release, Store, keys, malformed};
use crate::allocate::{self, Occupancy};
use crate::pool::{Pool, PoolKey};
use crate::span::Span;

impl Occupancy for Store {
    type Error = StoreError;

    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, StoreError>> {
        let found = self.db.range(keys::address(span.first)..=keys::address(span.last));
        found.keys().map(|key| {
            self.count();
            let key = key?;
            keys::address_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, StoreError> {
        self.count();
        let key = keys::released(address);
        let Some(value) = self.db.get(&key)? else { return Ok(None) };
        Release::from_bytes(&value).map(|release| Some(release.at)).ok_or_else(|| malformed(&key))
    }

    fn released(&self, span: Span) -> impl Iterator<Item = Result<allocate::Release, StoreError>> {
        let found = self.db.range(keys::released(span.first)..=keys::released(span.last));
        found.map(|entry| {
            self.count();
            let (key, value) = entry?;
            let address = keys::address_in(&key).ok_or_else(|| malformed(&key))?;
            let release = Release::from_bytes(&value).ok_or_else(|| malformed(&key))?;
            Ok(allocate::Release { at: release.at, address, pool: release.pool })
        })
    }

    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), StoreError>> {
        self.db.scan_prefix(keys::queue(pool)).keys().map(|key| {
            self.count();
            let key = key?;
            keys::release_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, StoreError> {
        self.count();
        let key = keys::cursor(pool);
        let Some(value) = self.db.get(&key)? else { return Ok(None) };
        keys::address_in(&value).map(Some).ok_or_else(|| StoreError::Damaged(Damage::Key(pool.0.clone())))
    }

    fn is_kept(&self, address: IpAddr) -> Result<bool, StoreError> {
        self.count();
        Ok(self.db.contains_key(keys::kept(address))?)
    }

    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, StoreError>> {
        let found = self.db.range(keys::kept_and_free(span.first)..=keys::kept_and_free(span.last));
        found.keys().map(|key| {
            self.count();
            let key = key?;
            keys::address_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn is_used_up(&self, pool: &Pool) -> Result<bool, StoreError> {
        self.count();
        Ok(self.used_up(pool)?.is_some())
    }
}
