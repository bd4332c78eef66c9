//! Damage, and commands that must not do any.

use std::fs;

use serde_json::json;

use super::populated;
use crate::support::database;

/// What opening does not touch shows when it is read; nothing that only opens the ledger would mend it.
#[test]
fn repair_finds_what_shows_only_when_everything_is_read() {
    sandbox::private_host(|| {
        for spoil in [spoil_a_lease, spoil_the_index, add_to_the_index] {
            let place = populated();
            let before = place.leases();
            place.undisturbed(|| {
                let db = database(&place.data_dir().join("ledger"));
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
