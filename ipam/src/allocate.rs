//! Which address comes next. Pure: it knows no file, no process, no kernel and no ledger engine.
//!
//! The truth is the set of leased addresses. Beside it the ledger keeps two hints, so that neither a /16 that
//! is nearly full nor a /64 has to be searched: where the last search ended (the cursor), which addresses
//! came back when (the releases), and whether there are no others (used up). Losing a hint costs a walk over the
//! leased addresses, never an address.
//!
//! Releases are remembered under the pool that the address was leased from. Pools may overlap, and a config's ranges
//! change, so a pool's addresses may be remembered under another's name. Only a search over all addresses finds those,
//! so as long as there are any, the pool does not count as used up.

use std::net::IpAddr;

use crate::pool::{Pool, PoolKey};
use crate::span::{self, Span};

/// A pool of up to so many addresses remembers all its releases, and reuses addresses in exactly their order.
/// A larger one forgets those that have cooled down: it comes round to them after all others.
const REMEMBERED: u128 = 4096;

/// How many addresses a search may pass over, before it leaves the rest to the next and takes an address that
/// is known to be free: so the fullest pool costs hardly more than an empty one.
const PATIENCE: usize = 64;

/// A release that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// In milliseconds of `CLOCK_BOOTTIME`.
    pub at: u64,
    pub address: IpAddr,
    /// What the address was leased from.
    pub pool: PoolKey,
}

/// What is known about the addresses: the ledger, or a model of it.
pub(crate) trait Occupancy {
    /// Why the ledger could not be read.
    type Error;

    /// The leased addresses of a span, ascending. Leases of all networks count: they share the node.
    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Self::Error>>;

    /// When a free address was released last, in milliseconds of `CLOCK_BOOTTIME`, if that is remembered.
    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, Self::Error>;

    /// The remembered releases of a span, in any order, whatever pool they are remembered under.
    fn released(&self, span: Span) -> impl Iterator<Item = Result<Release, Self::Error>>;

    /// The releases that are remembered under a pool's name, oldest first, but for kept addresses.
    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), Self::Error>>;

    /// The address at which the last search ended.
    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, Self::Error>;

    /// Whether the address is kept for a pod that may come back.
    fn is_kept(&self, address: IpAddr) -> Result<bool, Self::Error>;

    /// The kept addresses of a span that are not leased, ascending.
    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Self::Error>>;

    /// Whether a search has shown that the pool, as it is now, has no address but leased and kept ones, and those
    /// that are remembered under its own name.
    fn is_used_up(&self, pool: &Pool) -> Result<bool, Self::Error>;
}

/// The clock, and how long a released address rests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cooling {
    /// `CLOCK_BOOTTIME` in milliseconds: it neither jumps nor stops while the machine sleeps.
    pub now: u64,
    /// In milliseconds; 0 for none.
    pub period: u64,
    /// Whether an address that rests is not given even if there is no other.
    pub strict: bool,
}

impl Cooling {
    fn is_over(self, released_at: u64) -> bool {
        self.rest_of(released_at) == 0
    }

    /// How long an address must still rest that was released at a moment, in milliseconds.
    pub fn rest_of(self, released_at: u64) -> u64 {
        self.period.saturating_sub(self.now.saturating_sub(released_at))
    }
}

/// An address to lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub address: IpAddr,
    /// Where the pool's cursor is to be set.
    pub cursor: Option<IpAddr>,
    /// Releases that need not be remembered any longer.
    pub forgotten: Vec<IpAddr>,
    /// Whether a search has just shown that the pool is used up: see [`Occupancy::is_used_up`].
    pub used_up: bool,
}

/// What came of looking for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allocation {
    Of(Choice),
    /// All are leased, or must rest.
    Nothing {
        /// As [`Choice::used_up`].
        used_up: bool,
    },
}

impl Choice {
    /// An address that somebody asked for.
    pub fn of(address: IpAddr) -> Self {
        Self { address, cursor: None, forgotten: Vec::new(), used_up: false }
    }
}

/// The address of the pool that nobody had, or that nobody has had for the longest time. An address that is
/// cooling down is given only when there is no other, the oldest first, and then one that is kept for somebody.
pub(crate) fn allocate<O: Occupancy>(pool: &Pool, occupancy: &O, cooling: Cooling) -> Result<Allocation, O::Error> {
    let used_up = occupancy.is_used_up(pool)?;
    let mut cursor = None;
    if !used_up {
        let ahead = spans_after(pool, occupancy.cursor(&pool.key())?);
        match search(&ahead, occupancy, |released| released.is_none(), PATIENCE)? {
            Search::Found(address) => {
                let forgotten = forgettable(pool, occupancy, cooling)?;
                return Ok(Allocation::Of(Choice { cursor: Some(address), forgotten, ..Choice::of(address) }));
            }
            Search::Tired(at) => cursor = Some(at),
            Search::Nothing => {}
        }
    }
    let oldest = least_recently_released(pool, occupancy)?;
    if let Some((_, address)) = oldest.filter(|(at, _)| cooling.is_over(*at)) {
        return Ok(Allocation::Of(Choice { cursor, ..Choice::of(address) }));
    }
    if used_up {
        return last_resort(pool, occupancy, cooling, oldest, false);
    }
    // Neither hint helps: the pool is full, or the releases are forgotten, or remembered under another name. What the
    // first search has passed over comes last, or each allocation would pass over it again.
    let rested = |released: Option<u64>| released.is_none_or(|at| cooling.is_over(at));
    if let Search::Found(address) = search(&spans_after(pool, cursor), occupancy, rested, usize::MAX)? {
        return Ok(Allocation::Of(Choice { cursor: Some(address), ..Choice::of(address) }));
    }
    let Resting { oldest, all_are_own } = resting(pool, occupancy)?;
    last_resort(pool, occupancy, cooling, oldest, all_are_own)
}

/// What is given when nothing has rested: what cools down for the longest, then what is kept for somebody.
fn last_resort<O: Occupancy>(
    pool: &Pool,
    occupancy: &O,
    cooling: Cooling,
    oldest: Option<(u64, IpAddr)>,
    used_up: bool,
) -> Result<Allocation, O::Error> {
    let of = |address| Allocation::Of(Choice { used_up, ..Choice::of(address) });
    if let Some((_, address)) = oldest.filter(|_| !cooling.strict) {
        return Ok(of(address));
    }
    for address in pool.spans().iter().flat_map(|span| occupancy.kept(*span)) {
        let address = address?;
        if !cooling.strict || occupancy.released_at(address)?.is_none_or(|at| cooling.is_over(at)) {
            return Ok(of(address));
        }
    }
    Ok(Allocation::Nothing { used_up })
}

/// The pool's spans from the cursor on and round to it again: the cursor itself comes last.
fn spans_after(pool: &Pool, cursor: Option<IpAddr>) -> Vec<Span> {
    let spans = pool.spans();
    let place = cursor.and_then(|cursor| Some((cursor, spans.iter().position(|span| span.contains(cursor))?)));
    let Some((cursor, index)) = place else { return spans.to_vec() };
    let (before, from) = spans.split_at(index);
    let Some((here, after)) = from.split_first() else { return spans.to_vec() };
    let rest = span::next(cursor).filter(|first| here.contains(*first)).map(|first| Span { first, ..*here });
    let again = Span { last: cursor, ..*here };
    rest.into_iter().chain(after.iter().copied()).chain(before.iter().copied()).chain([again]).collect()
}

/// How a walk over addresses ended.
enum Search {
    /// At an address that is free.
    Found(IpAddr),
    /// At an address that is not, after too many.
    Tired(IpAddr),
    /// At the end of the last span.
    Nothing,
}

/// The first address that is not leased and whose last release is acceptable. It passes over leased and
/// unacceptable addresses one by one, but never looks at the free ones behind the first.
fn search<O: Occupancy>(
    spans: &[Span],
    occupancy: &O,
    acceptable: impl Fn(Option<u64>) -> bool,
    mut patience: usize,
) -> Result<Search, O::Error> {
    for span in spans {
        let mut leased = occupancy.leased(*span);
        let mut next_leased = leased.next().transpose()?;
        let mut candidate = Some(span.first);
        while let Some(address) = candidate {
            if next_leased == Some(address) {
                next_leased = leased.next().transpose()?;
            } else if acceptable(occupancy.released_at(address)?) && !occupancy.is_kept(address)? {
                return Ok(Search::Found(address));
            }
            patience = patience.saturating_sub(1);
            if patience == 0 {
                return Ok(Search::Tired(address));
            }
            candidate = span::next(address).filter(|next| span.contains(*next));
        }
    }
    Ok(Search::Nothing)
}

/// The oldest release that is remembered under the pool's name, and its moment.
fn least_recently_released<O: Occupancy>(pool: &Pool, occupancy: &O) -> Result<Option<(u64, IpAddr)>, O::Error> {
    for release in occupancy.oldest_released(&pool.key()) {
        let (at, address) = release?;
        if pool.leases(address) {
            return Ok(Some((at, address)));
        }
    }
    Ok(None)
}

/// What is remembered of a pool's addresses, under whatever name.
struct Resting {
    oldest: Option<(u64, IpAddr)>,
    /// Whether all of it is under the pool's own name.
    all_are_own: bool,
}

fn resting<O: Occupancy>(pool: &Pool, occupancy: &O) -> Result<Resting, O::Error> {
    let own = pool.key();
    let mut resting = Resting { oldest: None, all_are_own: true };
    for release in pool.spans().iter().flat_map(|span| occupancy.released(*span)) {
        let Release { at, address, pool } = release?;
        if occupancy.is_kept(address)? {
            continue;
        }
        resting.all_are_own &= pool == own;
        if resting.oldest.is_none_or(|oldest| (at, address) < oldest) {
            resting.oldest = Some((at, address));
        }
    }
    Ok(resting)
}

/// Releases that a large pool need not remember any longer: a few at a time, so that no call pays for many.
fn forgettable<O: Occupancy>(pool: &Pool, occupancy: &O, cooling: Cooling) -> Result<Vec<IpAddr>, O::Error> {
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

#[cfg(test)]
pub(crate) mod tests;
