//! Killed at the first, the second, the third... of each system call that changes a file. strace(1) counts the
//! calls of each thread apart, so of the engine's own threads only the first call of each kind is met for sure;
//! `processes.rs` strikes at random.

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
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<std::path::PathBuf>::new(), "the ledger was damaged");
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
