//! An address from a pool, or a refusal that explains the pool.

use std::net::IpAddr;

use crate::Error;
use crate::allocate::{Choice, Cooling, Occupancy as _, allocate};
use crate::event::EventKind;
use crate::ledger::{Failure, Session};
use crate::liveness::Census;
use crate::operation::Terms;
use crate::pool::{Pool, PoolKey};
use crate::record::Record;
use crate::refusal::{Claim, Exhausted};
use crate::reservations::{self, Reservation};
use crate::span::Span;
use crate::sticky::Sticky;
use crate::store::{Change, Ended};

/// How young a lease must not be to be taken for dead, in milliseconds: its ADD may still be under way.
const GRACE: u64 = 60_000;

/// What the choice of addresses depends on.
pub(crate) struct Choosing<'a> {
    session: &'a Session<'a>,
    terms: &'a Terms,
    reserved: Vec<Reservation>,
    cooling: Cooling,
}

impl<'a> Choosing<'a> {
    pub fn of(session: &'a Session<'a>, terms: &'a Terms) -> Result<Self, Failure> {
        let reserved = reservations::read(session.state_dir, session.now.wall)?;
        let cooling = Cooling { now: session.now.boottime, period: terms.cooldown, strict: terms.strict };
        Ok(Self { session, terms, reserved, cooling })
    }

    /// The address that a pod had before, if the pool gives it and nobody has it.
    pub fn had_before(&self, pool: &Pool, kept: Option<&Sticky>) -> Result<Option<IpAddr>, Failure> {
        for address in kept.iter().flat_map(|kept| &kept.addresses) {
            let is_free = self.session.store.holder(*address)?.is_none() && self.reservation(*address).is_none();
            if pool.gives(*address) && is_free {
                return Ok(Some(*address));
            }
        }
        Ok(None)
    }

    /// An address that was asked for.
    pub fn asked_for(&self, pool: &Pool, address: IpAddr) -> Result<Choice, Failure> {
        let store = self.session.store;
        let mut holder = store.holder(address)?;
        if holder.is_some() && self.reclaim(pool, Some(address))? > 0 {
            holder = store.holder(address)?;
        }
        if let Some(Record { attachment, pod, .. }) = holder {
            return Err(Error::Taken { address, holder: Box::new(Claim { attachment, pod }) }.into());
        }
        if let Some(Reservation { reason, .. }) = self.reservation(address) {
            return Err(Error::Reserved { address, reason: reason.clone() }.into());
        }
        let rests = store.released_at(address)?.map_or(0, |at| self.cooling.rest_of(at));
        if self.terms.strict && rests > 0 {
            return Err(Error::Cooling { address, seconds: rests.div_ceil(1000) }.into());
        }
        Ok(Choice::of(address))
    }

    /// The next address of the pool. If there is none, leases end whose pods are provably gone.
    pub fn next(&self, pool: &Pool) -> Result<Choice, Failure> {
        let lendable = self.lendable(pool);
        if let Some(choice) = allocate(&lendable, self.session.store, self.cooling)? {
            return Ok(choice);
        }
        // So the next one who asks need not search to be told.
        if !self.session.store.is_used_up(&lendable)? {
            let change = Change { used_up: vec![self.mark(pool)], ..Change::default() };
            self.session.commit(&change, EventKind::Reclaimed)?;
        }
        if self.reclaim(pool, None)? > 0
            && let Some(choice) = allocate(&lendable, self.session.store, self.cooling)?
        {
            return Ok(choice);
        }
        Err(Error::Exhausted(Box::new(self.explain(pool)?)).into())
    }

    /// What the ledger is to remember of a pool that is used up.
    pub fn mark(&self, pool: &Pool) -> (PoolKey, [u8; 16]) {
        (pool.key(), self.lendable(pool).fingerprint())
    }

    fn lendable(&self, pool: &Pool) -> Pool {
        let spans: Vec<Span> = self.reserved.iter().map(|reservation| Span::of(reservation.cidr)).collect();
        if spans.is_empty() { pool.clone() } else { pool.without(&spans) }
    }

    fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        self.reserved.iter().find(|reservation| reservation.cidr.contains(address))
    }

    /// Ends the leases of the pool's addresses, or of one of them, whose pods are provably gone. The addresses have
    /// rested: nobody has used them for long.
    fn reclaim(&self, pool: &Pool, only: Option<IpAddr>) -> Result<usize, Failure> {
        let holders = self.holders(pool, only)?;
        let mut census = Census::default();
        let old = |record: &Record| self.cooling.now.saturating_sub(record.created_boottime_ms) >= GRACE;
        let dead = holders.into_iter().filter(|record| old(record) && census.is_provably_dead(record));
        let ended: Vec<Ended> = dead.map(|record| Ended { record, released_at: 0 }).collect();
        let change = Change { ended, ..Change::default() };
        if !change.ended.is_empty() {
            self.session.commit(&change, EventKind::Reclaimed)?;
        }
        Ok(change.ended.len())
    }

    fn holders(&self, pool: &Pool, only: Option<IpAddr>) -> Result<Vec<Record>, Failure> {
        let store = self.session.store;
        if let Some(address) = only {
            return Ok(store.holder(address)?.into_iter().collect());
        }
        let mut holders = Vec::new();
        for address in pool.spans().iter().flat_map(|span| store.leased(*span)) {
            holders.extend(store.holder(address?)?);
        }
        Ok(holders)
    }

    fn explain(&self, pool: &Pool) -> Result<Exhausted, Failure> {
        let store = self.session.store;
        let holders = self.holders(pool, None)?;
        let resting = pool.spans().iter().flat_map(|span| store.released(*span));
        let rests: Vec<u64> =
            resting.map(|rest| rest.map(|(at, _)| self.cooling.rest_of(at))).collect::<Result<_, _>>()?;
        let suspects = holders.iter().filter(|record| record.netns.as_ref().is_some_and(crate::Netns::is_gone));
        Ok(Exhausted {
            pool: pool.to_string(),
            capacity: pool.capacity(),
            leased: holders.len(),
            held_by_others: holders.iter().filter(|record| record.attachment.network != self.terms.network).count(),
            cooling: rests.len(),
            next_free_seconds: rests.into_iter().min().map(|rest| rest.div_ceil(1000)),
            reserved: pool.capacity().saturating_sub(self.lendable(pool).capacity()),
            suspects: suspects.count(),
        })
    }
}
