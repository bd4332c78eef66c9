//! What operations cost, counted in entries of the real database that are looked at.

use std::net::IpAddr;

use super::*;

fn pool(subnet: &str) -> Pool {
    Pool::new(vec![Range::whole(subnet.parse().unwrap())], &[])
}

/// Leases of the first so many addresses of a pool, each under the name of its number.
fn leases(pool: &Pool, count: usize) -> Vec<Record> {
    let now = Moment::now().unwrap();
    let boot_id = clock::boot_id().unwrap();
    let span = pool.spans()[0];
    let addresses = std::iter::successors(Some(span.first), |ip| crate::span::next(*ip));
    let record = |(number, address): (usize, IpAddr)| Record {
        lease_id: LeaseId(number.to_string()),
        attachment: format!("n c{number} eth0").parse().unwrap(),
        addresses: vec![crate::RecordedAddress { address: address.into(), gateway: None, pool: pool.key().0 }],
        netns: None,
        pod: Pod::default(),
        created: now.wall,
        created_boottime_ms: now.boottime,
        began_boottime_ms: None,
        boot_id: boot_id.clone(),
        origin: crate::Origin::Add,
    };
    addresses.take(count).enumerate().map(record).collect()
}

/// A ledger that is kept open, as by a resident owner.
struct Kept {
    ledger: Ledger,
    slot: Slot,
    _dir: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { ledger: Ledger::at(dir.path()), slot: Slot::Kept(None), _dir: dir }
    }

    /// What it answers, and how many entries it has looked at for that.
    fn ask(&mut self, operation: Operation) -> (Result<Answer, Error>, usize) {
        let by = Cause::of_this_process("test");
        let asked = Moment::now().unwrap().boottime;
        let request = self.ledger.request(by, (asked, u64::MAX), operation).unwrap();
        let answer = self.ledger.visit(&mut self.slot, &request);
        (answer, self.slot.store().unwrap().reads())
    }

    /// What an ADD costs.
    fn add(&mut self, pool: &Pool, container: &str) -> usize {
        let (answer, reads) = self.ask(wish_for(pool, container));
        assert!(matches!(answer, Ok(Answer::Leased(_))), "{container}: {answer:?}");
        reads
    }

    /// What a DEL costs.
    fn del(&mut self, container: &str) -> usize {
        let (answer, reads) = self.ask(Operation::Release(format!("n {container} eth0").parse().unwrap()));
        assert!(matches!(answer, Ok(Answer::Released(Released::Lease(_)))), "{container}: {answer:?}");
        reads
    }
}

/// Nothing has rested before a test ends: an address that has is found elsewhere, at another cost.
fn terms(pool: &Pool) -> Terms {
    Terms { network: "n".parse().unwrap(), pools: vec![pool.clone()], cooldown: 3_600_000, strict: false }
}

fn wish_for(pool: &Pool, container: &str) -> Operation {
    Operation::Lease(Box::new(Wish {
        attachment: format!("n {container} eth0").parse().unwrap(),
        lease_id: LeaseId(format!("of {container}")),
        netns: Netns { path: "/nonexistent".into(), id: None },
        pod: Pod::default(),
        terms: terms(pool),
        wanted: vec![None],
        sticky: false,
        began: Moment::now().unwrap().boottime,
    }))
}

/// What each of a series of ADDs and DELs costs in a pool that has so many leases.
fn cost_of_leases(subnet: &str, held: usize) -> Vec<[usize; 2]> {
    let (pool, mut kept) = (pool(subnet), Kept::new());
    kept.add(&pool, "first");
    kept.del("first");
    kept.slot.store().unwrap().fill(&leases(&pool, held));
    kept.slot.store().unwrap().reads();
    // Each is gone before the next but three comes: some rest, and leave a tombstone.
    let name = |number: usize| format!("new{number}");
    for number in 0..3 {
        kept.add(&pool, &name(number));
    }
    (3..20).map(|number| [kept.add(&pool, &name(number)), kept.del(&name(number - 3))]).collect()
}

/// Neither ADD nor DEL looks at more entries where there are many leases, or addresses without number.
#[test]
fn the_cost_of_a_lease_is_flat() {
    let empty = cost_of_leases("10.0.0.0/16", 0);
    assert!(empty.iter().flatten().all(|reads| *reads <= 20), "{empty:?}");
    // 99 % of 65,533.
    assert_eq!(cost_of_leases("10.0.0.0/16", 64_878), empty);
    assert_eq!(cost_of_leases("fd00::/64", 2_000), empty);
}

/// What is left of a large pool lies between leases, and nobody remembers its release: each ADD looks for it where the one
/// before has ended, and not at what that has passed over.
#[test]
fn the_cost_of_a_lease_between_leases_is_flat() {
    const APART: usize = 100;
    let (pool, mut kept) = (pool("10.0.0.0/19"), Kept::new());
    kept.add(&pool, "first");
    kept.del("first");
    let is_held = |(number, _): &(usize, Record)| number % APART != APART - 1;
    let held: Vec<Record> = leases(&pool, 8189).into_iter().enumerate().filter(is_held).map(|(_, it)| it).collect();
    kept.slot.store().unwrap().fill(&held);
    kept.slot.store().unwrap().reads();
    let costs: Vec<usize> = (0..40).map(|number| kept.add(&pool, &format!("new{number}"))).collect();
    assert!(costs.iter().all(|reads| *reads < 2 * APART), "{costs:?}");
}

/// A pool that is full, and what refusals cost there: the first looks at all leases, and leaves a note of it. `held` is
/// more than the few that are looked at every time.
fn cost_of_refusals(subnet: &str, held: usize) -> Vec<usize> {
    let (pool, mut kept) = (pool(subnet), Kept::new());
    assert_eq!(pool.capacity(), held as u128);
    let fill = Operation::Replace { end: Vec::new(), begin: leases(&pool, held) };
    kept.ask(fill).0.unwrap();
    let (status, add) = (Operation::Status(Box::new(terms(&pool))), wish_for(&pool, "one-more"));
    let refused = [&status, &status, &add, &status, &add].map(|operation| {
        let (answer, reads) = kept.ask(operation.clone());
        let Err(Error::Exhausted(exhausted)) = answer else { panic!("{answer:?}") };
        assert_eq!(exhausted.leased, held);
        reads
    });
    refused.to_vec()
}

/// Whoever is refused asks again at once, and STATUS comes every few seconds: neither looks at all leases each time.
#[test]
fn the_cost_of_a_refusal_is_flat() {
    let (small, large) = (cost_of_refusals("10.0.0.0/21", 2045), cost_of_refusals("10.0.0.0/20", 4093));
    assert!(small[0] > 2045 && large[0] > 4093, "somebody must look once: {small:?} {large:?}");
    assert_eq!(small[1..], large[1..]);
    assert!(small[1..].iter().all(|reads| *reads < 20), "{small:?}");
}

/// A refusal stands on a look that is up to ten seconds old, but for what rests.
#[test]
fn the_refusal_of_a_strict_pool_tells_what_rests_now() {
    let (pool, mut kept) = (pool("10.0.0.0/21"), Kept::new());
    kept.ask(Operation::Replace { end: Vec::new(), begin: leases(&pool, 2045) }).0.unwrap();
    let terms = Terms { cooldown: 600_000, strict: true, ..terms(&pool) };
    let status = Operation::Status(Box::new(terms));
    let told = |answer: Result<Answer, Error>| {
        let Err(Error::Exhausted(told)) = answer else { panic!("{answer:?}") };
        (told.leased, told.cooling, told.next_free_seconds.is_some())
    };
    assert_eq!([(); 2].map(|()| told(kept.ask(status.clone()).0)), [(2045, 0, false); 2]);
    kept.del("c7");
    assert_eq!(told(kept.ask(status).0), (2044, 1, true));
}
