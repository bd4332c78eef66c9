//! Thirty-two processes on one ledger, killed at random moments, and whatever else befalls a node meanwhile. Each
//! process has a network of its own, and all networks lease from the same pools.
#![cfg(test)]

mod havoc;
mod journal;
mod owner;
mod verdict;
mod worker;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use havoc::Havoc;
use owner::Owner;
use serde_json::{Value, json};
use worker::Scene;

const PROCESSES: usize = 32;
/// As many as the ledger is to survive, each time.
const OPERATIONS: u64 = 10_000;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Not a test of its own: what the processes of the tests run. Without a scene it does nothing.
#[test]
fn worker() {
    if let Some(scene) = Scene::of_environment() {
        worker::work(&scene);
    }
}

/// The network config of a process.
fn conf(data_dir: &Path, network: &str, lock_timeout: u64) -> Value {
    json!({ "cniVersion": "1.1.0", "name": network, "type": "bridge", "ipam": {
        "type": "podwire-ipam", "dataDir": data_dir, "lockTimeoutSeconds": lock_timeout, "cooldownSeconds": 1,
        "podCIDR": ["10.1.0.0/24", "fd00::/64"],
    } })
}

struct Crew {
    scene: Scene,
    members: Vec<Child>,
    starts: u64,
}

impl Crew {
    fn new(scene: Scene) -> Self {
        let mut crew = Self { scene, members: Vec::new(), starts: 0 };
        for index in 0..PROCESSES {
            let member = crew.start(index);
            crew.members.push(member);
        }
        crew
    }

    fn start(&mut self, index: usize) -> Child {
        self.starts += 1;
        let mut process = sandbox::command(std::env::current_exe().unwrap());
        process.args(["--exact", "worker", "--nocapture", "--test-threads=1"]);
        let scene = Scene { index, seed: self.starts, ..self.scene.clone() };
        process.env(Scene::VARIABLE, scene.to_text());
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn kill(&mut self, index: usize) {
        self.members[index].kill().unwrap();
        let ended = self.members[index].wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9), "a worker failed: {ended}");
        self.members[index] = self.start(index);
    }

    fn end(&mut self) {
        for member in &mut self.members {
            member.kill().unwrap();
            member.wait().unwrap();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Whether there is a resident owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ledger {
    Direct,
    Resident,
}

/// After so many operations, what has still not come is too rare.
const AT_MOST: u64 = 5 * OPERATIONS;

/// How many ADDs must have been given up while they waited.
const GIVEN_UP: u64 = 100;

/// Lets the crew work until there were so many operations and enough has befallen them, then judges. On a busy machine
/// more is done between two blows, so the number of operations alone says little of theirs; but what does not come in
/// several times as many is not there.
fn stress(ledger: Ledger, havoc: &mut dyn Havoc) {
    let place = Path::new("/run/stress");
    fs::create_dir_all(place).unwrap();
    let mut scene = Scene::new(place);
    havoc.prepare(&mut scene);
    let mut dice = Dice::of(OPERATIONS);
    let mut owner = Owner::default();
    if ledger == Ledger::Resident {
        owner.start(&scene);
    }
    let mut crew = Crew::new(scene.clone());
    let mut kills = 0;
    let deadline = Instant::now() + Duration::from_secs(1800);
    let is_enough = |scene: &Scene, havoc: &dyn Havoc, owner: &Owner| {
        let was_killed = ledger == Ledger::Direct || owner.was_killed_enough();
        scene.count() >= OPERATIONS && scene.given_up() > GIVEN_UP && was_killed && havoc.is_enough()
    };
    while !is_enough(&scene, havoc, &owner) {
        let (count, given_up) = (scene.count(), scene.given_up());
        let rare = format!("{count} operations, {kills} kills, {given_up} given up; {owner}; {}", havoc.figures());
        assert!(count < AT_MOST && Instant::now() < deadline, "still not enough of something: {rare}");
        // As many kills to so many operations on a slow machine as on a fast one.
        let next = scene.count() + dice.below(16);
        while scene.count() < next && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        // Not to wait for something, but to strike at some moment.
        thread::sleep(Duration::from_micros(dice.below(10_000)));
        if ledger == Ledger::Resident {
            owner.strike(&scene, &mut dice);
        }
        if havoc.strike(&scene, &mut owner, &mut dice, scene.count() * 2 > OPERATIONS) {
            crew.end();
            owner.kill(&scene);
            havoc.restart(&scene);
            crew = Crew::new(scene.clone());
        }
        crew.kill(usize::try_from(dice.below(PROCESSES as u64)).unwrap());
        kills += 1;
    }
    crew.end();
    havoc.end(&scene);
    if ledger == Ledger::Resident {
        owner.end(&scene);
    }
    let seen = verdict::judge(&scene);
    println!("{} operations, {kills} kills, {} given up, {seen}", scene.count(), scene.given_up());
}

/// Each on a host of its own, on the ledger itself and through an owner.
macro_rules! on_both {
    ($($name:ident: $havoc:expr;)*) => {
        mod direct {
            use super::*;
            $(#[test]
            fn $name() {
                sandbox::private_host(|| stress(Ledger::Direct, &mut $havoc));
            })*
        }
        mod resident {
            use super::*;
            $(#[test]
            fn $name() {
                sandbox::private_host(|| stress(Ledger::Resident, &mut $havoc));
            })*
        }
    };
}

on_both! {
    ten_thousand_operations: havoc::None;
    on_a_file_system_that_is_full_now_and_then: havoc::FullDisk::default();
    with_holders_of_the_lock_that_are_stopped: havoc::StoppedHolder::default();
    with_unfinished_snapshots_left_behind: havoc::Snapshots::default();
    with_a_reboot_in_the_middle: havoc::Reboot::default();
}
