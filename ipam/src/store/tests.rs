//! The database by itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;

use super::*;
use crate::LeaseId;
use crate::allocate::tests::Memory;
use crate::allocate::{Allocation, Choice, Cooling, Occupancy as _, allocate};
use crate::pool::{Pool, Range};
use crate::record::{Origin, Pod, RecordedAddress};

const BOOT_ID: &str = "this-boot";

fn record_of(container: &str, pool: &Pool, addresses: &[IpAddr]) -> Record {
    let recorded = |address: &IpAddr| RecordedAddress { address: (*address).into(), gateway: None, pool: pool.key().0 };
    Record {
        lease_id: LeaseId(format!("lease of {container}")),
        attachment: Attachment {
            network: "n".parse().unwrap(),
            container_id: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        },
        addresses: addresses.iter().map(recorded).collect(),
        netns: None,
        pod: Pod::default(),
        created: Timestamp::UNIX_EPOCH,
        created_boottime_ms: 1,
        began_boottime_ms: None,
        boot_id: BOOT_ID.to_owned(),
        origin: Origin::Add,
    }
}

fn begin(record: Record) -> Change {
    Change { begun: vec![record], ..Change::default() }
}

fn small_pool() -> Pool {
    Pool::new(vec![Range::whole("10.0.0.0/28".parse().unwrap())], &[])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn leases_of_another_boot_are_void() {
    let dir = tempfile::tempdir().unwrap();
    let pool = small_pool();
    let lease = record_of("c1", &pool, &[ip("10.0.0.2")]);
    let store = Store::create(dir.path(), "the-boot-before", 0).unwrap();
    store.commit(&begin(lease.clone())).unwrap();
    store.commit(&Change { cursors: vec![(pool.key(), ip("10.0.0.2"))], ..Change::default() }).unwrap();
    store.commit(&begin(record_of("c2", &pool, &[ip("10.0.0.3")]))).unwrap();
    store.commit(&Change { ended: vec![Ended { record: lease, released_at: 7 }], ..Change::default() }).unwrap();
    store.flush().unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.is_of_boot(BOOT_ID).unwrap(), store.leases().count()), (false, 1), "opening changes nothing");
    store.begin_boot(BOOT_ID).unwrap();
    assert_eq!(store.leases().count(), 0);
    assert_eq!(store.holder(ip("10.0.0.3")).unwrap(), None);
    assert_eq!((store.cursor(&pool.key()).unwrap(), store.released_at(ip("10.0.0.2")).unwrap()), (None, None));
    assert_eq!(store.oldest_released(&pool.key()).count(), 0);
    store.commit(&begin(record_of("c3", &pool, &[ip("10.0.0.3")]))).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.is_of_boot(BOOT_ID).unwrap(), store.leases().count()), (true, 1), "the boot was noted");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), BOOT_ID, 0).unwrap();
    store.commit(&begin(record_of("c1", &small_pool(), &[ip("10.0.0.2")]))).unwrap();
    store.db.insert(keys::SCHEMA, &(SCHEMA + 1).to_be_bytes()).unwrap();
    drop(store);
    let refused = Store::open(dir.path());
    assert!(matches!(refused, Err(StoreError::Newer { found: 2, known: 1 })), "{refused:?}");
    drop(refused);
    let db = open::open(dir.path()).unwrap();
    assert_eq!(db.scan_prefix(keys::LEASES).count(), 1);
    db.remove(keys::SCHEMA).unwrap();
    drop(db);
    let refused = Store::open(dir.path());
    assert!(matches!(refused, Err(StoreError::Damaged(Damage::NoSchema))), "{refused:?}");
}

#[test]
fn a_change_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), BOOT_ID, 0).unwrap(), small_pool());
    store.commit(&begin(record_of("c1", &pool, &[ip("10.0.0.2")]))).unwrap();
    let before: Vec<_> = store.db.iter().map(Result::unwrap).collect();
    let clash = store.commit(&begin(record_of("c2", &pool, &[ip("10.0.0.3"), ip("10.0.0.2")])));
    assert!(matches!(clash, Err(StoreError::Damaged(Damage::Index(taken))) if taken == ip("10.0.0.2")), "{clash:?}");
    assert_eq!(store.db.iter().map(Result::unwrap).collect::<Vec<_>>(), before);
}

#[test]
fn ending_a_lease_frees_no_address_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), BOOT_ID, 0).unwrap(), small_pool());
    let stale = record_of("c1", &pool, &[ip("10.0.0.2")]);
    store.commit(&begin(record_of("c2", &pool, &[ip("10.0.0.2")]))).unwrap();
    store.commit(&Change { ended: vec![Ended { record: stale, released_at: 5 }], ..Change::default() }).unwrap();
    assert_eq!(store.holder(ip("10.0.0.2")).unwrap().unwrap().attachment.container_id.as_str(), "c2");
    assert_eq!(store.released_at(ip("10.0.0.2")).unwrap(), None);
}

#[test]
fn changes_of_leases_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), BOOT_ID, 7).unwrap(), small_pool());
    let record = record_of("c1", &pool, &[ip("10.0.0.2")]);
    let tombstones = vec![(record.attachment.clone(), 10)];
    store.commit(&begin(record.clone())).unwrap();
    store.commit(&Change { tombstones, ..Change::default() }).unwrap();
    assert_eq!(store.generation().unwrap(), 8, "a tombstone is no lease");
    assert!(store.commit(&begin(record_of("c2", &pool, &[ip("10.0.0.2")]))).is_err());
    assert_eq!(store.generation().unwrap(), 8, "nothing has changed");
    store.commit(&Change { ended: vec![Ended { record, released_at: 5 }], ..Change::default() }).unwrap();
    assert_eq!(store.generation().unwrap(), 9);
}

#[test]
fn tombstones_are_found_and_levelled() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), BOOT_ID, 0).unwrap(), small_pool());
    let buried = |container: &str| record_of(container, &pool, &[]).attachment;
    let tombstones = vec![(buried("c1"), 10), (buried("c2"), 20), (buried("c3"), 30)];
    store.commit(&Change { tombstones, ..Change::default() }).unwrap();
    assert_eq!(store.tombstone(&buried("c2")).unwrap(), Some(20));
    let old = store.tombstones_before(20).unwrap();
    assert_eq!(old, [buried("c1")]);
    store.commit(&Change { levelled: old, ..Change::default() }).unwrap();
    store.commit(&begin(record_of("c3", &pool, &[ip("10.0.0.2")]))).unwrap();
    assert_eq!(store.tombstones_before(u64::MAX).unwrap(), [buried("c2")], "a lease ends its attachment's tombstone");
}

/// The one that each DEL removes for its age may be that of the attachment which it is about.
#[test]
fn a_new_tombstone_outlives_the_removal_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), BOOT_ID, 0).unwrap(), small_pool());
    let attachment = record_of("c1", &pool, &[]).attachment;
    let tombstones = vec![(attachment.clone(), 10)];
    store.commit(&Change { tombstones, ..Change::default() }).unwrap();
    let (tombstones, levelled) = (vec![(attachment.clone(), 20)], store.tombstones_before(15).unwrap());
    assert_eq!(levelled, std::slice::from_ref(&attachment));
    store.commit(&Change { tombstones, levelled, ..Change::default() }).unwrap();
    assert_eq!(store.tombstone(&attachment).unwrap(), Some(20));
    assert_eq!(store.tombstones_before(u64::MAX).unwrap(), [attachment], "nothing is left of the old one");
}

/// The model of the allocation's tests and the database answer alike, through a long life of two pools that overlap and
/// of pods whose addresses are kept.
#[test]
fn the_database_answers_as_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), BOOT_ID, 0).unwrap();
    let pools = [small_pool(), Pool::new(vec![Range::whole("10.0.0.0/29".parse().unwrap())], &[])];
    let mut memory = Memory::default();
    let mut cooling = Cooling { now: 1_000_000, period: 30_000, strict: false };
    let mut dice: u64 = 0x2545_f491_4f6c_dd1d;
    let mut below = |limit: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        usize::try_from(dice % limit).unwrap()
    };
    let mut marks = 0;
    for _ in 0..1200 {
        cooling.now += below(9_000) as u64;
        cooling.strict = below(8) == 0;
        let pool = &pools[below(2)];
        let held: Vec<IpAddr> = memory.leased.keys().copied().collect();
        match below(10) {
            0..6 => {
                let given = allocate(pool, &store, cooling).unwrap();
                let modelled = allocate(pool, &memory, cooling).unwrap_or_else(|never| match never {});
                assert_eq!(given, modelled);
                if let Allocation::Nothing { used_up: true } = given {
                    memory.mark(pool);
                    store.commit(&Change { used_up: vec![mark_of(pool)], ..Change::default() }).unwrap();
                }
                if let Allocation::Of(choice) = given {
                    memory.lease(pool, &choice);
                    let Choice { address, cursor, forgotten, used_up } = choice;
                    let begun = vec![record_of(&format!("c-{address}"), pool, &[address])];
                    let cursors = cursor.map(|cursor| (pool.key(), cursor)).into_iter().collect();
                    let used_up = used_up.then(|| mark_of(pool)).into_iter().collect();
                    store.commit(&Change { begun, cursors, forgotten, used_up, ..Change::default() }).unwrap();
                }
            }
            6 if !held.is_empty() => {
                let address = held[below(held.len() as u64)];
                keep(&store, &mut memory, sticky_pod(below(3)), address);
            }
            7.. if !held.is_empty() => {
                let address = held[below(held.len() as u64)];
                let record = store.holder(address).unwrap().unwrap();
                let ended = vec![Ended { record, released_at: cooling.now }];
                store.commit(&Change { ended, ..Change::default() }).unwrap();
                memory.release(address, cooling.now);
            }
            _ => {}
        }
        marks += pools.iter().filter(|pool| is_marked_as_modelled(&store, &memory, pool)).count();
    }
    assert!(marks > 20, "the pools were used up {marks} times");
    let whole = pools[0].ranges()[0].span;
    let leased: BTreeSet<IpAddr> = store.leased(whole).map(Result::unwrap).collect();
    assert_eq!(leased, memory.leased.keys().copied().collect());
    let kept: Vec<IpAddr> = store.kept(whole).map(Result::unwrap).collect();
    assert_eq!(kept, memory.kept(whole).map(|Ok(address)| address).collect::<Vec<_>>());
}

fn is_marked_as_modelled(store: &Store, memory: &Memory, pool: &Pool) -> bool {
    let marked = store.is_used_up(pool).unwrap();
    assert_eq!(marked, memory.is_used_up(pool).unwrap_or_else(|never| match never {}));
    let stored: Vec<(u64, IpAddr)> = store.oldest_released(&pool.key()).map(Result::unwrap).collect();
    let modelled: Vec<(u64, IpAddr)> = memory.oldest_released(&pool.key()).map(|Ok(release)| release).collect();
    assert_eq!(stored, modelled);
    marked
}

/// Somebody who gives a pod the address again, and none of those that it had before.
fn keep(store: &Store, memory: &mut Memory, pod: StickyPod, address: IpAddr) {
    let before = store.sticky(&pod).unwrap().map(|sticky| sticky.addresses).unwrap_or_default();
    before.into_iter().filter(|ip| *ip != address).for_each(|ip| memory.keep_no_more(ip));
    memory.keep(address);
    let sticky = vec![Sticky { pod, addresses: vec![address], seen: None }];
    store.commit(&Change { sticky, ..Change::default() }).unwrap();
}

fn mark_of(pool: &Pool) -> UsedUp {
    UsedUp { pool: pool.key(), spans: pool.spans().to_vec(), looked: None }
}

fn sticky_pod(number: usize) -> StickyPod {
    StickyPod {
        network: "n".parse().unwrap(),
        namespace: "shop".to_owned(),
        name: format!("db-{number}"),
        ifname: "eth0".parse().unwrap(),
    }
}

/// A boot ends the leases of kept addresses, and keeps them for their pods.
#[test]
fn kept_addresses_are_free_after_a_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pool) = (Store::create(dir.path(), "the-boot-before", 0).unwrap(), small_pool());
    let sticky = vec![Sticky { pod: sticky_pod(0), addresses: vec![ip("10.0.0.2")], seen: None }];
    let begun = vec![record_of("c1", &pool, &[ip("10.0.0.2")])];
    store.commit(&Change { begun, sticky, ..Change::default() }).unwrap();
    let span = pool.ranges()[0].span;
    assert_eq!(store.kept(span).count(), 0, "it is leased");
    store.begin_boot(BOOT_ID).unwrap();
    assert_eq!(store.kept(span).map(Result::unwrap).collect::<Vec<_>>(), [ip("10.0.0.2")]);
}
