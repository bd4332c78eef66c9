//! A lease from the network's pools: one address from each, or nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use crate::allocate::Choice;
use crate::choosing::Choosing;
use crate::config::Config;
use crate::event::EventKind;
use crate::ledger::{Failure, Session};
use crate::operation::{KnownPool, Terms, Wish};
use crate::pool::Pool;
use crate::record::{Origin, Record, RecordedAddress};
use crate::sticky::{Sticky, StickyPod};
use crate::store::{Change, Ended, Store};
use crate::{Error, Lease, LeasedAddress};

/// Leases, or repeats an earlier answer.
pub(crate) fn lease(session: &Session<'_>, wish: &Wish) -> Result<Record, Failure> {
    let (store, terms) = (session.store, &wish.terms);
    if let Some(record) = store.lease(&wish.attachment)? {
        if is_the_same(&record, wish) {
            if record.origin != Origin::Recovered {
                return asked_again(session, wish, record);
            }
            let (adopted, change) = adoption(session, wish, record);
            session.commit(&change, EventKind::Replaced)?;
            return Ok(adopted);
        }
        // This ADD has waited for long: its container was deleted meanwhile, and is there again under the same name.
        if record.began_boottime_ms.is_some_and(|began| began > wish.began) {
            return Err(Error::Deleted { attachment: wish.attachment.clone() }.into());
        }
        // The container that had it is gone, or the pools are others now.
        let ended = vec![Ended { record, released_at: session.now.boottime }];
        session.commit(&Change { ended, ..Change::default() }, EventKind::Replaced)?;
    } else if store.tombstone(&wish.attachment)?.is_some_and(|deleted| deleted > wish.began) {
        return Err(Error::Deleted { attachment: wish.attachment.clone() }.into());
    }
    let choosing = Choosing::of(session, terms)?;
    let pod = StickyPod::of(&wish.attachment, &wish.pod).filter(|_| wish.sticky);
    let kept = pod.as_ref().map_or(Ok(None), |pod| store.sticky(pod))?;
    let mut change = Change { pools: newly_described(store, terms)?, ..Change::default() };
    let mut addresses = Vec::new();
    // Pools may be parts of one subnet, and each gives what is asked for from all of it.
    let mut taken: Vec<IpAddr> = wish.wanted.iter().flatten().copied().collect();
    for (pool, wanted) in terms.pools.iter().zip(&wish.wanted) {
        let choice = if let Some(address) = wanted {
            choosing.asked_for(pool, *address)?
        } else if let Some(address) = choosing.had_before(pool, kept.as_ref(), &taken)? {
            Choice::of(address)
        } else {
            choosing.next(pool, &taken)?
        };
        taken.push(choice.address);
        change.cursors.extend(choice.cursor.map(|cursor| (pool.key(), cursor)));
        change.used_up.extend(choice.used_up.then(|| choosing.mark(pool)));
        change.forgotten.extend(choice.forgotten);
        addresses.push(recorded(pool, choice.address));
    }
    change.sticky.extend(to_be_kept(pod, kept.as_ref(), &addresses, session.now.wall));
    let record = Record {
        lease_id: wish.lease_id.clone(),
        attachment: wish.attachment.clone(),
        addresses,
        netns: Some(wish.netns.clone()),
        pod: wish.pod.clone(),
        created: session.now.wall,
        created_boottime_ms: session.now.boottime,
        began_boottime_ms: Some(wish.began),
        boot_id: session.boot_id.to_owned(),
        origin: Origin::Add,
    };
    refuse_repeated(std::slice::from_ref(&record))?;
    change.begun.push(record.clone());
    session.commit(&change, EventKind::Replaced)?;
    Ok(record)
}

/// A lease that a later ADD is answered with, too, is meant by no release that is older than that ADD: the container has
/// left the network and joined it again, and the DEL in between may come late. Its namespace is where that ADD says: a
/// runtime may have mounted it elsewhere since, and of an imported lease nobody knew. For GC it counts from now on, as one
/// that is made now.
fn asked_again(session: &Session<'_>, wish: &Wish, record: Record) -> Result<Record, Failure> {
    if record.began() >= wish.began {
        return Ok(record);
    }
    let record = Record {
        netns: Some(wish.netns.clone()),
        created_boottime_ms: session.now.boottime,
        began_boottime_ms: Some(wish.began),
        ..record
    };
    session.commit(&Change { retold: vec![record.clone()], ..Change::default() }, EventKind::Replaced)?;
    Ok(record)
}

/// A recovered lease that an ADD is answered with is known from now on as any other, and no longer tied to its link,
/// which that ADD may make anew.
fn adoption(session: &Session<'_>, wish: &Wish, record: Record) -> (Record, Change) {
    let adopted = Record {
        netns: Some(wish.netns.clone()),
        pod: wish.pod.clone(),
        created: session.now.wall,
        created_boottime_ms: session.now.boottime,
        began_boottime_ms: Some(wish.began),
        origin: Origin::Add,
        ..record.clone()
    };
    let ended = vec![Ended { record, released_at: session.now.boottime }];
    (adopted.clone(), Change { ended, begun: vec![adopted], ..Change::default() })
}

/// No address stands twice in what begins at once: the ledger's index would take that for damage.
pub(crate) fn refuse_repeated(records: &[Record]) -> Result<(), Error> {
    let (mut held, mut holders) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        let repeated = record.ips().find(|address| !held.insert(*address));
        let address = repeated.or_else(|| record.ips().next().filter(|_| !holders.insert(&record.attachment)));
        if let Some(address) = address {
            return Err(Error::Repeated { attachment: record.attachment.clone(), address });
        }
    }
    Ok(())
}

/// Whether every pool has an address to give.
pub(crate) fn available(session: &Session<'_>, terms: &Terms) -> Result<(), Failure> {
    let choosing = Choosing::of(session, terms)?;
    terms.pools.iter().try_for_each(|pool| choosing.next(pool, &[]).map(drop))
}

/// The pod's addresses as they are to be remembered, if they are not remembered so already.
fn to_be_kept(
    pod: Option<StickyPod>,
    kept: Option<&Sticky>,
    addresses: &[RecordedAddress],
    now: Timestamp,
) -> Option<Sticky> {
    let addresses = addresses.iter().map(|recorded| recorded.address.ip()).collect();
    let new = Sticky { pod: pod?, addresses, seen: Some(now) };
    (!kept.is_some_and(|kept| new.is_told_by(kept))).then_some(new)
}

/// Whether a lease that stands already is what this request would get: for the same container (a recovered lease
/// does not know its namespace), one address from each pool, and those that are asked for.
fn is_the_same(record: &Record, wish: &Wish) -> bool {
    let pools = &wish.terms.pools;
    let same_container = record.netns.as_ref().is_none_or(|known| known.is_same_as(&wish.netns));
    let fits = |(pool, wanted): (&Pool, &Option<IpAddr>)| {
        held_from(record, pool).is_some_and(|held| wanted.is_none_or(|wanted| wanted == held))
    };
    same_container && record.addresses.len() == pools.len() && pools.iter().zip(&wish.wanted).all(fits)
}

/// The address of a lease that is from a pool. One that was asked for may be from the rest of the pool's subnet, which
/// may be another pool's too: the record tells.
fn held_from(record: &Record, pool: &Pool) -> Option<IpAddr> {
    let name = pool.key().0;
    let of_pool = record.addresses.iter().find(|held| held.pool == name && pool.gives(held.address.ip()));
    let address = of_pool.map(|held| held.address.ip());
    address.or_else(|| record.ips().find(|ip| pool.leases(*ip)))
}

/// The pools that the ledger knows otherwise, or not yet.
fn newly_described(store: &Store, terms: &Terms) -> Result<Vec<KnownPool>, Failure> {
    let mut changed = Vec::new();
    for pool in &terms.pools {
        let (network, name) = (terms.network.clone(), pool.key().0);
        let known = store.known_pool(&network, &name)?;
        let described =
            KnownPool { network, name, pool: pool.clone(), cooldown_ms: terms.cooldown, strict: terms.strict };
        if known.as_ref() != Some(&described) {
            changed.push(described);
        }
    }
    Ok(changed)
}

fn recorded(pool: &Pool, address: IpAddr) -> RecordedAddress {
    let leased = leased(pool, address);
    RecordedAddress { address: leased.address, gateway: leased.gateway, pool: pool.key().0 }
}

/// The address as the pool presents it.
fn leased(pool: &Pool, address: IpAddr) -> LeasedAddress {
    let range = pool.range_of(address);
    let full = IpNetwork::from(address);
    let network = range.and_then(|range| IpNetwork::new(address, range.subnet.prefix()).ok());
    LeasedAddress { address: network.unwrap_or(full), gateway: range.and_then(|range| range.gateway) }
}

/// Prefix lengths, gateways, routes and resolver settings are the config's, also for an older lease.
pub(crate) fn answer(config: &Config, terms: &Terms, record: &Record, fresh: bool) -> Lease {
    let of_pool = |pool: &Pool| held_from(record, pool).map(|ip| leased(pool, ip));
    Lease {
        attachment: record.attachment.clone(),
        addresses: terms.pools.iter().filter_map(of_pool).collect(),
        routes: config.routes.clone(),
        dns: config.dns.clone(),
        lease_id: record.lease_id.clone(),
        fresh,
    }
}
