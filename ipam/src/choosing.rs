//! An address from a pool, or a refusal that explains the pool.

use std::net::IpAddr;

use crate::Error;
use crate::allocate::{Allocation, Choice, Cooling, Occupancy as _, allocate};
use crate::event::EventKind;
use crate::ledger::{Failure, Session};
use crate::operation::Terms;
use crate::pool::Pool;
use crate::record::Record;
use crate::refusal::{Claim, Exhausted};
use crate::reservations::{self, Reservation};
use crate::span::Span;
use crate::sticky::Sticky;
use crate::store::{Change, Ended, Looked, UsedUp};

/// How young a lease must not be to be taken for dead, in milliseconds: its ADD may still be under way.
const GRACE: u64 = 60_000;

/// How often all leases of a pool with many of them are looked at, at the most, in milliseconds: runtimes that are
/// refused ask again at once, and each look keeps all others waiting.
const LOOK_AGAIN: u64 = 10_000;

/// How many leases are looked at whenever somebody is refused.
const FEW: usize = 1024;

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

    /// An address that a pod had before, if the pool gives it and nobody has it: rather one that the pool gives to
    /// anybody. `taken` are those of its other pools.
    pub fn had_before(&self, pool: &Pool, kept: Option<&Sticky>, taken: &[IpAddr]) -> Result<Option<IpAddr>, Failure> {
        let mut second_best = None;
        for address in kept.iter().flat_map(|kept| &kept.addresses).copied() {
            let is_free = self.session.store.holder(address)?.is_none() && self.reservation(address).is_none();
            if !is_free || taken.contains(&address) || !pool.gives(address) {
                continue;
            }
            if pool.leases(address) {
                return Ok(Some(address));
            }
            second_best.get_or_insert(address);
        }
        Ok(second_best)
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

    /// The next address of the pool, but none of those `taken` by the same lease. If there is none, leases end whose
    /// pods are provably gone.
    pub fn next(&self, pool: &Pool, taken: &[IpAddr]) -> Result<Choice, Failure> {
        let store = self.session.store;
        let lendable = self.lendable(pool, taken);
        let newly_used_up = match allocate(&lendable, store, self.cooling)? {
            Allocation::Of(choice) => return Ok(choice),
            Allocation::Nothing { used_up } => used_up,
        };
        let mark = store.used_up(&lendable)?;
        let recent = mark.as_ref().and_then(|mark| mark.looked.as_ref()).filter(|looked| self.is_recent(looked));
        if let Some(looked) = recent {
            // What rests may be others by now, and are few: were they not strict's, they would be given.
            let (cooling, next_free_at) = self.resting(pool)?;
            let leased = looked.leased.saturating_sub(cooling.saturating_sub(looked.cooling));
            let looked = Looked { leased, cooling, next_free_at, ..looked.clone() };
            return Err(Error::Exhausted(Box::new(self.explain(pool, &looked))).into());
        }
        if self.reclaim(pool, None)? > 0
            && let Allocation::Of(choice) = allocate(&lendable, store, self.cooling)?
        {
            return Ok(choice);
        }
        let looked = self.look(pool)?;
        let explained = self.explain(pool, &looked);
        if newly_used_up || mark.is_some() {
            // So the next one who asks need not search to be told.
            let mark = UsedUp { looked: Some(looked), ..mark_of(&lendable) };
            self.session.commit(&Change { used_up: vec![mark], ..Change::default() }, EventKind::Reclaimed)?;
        }
        Err(Error::Exhausted(Box::new(explained)).into())
    }

    /// What the ledger is to remember of a pool that is used up.
    pub fn mark(&self, pool: &Pool) -> UsedUp {
        mark_of(&self.lendable(pool, &[]))
    }

    fn lendable(&self, pool: &Pool, taken: &[IpAddr]) -> Pool {
        let reserved = self.reserved.iter().map(|reservation| Span::of(reservation.cidr));
        let taken = taken.iter().map(|address| Span { first: *address, last: *address });
        let out: Vec<Span> = reserved.chain(taken).collect();
        if out.is_empty() { pool.clone() } else { pool.without(&out) }
    }

    /// Whether a look at all leases may stand for another one. A few are looked at each time.
    fn is_recent(&self, looked: &Looked) -> bool {
        looked.leased > FEW && self.cooling.now.saturating_sub(looked.at) < LOOK_AGAIN
    }

    fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        self.reserved.iter().find(|reservation| reservation.cidr.contains(address))
    }

    /// Ends the leases of the pool's addresses, or of one of them, whose pods are provably gone, or whose link is that
    /// they were read off. Addresses of the former have rested: nobody has used them for long. A link may have gone just
    /// now, as a DEL takes it away before it ends the lease.
    fn reclaim(&self, pool: &Pool, only: Option<IpAddr>) -> Result<usize, Failure> {
        let holders = self.holders(pool, only)?;
        let mut census = self.session.census();
        let old = |record: &Record| self.cooling.now.saturating_sub(record.created_boottime_ms) >= GRACE;
        let mut ended = Vec::new();
        for record in holders {
            if old(&record) && census.is_provably_dead(&record) {
                ended.push(Ended { record, released_at: 0 });
            } else if census.has_lost_its_link(&record) {
                ended.push(Ended { record, released_at: self.session.now.boottime });
            }
        }
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

    fn look(&self, pool: &Pool) -> Result<Looked, Failure> {
        let holders = self.holders(pool, None)?;
        let network = &self.terms.network;
        let (cooling, next_free_at) = self.resting(pool)?;
        let census = self.session.census();
        let suspects = holders.iter().filter(|record| census.is_not_where_it_was(record));
        Ok(Looked {
            at: self.cooling.now,
            network: network.clone(),
            leased: holders.len(),
            held_by_others: holders.iter().filter(|record| record.attachment.network != *network).count(),
            suspects: suspects.count(),
            cooling,
            next_free_at,
        })
    }

    /// How many addresses of the pool rest, and when the first of them has rested.
    fn resting(&self, pool: &Pool) -> Result<(usize, Option<u64>), Failure> {
        let resting = pool.spans().iter().flat_map(|span| self.session.store.released(*span));
        let until = resting.map(|release| release.map(|release| release.at.saturating_add(self.cooling.period)));
        let until = until.collect::<Result<Vec<u64>, _>>()?;
        Ok((until.len(), until.into_iter().min()))
    }

    fn explain(&self, pool: &Pool, looked: &Looked) -> Exhausted {
        let rest = looked.next_free_at.map(|at| at.saturating_sub(self.cooling.now));
        Exhausted {
            pool: pool.to_string(),
            capacity: pool.capacity(),
            leased: looked.leased,
            held_by_others: if looked.network == self.terms.network { looked.held_by_others } else { 0 },
            cooling: looked.cooling,
            next_free_seconds: rest.map(|rest| rest.div_ceil(1000)),
            reserved: pool.capacity().saturating_sub(self.lendable(pool, &[]).capacity()),
            suspects: looked.suspects,
        }
    }
}

fn mark_of(lendable: &Pool) -> UsedUp {
    UsedUp { pool: lendable.key(), spans: lendable.spans().to_vec(), looked: None }
}
