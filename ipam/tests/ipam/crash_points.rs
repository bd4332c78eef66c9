//! Killed at the first, the second, the third... of each system call that changes a file. strace(1) counts the
//! calls of each thread apart, so of the engine's own threads only the first call of each kind is met for sure;
//! `processes.rs` strikes at random.

use std::path::{Path, PathBuf};

use crate::strace::killed_at;
use crate::support::{Place, damage, holders};
use serde_json::{Value, json};

/// Kills an ADD and then a DEL at every point, and looks at what the next one finds.
fn survive(call: &str) {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
    // Until the first ADD has got through, every one of them makes the ledger.
    let mut nth = 1;
    while killed_at(&place, "ADD", "stays", &conf, call, nth) {
        nth += 1;
    }
    let mut kills = nth - 1;
    for command in ["ADD", "DEL"] {
        let mut nth = 1;
        while killed_at(&place, command, "c", &conf, call, nth) {
            let found = holders(&place.leases());
            assert!(found.values().any(|holder| holder == "stays"), "{command} killed at {call} {nth}: {found:?}");
            let other = place.run("ADD", "other", &conf).addresses();
            assert_eq!(holders(&place.leases())[&other[0]], "other");
            assert!(place.run("DEL", "other", &conf).success);
            place.assert_copied(&format!("{command} killed at {call} {nth}"));
            nth += 1;
        }
        kills += nth - 1;
        tells_its_own_story(&place);
        let expected = if command == "ADD" { vec!["c", "stays"] } else { vec!["stays"] };
        let mut left: Vec<String> = holders(&place.leases()).into_values().collect();
        left.sort();
        assert_eq!(left, expected, "after {command} got through at {call} {nth}");
    }
    assert!(kills > 0, "{call}: nobody was killed");
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<PathBuf>::new(), "the ledger was damaged");
}

/// Whoever is killed is the one that the history names, and not who came next.
fn tells_its_own_story(place: &Place) {
    for line in std::fs::read_to_string(place.data_dir().join("history.jsonl")).unwrap().lines() {
        // A line may be cut off by the kill.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let container = event["lease"]["attachment"]["containerId"].as_str().unwrap();
        let purpose = event["by"]["purpose"].as_str().unwrap();
        assert!(purpose.ends_with(&format!(" n {container} eth0")), "{line}");
    }
}

/// The same, and each time the database is lost before anybody could look at it.
fn survive_with_damage(call: &str) {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
    let stays = place.run("ADD", "stays", &conf).addresses();
    let mut kills = 0;
    for command in ["ADD", "DEL"] {
        let mut nth = 1;
        while killed_at(&place, command, "c", &conf, call, nth) {
            let context = format!("{command} killed at {call} {nth}");
            damage(&place.data_dir());
            let other = place.run("ADD", "other", &conf).addresses();
            let found = holders(&place.leases());
            assert_eq!((found[&stays[0]].as_str(), found[&other[0]].as_str()), ("stays", "other"), "{context}");
            // The runtime repeats a DEL that was not answered, and sends one after an ADD that was not.
            assert!(place.run("DEL", "c", &conf).success);
            assert!(place.run("DEL", "other", &conf).success);
            assert_eq!(holders(&place.leases()).into_values().collect::<Vec<_>>(), ["stays"], "{context}");
            place.assert_copied(&context);
            if command == "DEL" {
                place.run("ADD", "c", &conf).addresses();
            }
            nth += 1;
        }
        kills += nth - 1;
    }
    assert!(kills > 0, "{call}: nobody was killed");
}

/// What is written down to be released; whose writer was killed before it was whole, too.
fn spooled(place: &Place) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(place.data_dir().join("pending-del")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_whole(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// How often the history says that something happened to a container's leases.
fn told(place: &Place, container: &str, kind: &str) -> usize {
    let history = std::fs::read_to_string(place.data_dir().join("history.jsonl")).unwrap();
    // A line may be cut off by a kill.
    let events = history.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|it| it["lease"]["attachment"]["containerId"] == container && it["event"] == kind).count()
}

/// A DEL that cannot have the ledger, killed while it writes its wish down: the wish is there whole or not at all, and the
/// DEL that the runtime sends again ends the lease.
fn survive_writing_down(call: &str) -> usize {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
    let mut impatient = conf.clone();
    impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
    place.run("ADD", "stays", &conf).addresses();
    for nth in 1.. {
        place.run("ADD", "c", &conf).addresses();
        let context = format!("killed at {call} {nth}");
        let was_killed = place.while_held(|_| killed_at(&place, "DEL", "c", &impatient, call, nth));
        let whole: Vec<PathBuf> = spooled(&place).into_iter().filter(|path| is_whole(path)).collect();
        let mut left: Vec<String> = holders(&place.leases()).into_values().collect();
        left.sort();
        // What is written down counts from then on, whether it was answered or not.
        let expected = if whole.is_empty() { vec!["c", "stays"] } else { vec!["stays"] };
        assert_eq!(left, expected, "{context}: {whole:?}");
        if was_killed {
            assert!(place.run("DEL", "c", &conf).success, "{context}");
        } else {
            assert_eq!(whole.len(), 1, "{call} {nth}: it was answered");
            place.run("ADD", "other", &conf).addresses();
            assert!(place.run("DEL", "other", &conf).success);
        }
        assert_eq!(holders(&place.leases()).into_values().collect::<Vec<_>>(), ["stays"], "{context}");
        assert!(!spooled(&place).iter().any(|path| is_whole(path)), "{context}: carried out, and there still");
        assert_eq!(told(&place, "c", "leased"), told(&place, "c", "released"), "{context}");
        place.assert_copied(&context);
        if !was_killed {
            return nth - 1;
        }
    }
    unreachable!("the loop ends with the first that is not killed");
}

/// Whoever opens the ledger next, killed while it carries out what is written down: the one after does it.
fn survive_carrying_out(call: &str) -> usize {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
    let mut impatient = conf.clone();
    impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
    place.run("ADD", "stays", &conf).addresses();
    for nth in 1.. {
        place.run("ADD", "c", &conf).addresses();
        place.while_held(|_| assert!(place.run("DEL", "c", &impatient).success, "it is written down"));
        let context = format!("killed at {call} {nth}");
        let was_killed = killed_at(&place, "ADD", "opener", &conf, call, nth);
        let held: Vec<String> = holders(&place.leases()).into_values().collect();
        assert!(!held.contains(&"c".to_owned()), "{context}: as good as released, done or not: {held:?}");
        assert!(held.contains(&"stays".to_owned()), "{context}: {held:?}");
        // Every one after the killed one finds the same, also if it is the killed one's own DEL.
        assert!(place.run("DEL", "opener", &conf).success, "{context}");
        assert_eq!(holders(&place.leases()).into_values().collect::<Vec<_>>(), ["stays"], "{context}");
        assert_eq!(spooled(&place), Vec::<PathBuf>::new(), "{context}: carried out, and there still");
        let (begun, ended) = (told(&place, "c", "leased"), told(&place, "c", "released"));
        assert!(ended >= begun, "{context}: it has begun {begun} times, and ended {ended}");
        place.assert_copied(&context);
        if !was_killed {
            return nth - 1;
        }
    }
    unreachable!("the loop ends with the first that is not killed");
}

#[test]
fn at_every_change_while_a_release_is_written_down() {
    let kills = ["mkdir", "openat", "write", "fsync", "rename"].map(|call| (call, survive_writing_down(call)));
    // The folder is there after the first; the lock's file and the wish's are opened, it is written, flushed with its
    // folder, and renamed.
    assert!(kills.iter().all(|(_, kills)| *kills > 0), "{kills:?}");
}

#[test]
fn at_every_change_while_releases_are_carried_out() {
    let calls = ["write", "pwrite64", "rename", "unlink", "fsync", "ftruncate"];
    let kills = calls.map(|call| (call, survive_carrying_out(call)));
    assert!(kills.iter().all(|(_, kills)| *kills > 0), "{kills:?}");
}

#[test]
fn at_every_change_before_the_database_is_lost() {
    ["write", "rename", "unlink", "fsync"].into_iter().for_each(survive_with_damage);
}

#[test]
fn at_every_write() {
    ["write", "pwrite64"].into_iter().for_each(survive);
}

#[test]
fn at_every_change_of_a_folder() {
    ["openat", "mkdir", "rename", "unlink"].into_iter().for_each(survive);
}

#[test]
fn at_every_lock_and_flush() {
    ["flock", "ftruncate", "fsync", "sync_file_range"].into_iter().for_each(survive);
}
