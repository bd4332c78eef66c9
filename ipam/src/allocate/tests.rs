//! The allocation against a naive model that looks at every address of the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::pool::Range;

/// The ledger as maps.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory {
    pub leased: BTreeSet<IpAddr>,
    pub released: BTreeMap<IpAddr, u64>,
    queue: BTreeSet<(u64, IpAddr)>,
    pub kept: BTreeSet<IpAddr>,
    cursor: Option<IpAddr>,
    pub used_up: bool,
}

impl Memory {
    pub fn lease(&mut self, choice: &Choice) {
        assert!(self.leased.insert(choice.address), "{} was given twice", choice.address);
        self.forget(choice.address);
        self.used_up |= choice.used_up;
        self.cursor = choice.cursor.or(self.cursor);
        choice.forgotten.iter().for_each(|address| self.forget(*address));
    }

    fn forget(&mut self, address: IpAddr) {
        if let Some(at) = self.released.remove(&address) {
            self.queue.remove(&(at, address));
        }
    }

    pub fn release(&mut self, address: IpAddr, at: u64) {
        if self.leased.remove(&address) {
            self.released.insert(address, at);
            self.queue.insert((at, address));
        }
    }
}

impl Occupancy for Memory {
    type Error = Infallible;

    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        self.leased.range(span.first..=span.last).copied().map(Ok)
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, Infallible> {
        Ok(self.released.get(&address).copied())
    }

    fn released(&self, span: Span) -> impl Iterator<Item = Result<(u64, IpAddr), Infallible>> {
        self.released.range(span.first..=span.last).map(|(address, at)| Ok((*at, *address)))
    }

    fn oldest_released(&self, _: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), Infallible>> {
        self.queue.iter().copied().map(Ok)
    }

    fn cursor(&self, _: &PoolKey) -> Result<Option<IpAddr>, Infallible> {
        Ok(self.cursor)
    }

    fn is_kept(&self, address: IpAddr) -> Result<bool, Infallible> {
        Ok(self.kept.contains(&address))
    }

    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        self.kept.range(span.first..=span.last).copied().map(Ok)
    }

    fn is_used_up(&self, _: &Pool) -> Result<bool, Infallible> {
        Ok(self.used_up)
    }
}

fn give(pool: &Pool, memory: &Memory, cooling: Cooling) -> Option<Choice> {
    allocate(pool, memory, cooling).unwrap_or_else(|never| match never {})
}

fn addresses(pool: &Pool) -> Vec<IpAddr> {
    let walk = |span: &Span| {
        let span = *span;
        std::iter::successors(Some(span.first), move |address| span::next(*address).filter(|next| span.contains(*next)))
    };
    pool.spans().iter().flat_map(walk).collect()
}

/// The rule of [`allocate`] in the plainest words, at the cost of the whole pool. Its pools are too small for
/// anybody's patience.
fn model(pool: &Pool, memory: &Memory, cooling: Cooling) -> Option<IpAddr> {
    let mut all = addresses(pool);
    all.retain(|address| !memory.leased.contains(address));
    let released = |address: &IpAddr| memory.released.get(address).copied();
    let age = |address: &&IpAddr| (released(address), **address);
    let rested = |address: &&IpAddr| released(address).is_none_or(|at| cooling.is_over(at));
    let (kept, nobodys): (Vec<IpAddr>, Vec<IpAddr>) = all.iter().partition(|address| memory.kept.contains(address));
    let mut ahead = nobodys.clone();
    ahead.sort_by_key(|address| !in_front(pool, memory.cursor, *address));
    let fresh = ahead.iter().find(|address| released(address).is_none());
    fresh
        .or_else(|| nobodys.iter().filter(rested).min_by_key(age))
        .or_else(|| nobodys.iter().filter(|_| !cooling.strict).min_by_key(age))
        .or_else(|| kept.iter().find(|address| !cooling.strict || rested(address)))
        .copied()
}

/// Whether an address comes after the cursor in the pool's order.
fn in_front(pool: &Pool, cursor: Option<IpAddr>, address: IpAddr) -> bool {
    let all = addresses(pool);
    let place = |one: IpAddr| all.iter().position(|other| *other == one);
    cursor.and_then(place).is_none_or(|cursor| place(address) > Some(cursor))
}

#[derive(Debug, Clone)]
enum Step {
    Give,
    Ask(usize),
    Release(usize),
    Undo(usize),
    Wait(u64),
    Keep(usize),
    Strict(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Give),
        1 => any::<usize>().prop_map(Step::Ask),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Undo),
        2 => (1u64..40_000).prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Keep),
        1 => any::<bool>().prop_map(Step::Strict),
    ];
    proptest::collection::vec(step, 1..120)
}

fn pools() -> impl Strategy<Value = Pool> {
    let subnets = prop_oneof![
        Just(vec!["10.0.0.0/29"]),
        Just(vec!["10.0.0.0/32"]),
        Just(vec!["10.0.0.8/31", "10.0.0.0/30"]),
        Just(vec!["255.255.255.240/28"]),
        Just(vec!["fd00::/125", "fd00::10/127"]),
    ];
    let excluded = prop_oneof![Just(vec![]), Just(vec!["10.0.0.4/31", "255.255.255.254/31", "fd00::4/128"])];
    (subnets, excluded).prop_map(|(subnets, excluded)| {
        let parse = |text: &&str| -> IpNetwork { text.parse().unwrap() };
        let excluded: Vec<Span> = excluded.iter().map(parse).map(Span::of).collect();
        Pool::new(subnets.iter().map(parse).map(Range::whole).collect(), &excluded)
    })
}

proptest! {
    #[test]
    fn it_gives_what_the_model_gives(pool in pools(), steps in steps()) {
        let mut memory = Memory::default();
        let mut cooling = Cooling { now: 1_000_000, period: 30_000, strict: false };
        let all = addresses(&pool);
        for step in steps {
            let leased: Vec<IpAddr> = memory.leased.iter().copied().collect();
            let pick = |index: usize| leased.get(index % leased.len().max(1)).copied();
            match step {
                Step::Give => {
                    let given = give(&pool, &memory, cooling);
                    prop_assert_eq!(given.as_ref().map(|choice| choice.address), model(&pool, &memory, cooling));
                    let is_full = memory.leased.len() == all.len();
                    prop_assert!(given.is_none() == is_full || (cooling.strict && !is_full));
                    if let Some(choice) = given {
                        prop_assert!(pool.leases(choice.address));
                        memory.lease(&choice);
                    }
                }
                Step::Ask(index) => {
                    let address = all[index % all.len()];
                    if !memory.leased.contains(&address) {
                        memory.lease(&Choice::of(address));
                    }
                }
                Step::Release(index) => pick(index).into_iter().for_each(|one| memory.release(one, cooling.now)),
                Step::Undo(index) => pick(index).into_iter().for_each(|one| memory.release(one, 0)),
                Step::Wait(milliseconds) => cooling.now += milliseconds,
                Step::Keep(index) => drop(memory.kept.insert(all[index % all.len()])),
                Step::Strict(strict) => cooling.strict = strict,
            }
        }
    }
}

fn pool(subnet: &str) -> Pool {
    Pool::new(vec![Range::whole(subnet.parse().unwrap())], &[])
}

/// Counts what it is asked: the cost of an allocation without a clock.
struct Counting<'a> {
    memory: &'a Memory,
    questions: std::cell::Cell<usize>,
}

impl Counting<'_> {
    fn count<T>(&self, answer: T) -> T {
        self.questions.set(self.questions.get() + 1);
        answer
    }
}

impl Occupancy for Counting<'_> {
    type Error = Infallible;

    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        self.memory.leased(span).inspect(|_| self.count(()))
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, Infallible> {
        self.count(self.memory.released_at(address))
    }

    fn released(&self, span: Span) -> impl Iterator<Item = Result<(u64, IpAddr), Infallible>> {
        self.memory.released(span).inspect(|_| self.count(()))
    }

    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), Infallible>> {
        self.memory.oldest_released(pool).inspect(|_| self.count(()))
    }

    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, Infallible> {
        self.count(self.memory.cursor(pool))
    }

    fn is_kept(&self, address: IpAddr) -> Result<bool, Infallible> {
        self.count(self.memory.is_kept(address))
    }

    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        self.memory.kept(span).inspect(|_| self.count(()))
    }

    fn is_used_up(&self, pool: &Pool) -> Result<bool, Infallible> {
        self.count(self.memory.is_used_up(pool))
    }
}

fn cost(pool: &Pool, memory: &Memory) -> usize {
    let counting = Counting { memory, questions: std::cell::Cell::new(0) };
    let cooling = Cooling { now: 10_000_000, period: 30_000, strict: false };
    allocate(pool, &counting, cooling).unwrap().expect("an address");
    counting.questions.get()
}

#[test]
fn the_fullest_pool_costs_a_bounded_search() {
    let pool = pool("10.0.0.0/16");
    let mut memory = Memory::default();
    assert!(cost(&pool, &memory) < 5, "an empty pool");
    let all = addresses(&pool);
    memory.leased.extend(all.iter().copied());
    for address in [all[60_000], all[61_000]] {
        memory.release(address, 1);
    }
    assert!(cost(&pool, &memory) < PATIENCE + 10, "a pool with two free addresses, far away");
}

/// A /16 that is filled up step by step, with what goes on in it: some come, some go, some of those who have gone still
/// cool down. Then a /64 with as many leases. What an allocation asks of the ledger is the same everywhere.
#[test]
fn the_cost_of_an_allocation_is_flat() {
    let sixteen = filled("10.0.0.0/16", &[0, 250, 10_000, 32_000, 60_000, 64_870, 65_533]);
    let sixty_four = filled("fd00::/64", &[0, 10_000, 60_000]);
    let worst = sixteen.iter().chain(&sixty_four).map(|(_, cost)| *cost).max().unwrap();
    assert!(worst <= PATIENCE + 16, "{sixteen:?} {sixty_four:?}");
    let (empty, nearly_full) = (sixteen[0].1, sixteen[5].1);
    assert!(nearly_full <= empty + PATIENCE + 10, "99 % full: {nearly_full}, empty: {empty}");
}

/// The most that one of a hundred allocations asks, at so many leases.
fn filled(subnet: &str, levels: &[usize]) -> Vec<(usize, usize)> {
    let pool = pool(subnet);
    let mut memory = Memory::default();
    let mut cooling = Cooling { now: 1_000_000, period: 30_000, strict: false };
    let mut costs = Vec::new();
    for level in levels {
        while memory.leased.len() < *level {
            let choice = give(&pool, &memory, cooling).unwrap();
            memory.lease(&choice);
        }
        let mut worst = 0;
        for round in 0..100 {
            cooling.now += 100;
            let counting = Counting { memory: &memory, questions: std::cell::Cell::new(0) };
            let choice = allocate(&pool, &counting, cooling).unwrap();
            let cost = counting.questions.get();
            // One search may go over everything, to find that nothing is left: the mark that it leaves is the point.
            if choice.as_ref().is_none_or(|choice| !choice.used_up) {
                worst = worst.max(cost);
            }
            if let Some(choice) = choice {
                memory.lease(&choice);
            } else {
                memory.used_up = true;
            }
            if round % 2 == 0 || memory.leased.len() > *level {
                let leaving = *memory.leased.iter().nth(round * 7 % memory.leased.len()).unwrap();
                memory.release(leaving, cooling.now);
            }
        }
        costs.push((*level, worst));
    }
    costs
}

#[test]
fn a_search_goes_on_where_the_last_one_tired() {
    let pool = pool("10.0.0.0/22");
    let mut memory = Memory::default();
    let cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    let all = addresses(&pool);
    memory.leased.extend(all.iter().copied());
    let (hidden, known) = (all[3 * PATIENCE + 10], [all[3], all[4], all[5], all[6]]);
    memory.leased.remove(&hidden);
    for address in known {
        memory.release(address, 1);
    }
    let given: Vec<IpAddr> = (0..5)
        .map(|_| {
            let choice = give(&pool, &memory, cooling).unwrap();
            memory.lease(&choice);
            choice.address
        })
        .collect();
    assert_eq!(given, [known[0], known[1], known[2], hidden, known[3]]);
    assert_eq!(give(&pool, &memory, cooling), None);
}

#[test]
fn a_large_pool_is_given_out_in_order_and_forgets_what_cooled_down() {
    let pool = pool("fd00::/64");
    let mut memory = Memory::default();
    let mut cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    let next = |memory: &mut Memory, cooling| {
        let choice = give(&pool, memory, cooling).unwrap();
        memory.lease(&choice);
        choice
    };
    let first = next(&mut memory, cooling);
    assert_eq!(first.address.to_string(), "fd00::2");
    memory.release(first.address, cooling.now);
    let second = next(&mut memory, cooling);
    assert_eq!((second.address.to_string().as_str(), second.forgotten), ("fd00::3", vec![]), "still cooling down");
    cooling.now += 30_000;
    let third = next(&mut memory, cooling);
    assert_eq!((third.address.to_string().as_str(), third.forgotten), ("fd00::4", vec![first.address]));
    assert_eq!(memory.released.len(), 0);
    assert_eq!(next(&mut memory, cooling).address.to_string(), "fd00::5", "not one that was had already");
    assert!(cost(&pool, &memory) < 5);
}

#[test]
fn a_cooling_address_is_given_when_nothing_else_is_left_oldest_first() {
    let pool = pool("10.0.0.0/29");
    let mut memory = Memory::default();
    let cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    while let Some(choice) = give(&pool, &memory, cooling) {
        memory.lease(&choice);
    }
    let all = addresses(&pool);
    assert_eq!(memory.leased.len(), 5, "six hosts but the gateway");
    memory.release(all[3], 99_000);
    memory.release(all[1], 99_500);
    assert_eq!(give(&pool, &memory, cooling).unwrap().address, all[3]);
    memory.release(all[4], 50_000);
    assert_eq!(give(&pool, &memory, cooling).unwrap().address, all[4], "this one has cooled down");
}
