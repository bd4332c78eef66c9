//! Which address comes next. Pure: it knows no file, no process, no kernel and no ledger engine.
//!
//! The truth is the set of leased addresses. Beside it the ledger keeps two hints, so that neither a /16 that
//! is nearly full nor a /64 has to be searched: how far the pool has been handed out for the first time (the
//! cursor), and which addresses came back when (the releases). Losing a hint costs a walk over the leased
//! addresses, never an address.

use std::net::IpAddr;

use crate::pool::{Pool, PoolKey};
use crate::span::{self, Span};

/// A larger pool forgets releases that have cooled down: it is not reused before it was handed out whole, and
/// remembering every address of a /64 would be without end.
pub(crate) const REMEMBERED: u128 = 1 << 16;

/// What is known about the addresses: the ledger, or a model of it.
pub(crate) trait Occupancy {
    /// Why the ledger could not be read.
    type Error;

    /// The leased addresses of a span, ascending. Leases of all networks count: they share the node.
    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Self::Error>>;

    /// When a free address was released last, in milliseconds of `CLOCK_BOOTTIME`, if that is remembered.
    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, Self::Error>;

    /// The remembered releases of a span, in any order.
    fn released(&self, span: Span) -> impl Iterator<Item = Result<(u64, IpAddr), Self::Error>>;

    /// The remembered releases of a pool, oldest first.
    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), Self::Error>>;

    /// The address that was handed out last as one never used before.
    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, Self::Error>;
}

/// The clock and the rest that a released address is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cooling {
    /// `CLOCK_BOOTTIME` in milliseconds: it neither jumps nor stops while the machine sleeps.
    pub now: u64,
    /// In milliseconds; 0 for none.
    pub period: u64,
}

impl Cooling {
    fn is_over(self, released_at: u64) -> bool {
        self.now.saturating_sub(released_at) >= self.period
    }
}

/// An address to lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub address: IpAddr,
    /// The pool's cursor is to be set to the address.
    pub moves_cursor: bool,
}

/// The address of the pool that nobody had, or that nobody has had for the longest time. An address that is
/// cooling down is given only when there is no other, the oldest first. None if all are leased.
pub(crate) fn allocate<O: Occupancy>(pool: &Pool, occupancy: &O, cooling: Cooling) -> Result<Option<Choice>, O::Error> {
    if let Some(address) = never_used(pool, occupancy)? {
        return Ok(Some(Choice { address, moves_cursor: true }));
    }
    if let Some(address) = least_recently_released(pool, occupancy, cooling)? {
        return Ok(Some(Choice { address, moves_cursor: false }));
    }
    if let Some(address) = overlooked(pool, occupancy, cooling)? {
        return Ok(Some(Choice { address, moves_cursor: true }));
    }
    let address = oldest_cooling(pool, occupancy)?;
    Ok(address.map(|address| Choice { address, moves_cursor: false }))
}

/// Releases that a large pool need not remember any longer: a few at a time, so that no call pays for many.
pub(crate) fn forgettable<O: Occupancy>(pool: &Pool, occupancy: &O, cooling: Cooling) -> Result<Vec<IpAddr>, O::Error> {
    const AT_A_TIME: usize = 4;
    if pool.capacity() <= REMEMBERED {
        return Ok(Vec::new());
    }
    occupancy
        .oldest_released(&pool.key())
        .take(AT_A_TIME)
        .take_while(|release| release.as_ref().map_or(true, |(at, _)| cooling.is_over(*at)))
        .map(|release| release.map(|(_, address)| address))
        .collect()
}

/// The first address after the cursor that is neither leased nor among the releases.
fn never_used<O: Occupancy>(pool: &Pool, occupancy: &O) -> Result<Option<IpAddr>, O::Error> {
    let cursor = occupancy.cursor(&pool.key())?.filter(|cursor| pool.leases(*cursor));
    let ahead = pool.spans().iter().skip_while(|span| cursor.is_some_and(|cursor| !span.contains(cursor)));
    for (index, span) in ahead.enumerate() {
        let first = match cursor {
            Some(cursor) if index == 0 => span::next(cursor).filter(|first| span.contains(*first)),
            _ => Some(span.first),
        };
        let Some(first) = first else { continue };
        let found = first_gap(Span { first, ..*span }, occupancy, |released| released.is_none())?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn least_recently_released<O: Occupancy>(
    pool: &Pool,
    occupancy: &O,
    cooling: Cooling,
) -> Result<Option<IpAddr>, O::Error> {
    for release in occupancy.oldest_released(&pool.key()) {
        let (at, address) = release?;
        if !cooling.is_over(at) {
            return Ok(None);
        }
        if pool.leases(address) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Any address that is free and not cooling down, wherever it is: for what the hints do not know, because the
/// config changed or a lease was undone.
fn overlooked<O: Occupancy>(pool: &Pool, occupancy: &O, cooling: Cooling) -> Result<Option<IpAddr>, O::Error> {
    for span in pool.spans() {
        let found = first_gap(*span, occupancy, |released| released.is_none_or(|at| cooling.is_over(at)))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn oldest_cooling<O: Occupancy>(pool: &Pool, occupancy: &O) -> Result<Option<IpAddr>, O::Error> {
    let mut oldest: Option<(u64, IpAddr)> = None;
    for release in pool.spans().iter().flat_map(|span| occupancy.released(*span)) {
        let release = release?;
        oldest = Some(oldest.map_or(release, |oldest| oldest.min(release)));
    }
    Ok(oldest.map(|(_, address)| address))
}

/// The first address of the span that is not leased and whose last release is acceptable. It walks over the
/// leased addresses, not over the span.
fn first_gap<O: Occupancy>(
    span: Span,
    occupancy: &O,
    acceptable: impl Fn(Option<u64>) -> bool,
) -> Result<Option<IpAddr>, O::Error> {
    let mut leased = occupancy.leased(span).peekable();
    let mut candidate = Some(span.first).filter(|first| span.contains(*first));
    while let Some(address) = candidate {
        let is_leased = match leased.peek() {
            Some(Ok(next)) => *next == address,
            Some(Err(_)) | None => false,
        };
        if let Some(next) = leased.next_if(|next| is_leased || next.is_err()) {
            next?;
        } else if acceptable(occupancy.released_at(address)?) {
            return Ok(Some(address));
        }
        candidate = span::next(address).filter(|next| span.contains(*next));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
