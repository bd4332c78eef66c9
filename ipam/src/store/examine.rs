//! Whether leases and index tell the same story.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Store;
use super::error::{Damage, StoreError};
use crate::allocate::Occupancy;
use crate::record::Record;
use crate::span::Span;

impl Store {
    /// Fails for the first address that the index gives to another than its lease, to nobody, or to one that does not
    /// have it.
    pub fn compare_index(&self, leases: &[Record]) -> Result<(), StoreError> {
        for lease in leases {
            for address in lease.ips() {
                if self.holder(address)?.as_ref() != Some(lease) {
                    return Err(StoreError::Damaged(Damage::Index(address)));
                }
            }
        }
        let everything = [
            Span { first: Ipv4Addr::UNSPECIFIED.into(), last: Ipv4Addr::BROADCAST.into() },
            Span { first: Ipv6Addr::UNSPECIFIED.into(), last: Ipv6Addr::from(u128::MAX).into() },
        ];
        for address in everything.into_iter().flat_map(|span| self.leased(span)) {
            let address = address?;
            if !self.holder(address)?.is_some_and(|lease| lease.ips().any(|ip| ip == address)) {
                return Err(StoreError::Damaged(Damage::Index(address)));
            }
        }
        Ok(())
    }
}
