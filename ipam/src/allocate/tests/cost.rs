//! What an allocation costs, counted in questions to the ledger.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;

use super::super::*;
use super::{Memory, addresses, choice, give, pool};

/// Counts what it is asked: the cost of an allocation without a clock.
struct Counting<'a> {
    memory: &'a Memory,
    questions: Cell<usize>,
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

    fn released(&self, span: Span) -> impl Iterator<Item = Result<Release, Infallible>> {
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

pub(super) fn cost(pool: &Pool, memory: &Memory) -> usize {
    let counting = Counting { memory, questions: Cell::new(0) };
    let cooling = Cooling { now: 10_000_000, period: 30_000, strict: false };
    choice(allocate(pool, &counting, cooling).unwrap()).expect("an address");
    counting.questions.get()
}

#[test]
fn the_fullest_pool_costs_a_bounded_search() {
    let pool = pool("10.0.0.0/16");
    let mut memory = Memory::default();
    assert!(cost(&pool, &memory) < 5, "an empty pool");
    let all = addresses(&pool);
    memory.fill(&pool, &all);
    for address in [all[60_000], all[61_000]] {
        memory.release(address, 1);
    }
    assert!(cost(&pool, &memory) < PATIENCE + 10, "a pool with two free addresses, far away");
}

/// What goes on in a pool while it is filled up.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// How long a released address rests, in milliseconds: two allocations are 100 apart.
    period: u64,
    strict: bool,
    /// Whether all addresses are kept for those who have had them.
    sticky: bool,
}

/// A /16 that is filled up step by step, with what goes on in it: some come, some go, some of those who have gone still
/// cool down. Then a /64 with as many leases. What an allocation asks of the ledger is the same everywhere, also when it
/// is refused.
#[test]
fn the_cost_of_an_allocation_is_flat() {
    for (period, strict, sticky) in
        [(0, false, false), (30_000, false, false), (3_600_000, true, false), (30_000, false, true)]
    {
        let life = Life { period, strict, sticky };
        let sixteen = filled("10.0.0.0/16", &[0, 250, 10_000, 32_000, 60_000, 64_870, 65_533], life);
        let sixty_four = filled("fd00::/64", &[0, 20_000], life);
        let worst = sixteen.iter().chain(&sixty_four).map(|(_, cost)| *cost).max().unwrap();
        assert!(worst <= PATIENCE * 2 + 16, "{life:?}: {sixteen:?} {sixty_four:?}");
        let (empty, nearly_full) = (sixteen[0].1, sixteen[5].1);
        assert!(nearly_full <= empty + PATIENCE * 2 + 10, "{life:?}: 99 % full: {nearly_full}, empty: {empty}");
    }
}

/// The most that one of a hundred allocations asks, at so many leases.
fn filled(subnet: &str, levels: &[usize], life: Life) -> Vec<(usize, usize)> {
    let pool = pool(subnet);
    let mut memory = Memory::default();
    let mut cooling = Cooling { now: 1_000_000, period: life.period, strict: life.strict };
    let mut costs = Vec::new();
    let lease = |memory: &mut Memory, choice: &Choice| {
        memory.lease(&pool, choice);
        if life.sticky {
            memory.keep(choice.address);
        }
    };
    for level in levels {
        while memory.leased.len() < *level {
            // Who waits long enough is given what had to rest.
            match give(&pool, &memory, cooling) {
                Some(choice) => lease(&mut memory, &choice),
                None => cooling.now += life.period,
            }
        }
        let (mut worst, mut searches) = (0, 0);
        for round in 0..100 {
            cooling.now += 100;
            let counting = Counting { memory: &memory, questions: Cell::new(0) };
            let allocation = allocate(&pool, &counting, cooling).unwrap();
            let cost = counting.questions.get();
            let (Allocation::Of(Choice { used_up, .. }) | Allocation::Nothing { used_up }) = allocation;
            // One search may go over everything, to find that nothing is left: the mark that it leaves is the point.
            if used_up {
                searches += 1;
                memory.mark(&pool);
            } else {
                worst = worst.max(cost);
            }
            if let Allocation::Of(choice) = &allocation {
                lease(&mut memory, choice);
            }
            if round % 2 == 0 || memory.leased.len() > *level {
                let leaving = *memory.leased.keys().nth(round * 7 % memory.leased.len()).unwrap();
                memory.release(leaving, cooling.now);
            }
        }
        assert!(searches <= 1, "{life:?}: {searches} searches at {level} leases");
        costs.push((*level, worst));
    }
    costs
}
