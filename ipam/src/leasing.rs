//! A lease from the config's pools: one address from each, or nothing.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::allocate::{Choice, Cooling, Occupancy as _, allocate};
use crate::clock::{self, Moment};
use crate::config::Config;
use crate::ledger::{Failure, Session};
use crate::pool::Pool;
use crate::record::{Origin, Pod, Record, RecordedAddress};
use crate::refusal::{Claim, Exhausted};
use crate::store::{Change, Ended, Store};
use crate::{Error, Lease, LeaseId, LeaseRequest, LeasedAddress};

/// Leases, or repeats an earlier answer. `began` is when the request reached this process.
pub(crate) fn lease(
    session: &Session<'_>,
    config: &Config,
    request: &LeaseRequest,
    began: Moment,
) -> Result<Lease, Failure> {
    let requested = config.requested(&request.args)?;
    let store = session.store;
    if let Some(record) = store.lease(&request.attachment)? {
        if is_the_same(&record, config, request, &requested) {
            let lease = answer(config, &record, false);
            if record.origin == Origin::Recovered {
                session.commit(&adoption(session, request, record))?;
            }
            return Ok(lease);
        }
        // The container that had it is gone, or the pools are others now.
        let ended = vec![Ended { record, released_at: session.now.boottime }];
        session.commit(&Change { ended, ..Change::default() })?;
    } else if store.tombstone(&request.attachment)?.is_some_and(|deleted| deleted > began.boottime) {
        return Err(Error::Deleted { attachment: request.attachment.clone() }.into());
    }
    let mut change = Change::default();
    let mut addresses = Vec::new();
    for (pool, wanted) in config.pools.iter().zip(requested) {
        let choice = choose(session, config, pool, wanted)?;
        change.cursors.extend(choice.cursor.map(|cursor| (pool.key(), cursor)));
        change.forgotten.extend(choice.forgotten);
        addresses.push(recorded(pool, choice.address));
    }
    let record = Record {
        lease_id: LeaseId(clock::unique_name()?),
        attachment: request.attachment.clone(),
        addresses,
        netns: Some(request.netns.clone()),
        pod: Pod::from_args(&request.args),
        created: session.now.wall,
        created_boottime_ms: session.now.boottime,
        boot_id: session.boot_id.to_owned(),
        origin: Origin::Add,
    };
    let lease = answer(config, &record, true);
    change.begun.push(record);
    session.commit(&change)?;
    Ok(lease)
}

/// A recovered lease that an ADD is answered with is known from now on as any other, and no longer tied to its link,
/// which that ADD may make anew.
fn adoption(session: &Session<'_>, request: &LeaseRequest, record: Record) -> Change {
    let adopted = Record {
        netns: Some(request.netns.clone()),
        pod: Pod::from_args(&request.args),
        created: session.now.wall,
        created_boottime_ms: session.now.boottime,
        origin: Origin::Add,
        ..record.clone()
    };
    let ended = vec![Ended { record, released_at: session.now.boottime }];
    Change { ended, begun: vec![adopted], ..Change::default() }
}

/// Whether every pool has an address to give.
pub(crate) fn available(session: &Session<'_>, config: &Config) -> Result<(), Failure> {
    config.pools.iter().try_for_each(|pool| choose(session, config, pool, None).map(drop))
}

/// Whether a lease that stands already is what this request would get: for the same container (a recovered lease
/// does not know its namespace), one address from each pool, and those that are asked for.
fn is_the_same(record: &Record, config: &Config, request: &LeaseRequest, requested: &[Option<IpAddr>]) -> bool {
    let same_container = record.netns.as_ref().is_none_or(|known| known.is_same_as(&request.netns));
    let fits = |((pool, wanted), held): ((&Pool, &Option<IpAddr>), IpAddr)| {
        pool.leases(held) && wanted.is_none_or(|wanted| wanted == held)
    };
    let held: Vec<IpAddr> = config.pools.iter().filter_map(|pool| record.ips().find(|ip| pool.leases(*ip))).collect();
    same_container
        && record.addresses.len() == config.pools.len()
        && held.len() == config.pools.len()
        && config.pools.iter().zip(requested).zip(held).all(fits)
}

fn choose(session: &Session<'_>, config: &Config, pool: &Pool, wanted: Option<IpAddr>) -> Result<Choice, Failure> {
    let store = session.store;
    if let Some(address) = wanted {
        return match store.holder(address)? {
            None => Ok(Choice::of(address)),
            Some(Record { attachment, pod, .. }) => {
                Err(Error::Taken { address, holder: Box::new(Claim { attachment, pod }) }.into())
            }
        };
    }
    match allocate(pool, store, cooling(session, config))? {
        Some(choice) => Ok(choice),
        None => Err(Error::Exhausted(exhausted(store, config, pool)?).into()),
    }
}

fn cooling(session: &Session<'_>, config: &Config) -> Cooling {
    let period = u64::try_from(config.cooldown.as_millis()).unwrap_or(u64::MAX);
    Cooling { now: session.now.boottime, period }
}

fn exhausted(store: &Store, config: &Config, pool: &Pool) -> Result<Exhausted, Failure> {
    let mut own = 0;
    for record in store.leases_of(&config.network) {
        own += record?.ips().filter(|ip| pool.leases(*ip)).count();
    }
    let mut all: usize = 0;
    for address in pool.spans().iter().flat_map(|span| store.leased(*span)) {
        address?;
        all += 1;
    }
    Ok(Exhausted { pool: pool.to_string(), capacity: pool.capacity(), held_by_others: all.saturating_sub(own) })
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
fn answer(config: &Config, record: &Record, fresh: bool) -> Lease {
    let of_pool = |pool: &Pool| record.ips().find(|ip| pool.leases(*ip)).map(|ip| leased(pool, ip));
    Lease {
        attachment: record.attachment.clone(),
        addresses: config.pools.iter().filter_map(of_pool).collect(),
        routes: config.routes.clone(),
        dns: config.dns.clone(),
        lease_id: record.lease_id.clone(),
        fresh,
    }
}
