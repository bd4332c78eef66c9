//! The allocation against a naive model that looks at every address of the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::pool::Range;

mod cost;

/// The ledger as maps.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory {
    /// And the pool that each was leased from.
    pub leased: BTreeMap<IpAddr, PoolKey>,
    pub released: BTreeMap<IpAddr, (u64, PoolKey)>,
    queue: BTreeSet<(PoolKey, u64, IpAddr)>,
    kept: BTreeSet<IpAddr>,
    cursors: BTreeMap<PoolKey, IpAddr>,
    used_up: BTreeMap<PoolKey, Vec<Span>>,
}

impl Memory {
    pub fn lease(&mut self, pool: &Pool, choice: &Choice) {
        let before = self.leased.insert(choice.address, pool.key());
        assert_eq!(before, None, "{} was given twice", choice.address);
        self.forget(choice.address);
        if choice.used_up {
            self.mark(pool);
        }
        if let Some(cursor) = choice.cursor {
            self.cursors.insert(pool.key(), cursor);
        }
        for address in &choice.forgotten {
            self.forget(*address);
            self.is_free_unseen(*address, None);
        }
    }

    pub fn mark(&mut self, pool: &Pool) {
        self.used_up.insert(pool.key(), pool.spans().to_vec());
    }

    /// All addresses at once.
    fn fill(&mut self, pool: &Pool, all: &[IpAddr]) {
        self.leased.extend(all.iter().map(|address| (*address, pool.key())));
    }

    fn forget(&mut self, address: IpAddr) {
        if let Some((at, pool)) = self.released.remove(&address) {
            self.queue.remove(&(pool, at, address));
        }
    }

    /// Pools that do not remember the address under their name must search for it.
    fn is_free_unseen(&mut self, address: IpAddr, remembered: Option<&PoolKey>) {
        let sees_it = |pool: &PoolKey, spans: &[Span]| {
            remembered == Some(pool) || !spans.iter().any(|span| span.contains(address))
        };
        self.used_up.retain(|pool, spans| sees_it(pool, spans));
    }

    pub fn release(&mut self, address: IpAddr, at: u64) {
        if let Some(pool) = self.leased.remove(&address) {
            self.is_free_unseen(address, Some(&pool));
            if !self.kept.contains(&address) {
                self.queue.insert((pool.clone(), at, address));
            }
            self.released.insert(address, (at, pool));
        }
    }

    pub fn keep(&mut self, address: IpAddr) {
        self.kept.insert(address);
        if let Some((at, pool)) = self.released.get(&address) {
            self.queue.remove(&(pool.clone(), *at, address));
        }
    }

    pub fn keep_no_more(&mut self, address: IpAddr) {
        if self.kept.remove(&address) {
            self.is_free_unseen(address, None);
            if let Some((at, pool)) = self.released.get(&address) {
                self.queue.insert((pool.clone(), *at, address));
            }
        }
    }
}

impl Occupancy for Memory {
    type Error = Infallible;

    fn leased(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        self.leased.range(span.first..=span.last).map(|(address, _)| Ok(*address))
    }

    fn released_at(&self, address: IpAddr) -> Result<Option<u64>, Infallible> {
        Ok(self.released.get(&address).map(|(at, _)| *at))
    }

    fn released(&self, span: Span) -> impl Iterator<Item = Result<Release, Infallible>> {
        let found = self.released.range(span.first..=span.last);
        found.map(|(address, (at, pool))| Ok(Release { at: *at, address: *address, pool: pool.clone() }))
    }

    fn oldest_released(&self, pool: &PoolKey) -> impl Iterator<Item = Result<(u64, IpAddr), Infallible>> {
        let first = (pool.clone(), 0, IpAddr::from([0, 0, 0, 0]));
        let own = self.queue.range(first..).take_while(move |(of, ..)| of == pool);
        own.map(|(_, at, address)| Ok((*at, *address)))
    }

    fn cursor(&self, pool: &PoolKey) -> Result<Option<IpAddr>, Infallible> {
        Ok(self.cursors.get(pool).copied())
    }

    fn is_kept(&self, address: IpAddr) -> Result<bool, Infallible> {
        Ok(self.kept.contains(&address))
    }

    fn kept(&self, span: Span) -> impl Iterator<Item = Result<IpAddr, Infallible>> {
        let kept = self.kept.range(span.first..=span.last).copied();
        kept.filter(|address| !self.leased.contains_key(address)).map(Ok)
    }

    fn is_used_up(&self, pool: &Pool) -> Result<bool, Infallible> {
        Ok(self.used_up.get(&pool.key()).is_some_and(|spans| spans == pool.spans()))
    }
}

fn give(pool: &Pool, memory: &Memory, cooling: Cooling) -> Option<Choice> {
    choice(allocate(pool, memory, cooling).unwrap_or_else(|never| match never {}))
}

pub(crate) fn choice(allocation: Allocation) -> Option<Choice> {
    match allocation {
        Allocation::Of(choice) => Some(choice),
        Allocation::Nothing { .. } => None,
    }
}

fn addresses(pool: &Pool) -> Vec<IpAddr> {
    let walk = |span: &Span| {
        let span = *span;
        std::iter::successors(Some(span.first), move |address| span::next(*address).filter(|next| span.contains(*next)))
    };
    pool.spans().iter().flat_map(walk).collect()
}

/// How good an address is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Fresh,
    Rested,
    Cooling,
    Kept,
}

/// The rule of [`allocate`] in the plainest words, at the cost of the whole pool: what may be given now, in the order in
/// which it is given. Its pools are too small for anybody's patience.
fn model(pool: &Pool, memory: &Memory, cooling: Cooling) -> Vec<(Class, IpAddr)> {
    let released = |address: &IpAddr| memory.released.get(address).map(|(at, _)| *at);
    let class = |address: &IpAddr| {
        let rested = released(address).is_none_or(|at| cooling.is_over(at));
        match (memory.kept.contains(address), released(address)) {
            (true, _) if rested || !cooling.strict => Some(Class::Kept),
            (false, None) => Some(Class::Fresh),
            (false, Some(_)) if rested => Some(Class::Rested),
            (false, Some(_)) if !cooling.strict => Some(Class::Cooling),
            _ => None,
        }
    };
    let free = addresses(pool).into_iter().filter(|address| !memory.leased.contains_key(address));
    let mut all: Vec<(Class, IpAddr)> = free.filter_map(|address| Some((class(&address)?, address))).collect();
    let cursor = memory.cursors.get(&pool.key()).copied();
    all.sort_by_key(|(class, address)| {
        let place = addresses(pool).iter().position(|other| other == address);
        let order = match class {
            Class::Fresh => (u64::from(!in_front(pool, cursor, *address)), None, place),
            Class::Rested | Class::Cooling => (0, Some((released(address), *address)), None),
            Class::Kept => (0, None, place),
        };
        (*class, order)
    });
    all
}

/// Whether all that is remembered of the pool's addresses is under the pool's own name: of what other pools had, the
/// order is not known.
fn remembers_all(pool: &Pool, memory: &Memory) -> bool {
    let foreign = memory.released.iter().filter(|(address, (_, of))| pool.leases(**address) && *of != pool.key());
    foreign.count() == 0
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
    KeepNoMore(usize),
    Strict(bool),
}

/// What happens, and to which of the pools.
fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        8 => Just(Step::Give),
        1 => any::<usize>().prop_map(Step::Ask),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Undo),
        2 => (1u64..40_000).prop_map(Step::Wait),
        1 => any::<usize>().prop_map(Step::Keep),
        1 => any::<usize>().prop_map(Step::KeepNoMore),
        1 => any::<bool>().prop_map(Step::Strict),
    ];
    proptest::collection::vec((0..2_usize, step), 1..160)
}

fn of_ranges(subnets: &[&str], excluded: &[&str]) -> Pool {
    let parse = |text: &&str| -> IpNetwork { text.parse().unwrap() };
    let excluded: Vec<Span> = excluded.iter().map(parse).map(Span::of).collect();
    Pool::new(subnets.iter().map(parse).map(Range::whole).collect(), &excluded)
}

/// Two pools: the same, overlapping, one within the other, apart, or the same but for what is left out.
fn pools() -> impl Strategy<Value = [Pool; 2]> {
    prop_oneof![
        Just([of_ranges(&["10.0.0.0/29"], &[]), of_ranges(&["10.0.0.0/29"], &[])]),
        Just([of_ranges(&["10.0.0.0/28"], &["10.0.0.4/31"]), of_ranges(&["10.0.0.0/29"], &[])]),
        Just([of_ranges(&["10.0.0.8/31", "10.0.0.0/30"], &[]), of_ranges(&["10.0.0.0/32"], &[])]),
        Just([of_ranges(&["10.0.0.0/29", "10.0.0.16/29"], &[]), of_ranges(&["10.0.0.8/29", "10.0.0.16/30"], &[])]),
        Just([of_ranges(&["255.255.255.240/28"], &["255.255.255.254/31"]), of_ranges(&["255.255.255.240/28"], &[])]),
        Just([of_ranges(&["fd00::/125", "fd00::10/127"], &[]), of_ranges(&["fd00::/124"], &["fd00::4/128"])]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn it_gives_what_the_model_gives(pools in pools(), steps in steps()) {
        let mut memory = Memory::default();
        let mut cooling = Cooling { now: 1_000_000, period: 30_000, strict: false };
        for (number, step) in steps {
            let pool = &pools[number];
            let all = addresses(pool);
            let leased: Vec<IpAddr> = memory.leased.keys().copied().collect();
            let pick = |index: usize| leased.get(index % leased.len().max(1)).copied();
            match step {
                Step::Give => {
                    let expected = model(pool, &memory, cooling);
                    let allocation = allocate(pool, &memory, cooling).unwrap_or_else(|never| match never {});
                    if let Allocation::Nothing { used_up: true } = allocation {
                        memory.mark(pool);
                    }
                    let given = choice(allocation);
                    let address = given.as_ref().map(|choice| choice.address);
                    if remembers_all(pool, &memory) {
                        prop_assert_eq!(address, expected.first().map(|(_, address)| *address));
                    } else {
                        let class = expected.iter().find(|(_, one)| Some(*one) == address).map(|(class, _)| *class);
                        prop_assert_eq!(class, expected.first().map(|(class, _)| *class));
                    }
                    if let Some(choice) = given {
                        prop_assert!(pool.leases(choice.address));
                        memory.lease(pool, &choice);
                    }
                }
                Step::Ask(index) => {
                    let address = all[index % all.len()];
                    if !memory.leased.contains_key(&address) {
                        memory.lease(pool, &Choice::of(address));
                    }
                }
                Step::Release(index) => pick(index).into_iter().for_each(|one| memory.release(one, cooling.now)),
                Step::Undo(index) => pick(index).into_iter().for_each(|one| memory.release(one, 0)),
                Step::Wait(milliseconds) => cooling.now += milliseconds,
                Step::Keep(index) => memory.keep(all[index % all.len()]),
                Step::KeepNoMore(index) => memory.keep_no_more(all[index % all.len()]),
                Step::Strict(strict) => cooling.strict = strict,
            }
        }
    }
}

fn pool(subnet: &str) -> Pool {
    Pool::new(vec![Range::whole(subnet.parse().unwrap())], &[])
}

/// Two pools of which one is a part of the other, both full: what is released is found by whoever may have it, and by
/// all others at a bounded cost.
#[test]
fn what_was_leased_from_an_overlapping_pool_is_found() {
    let (whole, part) = (pool("10.0.0.0/24"), of_ranges(&["10.0.0.0/25"], &[]));
    let mut memory = Memory::default();
    let cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    while let Some(choice) = give(&part, &memory, cooling) {
        memory.lease(&part, &choice);
    }
    while let Some(choice) = give(&whole, &memory, cooling) {
        memory.lease(&whole, &choice);
    }
    memory.mark(&whole);
    let all = addresses(&part);
    [all[5], all[6], all[7]].into_iter().for_each(|address| memory.release(address, 99_000));
    let given: Vec<IpAddr> = std::iter::from_fn(|| {
        let choice = give(&whole, &memory, cooling)?;
        memory.lease(&whole, &choice);
        Some(choice.address)
    })
    .collect();
    assert_eq!(given, [all[5], all[6], all[7]]);
}

#[test]
fn a_search_goes_on_where_the_last_one_tired() {
    let pool = pool("10.0.0.0/22");
    let mut memory = Memory::default();
    let cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    let all = addresses(&pool);
    memory.fill(&pool, &all);
    let (hidden, known) = (all[3 * PATIENCE + 10], [all[3], all[4], all[5], all[6]]);
    memory.leased.remove(&hidden);
    for address in known {
        memory.release(address, 1);
    }
    let given: Vec<IpAddr> = (0..5)
        .map(|_| {
            let choice = give(&pool, &memory, cooling).unwrap();
            memory.lease(&pool, &choice);
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
        memory.lease(&pool, &choice);
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
    assert!(cost::cost(&pool, &memory) < 5);
}

#[test]
fn a_cooling_address_is_given_when_nothing_else_is_left_oldest_first() {
    let pool = pool("10.0.0.0/29");
    let mut memory = Memory::default();
    let cooling = Cooling { now: 100_000, period: 30_000, strict: false };
    while let Some(choice) = give(&pool, &memory, cooling) {
        memory.lease(&pool, &choice);
    }
    let all = addresses(&pool);
    assert_eq!(memory.leased.len(), 5, "six hosts but the gateway");
    memory.release(all[3], 99_000);
    memory.release(all[1], 99_500);
    assert_eq!(give(&pool, &memory, cooling).unwrap().address, all[3]);
    memory.release(all[4], 50_000);
    assert_eq!(give(&pool, &memory, cooling).unwrap().address, all[4], "this one has cooled down");
}
