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
        self.range(keys::address(span.first), keys::address(span.last)).map(|entry| {
            let (key, _) = entry?;
            keys::address_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, StoreError> {
        let key = keys::released(address);
        let Some(value) = self.get(&key)? else { return Ok(None) };
        Release::from_bytes(&value).map(|release| Some(release.at)).ok_or_else(|| malformed(&key))
    }

    fn released(&self, span: Span) -> impl Iterator<Item = Result<allocate::Release, StoreError>> {
        self.range(keys::released(span.first), keys::released(span.last)).map(|entry| {
            let (key, value) = entry?;
            let address = keys::address_in(&key).ok_or_else(|| malformed(&key))?;
            let release = Release::from_bytes(&value).ok_or_else(|| malformed(&key))?;
            Ok(allocate::Release { at: release.at, address, pool: release.pool })
        })
    }

    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), StoreError>> {
        self.scan(&keys::queue(pool)).map(|entry| {
            let (key, _) = entry?;
            keys::release_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, StoreError> {
        let key = keys::cursor(pool);
        let Some(value) = self.get(&key)? else { return Ok(None) };
        keys::address_in(&value).map(Some).ok_or_else(|| StoreError::Damaged(Damage::Key(pool.0.clone())))
    }

    fn is_kept(&self, address: IpAddr) -> Result<bool, StoreError> {
        Ok(self.get(keys::kept(address))?.is_some())
    }

    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, StoreError>> {
        self.range(keys::kept_and_free(span.first), keys::kept_and_free(span.last)).map(|entry| {
            let (key, _) = entry?;
            keys::address_in(&key).ok_or_else(|| malformed(&key))
        })
    }

    fn is_used_up(&self, pool: &Pool) -> Result<bool, StoreError> {
        Ok(self.used_up(pool)?.is_some())
    }
}
