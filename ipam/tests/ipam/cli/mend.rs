//! Damage, and commands that must not do any.

use std::fs;

use serde_json::{Value, json};

use super::populated;
use crate::support::damage;

#[test]
fn repair_makes_a_damaged_ledger_anew() {
    sandbox::private_host(|| {
        let place = populated();
        let before = place.leases();
        damage(&place.data_dir());
        for command in ["pools", "stats", "check", "verify", "export", "gc"] {
            let refused = place.cli(&[command]);
            assert_eq!(refused.code, 6, "{command}: {refused:?}");
            assert!(refused.stderr.contains("ipam repair"), "{command}: {refused:?}");
        }
        assert_eq!(place.cli(&["list", "-q"]).code, 0, "the copies can be read");
        let status = place.cli(&["status"]);
        assert_eq!((status.code, status.stdout.starts_with("Status:  not ready")), (6, true), "{status:?}");
        let dry = place.cli(&["repair", "--dry-run"]);
        assert_eq!((dry.code, dry.stdout.starts_with("would put the damaged ledger aside")), (4, true), "{dry:?}");
        assert_eq!(place.cli(&["pools"]).code, 6, "a dry run mends nothing");
        let mended = place.cli(&["repair", "--yes"]);
        assert_eq!(mended.code, 0, "{mended:?}");
        assert!(mended.stdout.starts_with("rebuilt the ledger with 3 leases; the old one is "), "{mended:?}");
        assert_eq!(place.leases(), before);
        let check = place.document(&["check"]);
        assert_eq!(check["items"][0]["kind"], "quarantined");
        let status = place.document(&["status"]);
        assert_eq!(
            (&status["items"][0]["ready"], status["items"][0]["reasons"].as_array().unwrap().len()),
            (&json!(true), 1)
        );
    });
}

/// What opening does not touch shows when it is read; nothing that only opens the ledger would mend it.
#[test]
fn repair_finds_what_shows_only_when_everything_is_read() {
    sandbox::private_host(|| {
        for spoil in [spoil_a_lease, spoil_the_index, add_to_the_index] {
            let place = populated();
            let before = place.leases();
            place.undisturbed(|| {
                let db = sled::open(place.data_dir().join("ledger")).unwrap();
                spoil(&db);
                db.flush().unwrap();
            });
            if !crate::RESIDENT {
                assert_eq!(place.cli(&["check"]).code, 6);
                assert_eq!(place.cli(&["repair", "--dry-run"]).code, 4);
                let mended = place.cli(&["repair", "--yes"]);
                assert_eq!(mended.code, 0, "{mended:?}");
                assert!(mended.stdout.starts_with("rebuilt the ledger with 3 leases; "), "{mended:?}");
            }
            assert_eq!(place.leases(), before, "an owner mends it when it starts");
            assert_eq!(place.ledger().quarantined().unwrap().len(), 1);
            let again = place.cli(&["repair", "--yes"]);
            assert_eq!((again.code, again.stderr.starts_with("nothing to mend")), (0, true), "{again:?}");
            assert!(place.run("DEL", "plain", &place.json("blue", &json!({}))).success);
            assert_eq!(place.leases().len(), 2);
        }
    });
}

fn spoil_a_lease(db: &sled::Db) {
    let (key, _) = db.scan_prefix("l").next().unwrap().unwrap();
    db.insert(key, "no lease").unwrap();
}

/// An address of a lease is nobody's.
fn spoil_the_index(db: &sled::Db) {
    let (key, _) = db.scan_prefix("a").next().unwrap().unwrap();
    db.remove(key).unwrap();
}

/// An address is held by a lease that does not have it.
fn add_to_the_index(db: &sled::Db) {
    let (key, holder) = db.scan_prefix("a").next().unwrap().unwrap();
    let mut other = key.to_vec();
    *other.last_mut().unwrap() = 99;
    db.insert(other, holder).unwrap();
}

#[test]
fn a_busy_ledger_names_its_holder() {
    sandbox::private_host(|| {
        let place = populated();
        let held = fs::File::open(place.data_dir().join("lock")).unwrap();
        held.lock().unwrap();
        let dir = place.data_dir();
        let status = super::ipam(&["status", "-o", "json", "--timeout", "0", "--dir", dir.to_str().unwrap()]);
        assert_eq!(status.code, 5);
        let state: Value = serde_json::from_str(&status.stdout).unwrap();
        super::documents::assert_fits(&state);
        let holder = state["items"][0]["busy"].as_str().unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        for command in ["list", "history"] {
            assert_eq!(place.cli(&[command]).code, 0, "{command} waits for nobody");
        }
    });
}

#[test]
fn a_dry_run_changes_nothing() {
    sandbox::private_host(|| {
        let place = populated();
        for name in ["0a1b2c3d4e5f60718293", "1b2c3d4e", "plain"] {
            fs::remove_file(place.netns(name)).unwrap();
        }
        let files = |place: &crate::support::Place| -> Vec<(String, Vec<u8>)> {
            let mut found = Vec::new();
            for name in ["history.jsonl", "reservations.json", "generation"] {
                found.push((name.to_owned(), fs::read(place.data_dir().join(name)).unwrap_or_default()));
            }
            found
        };
        let (leases, before) = (place.leases(), files(&place));
        let host_local = place.data_dir().with_file_name("host-local");
        fs::create_dir_all(host_local.join("podnet")).unwrap();
        fs::write(host_local.join("podnet/10.5.0.9"), "x\r\neth0").unwrap();
        let from = format!("host-local:{}", host_local.display());
        for (arguments, code) in [
            (vec!["release", "10.1.2.2", "--dry-run"], 0),
            (vec!["reserve", "10.1.2.9", "--reason", "x", "--dry-run"], 0),
            (vec!["gc", "--min-age", "0s"], 4),
            (vec!["gc", "--min-age", "0s", "--dry-run"], 4),
            (vec!["import", &from, "--dry-run"], 0),
            (vec!["repair", "--dry-run"], 0),
            (vec!["release", "10.1.2.2"], 7),
        ] {
            let printed = place.cli(&arguments);
            assert_eq!(printed.code, code, "{arguments:?}: {printed:?}");
        }
        assert_eq!((place.leases(), files(&place)), (leases, before));
    });
}
