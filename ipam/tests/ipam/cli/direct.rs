//! The command where there is no owner: no ledger, or one that somebody works with who has locked it.

use std::fs;

use serde_json::{Value, json};

use crate::cli::{documents, ipam, populated};
use crate::support::{Place, damage};

#[test]
fn looking_makes_nothing() {
    let place = Place::new();
    let listed = place.cli(&["list"]);
    assert_eq!((listed.code, listed.stdout.trim_end()), (0, "ADDRESS  POD  CONTAINER  IF  NETWORK  AGE"));
    assert_eq!(listed.stderr, format!("no leases in {}\n", place.data_dir().display()));
    assert_eq!(place.document(&["list"])["items"], json!([]));
    for (arguments, code) in [
        (vec!["show", "x"], 3),
        (vec!["pools"], 0),
        (vec!["stats"], 0),
        (vec!["metrics"], 0),
        (vec!["status"], 0),
        (vec!["check"], 0),
        (vec!["verify"], 0),
        (vec!["gc"], 0),
        (vec!["history"], 0),
        (vec!["history", "10.1.2.3"], 3),
        (vec!["map"], 3),
        (vec!["map", "10.1.2.0/24"], 0),
        (vec!["export"], 0),
        (vec!["repair", "--yes"], 0),
        (vec!["unreserve", "10.1.2.3", "--yes"], 3),
        (vec!["reserve", "10.1.2.3", "--reason", "x", "--dry-run"], 0),
        (vec!["watch", "--for", "0s"], 0),
    ] {
        let printed = place.cli(&arguments);
        assert_eq!(printed.code, code, "{arguments:?}: {printed:?}");
    }
    assert_eq!(place.cli(&["release", "10.1.2.3", "--yes"]).code, 3);
    assert!(!place.data_dir().exists());
}

#[test]
fn exit_codes_are_as_documented() {
    let place = populated();
    assert_eq!(place.cli(&["release", "--yes"]).code, 2, "of everything there is?");
    assert_eq!(place.cli(&["list", "-4", "-6"]).code, 2);
    assert_eq!(ipam(&["--version"]).code, 0);
    assert_eq!(ipam(&[]).code, 2);
    let endless = ipam(&["list", "--state", "cooling", "--timeout", "18446744073709551615"]);
    assert_eq!((endless.code, endless.stderr.contains("is not in 0..=86400")), (2, true), "{endless:?}");
    let held = fs::File::open(place.data_dir().join("lock")).unwrap();
    held.lock().unwrap();
    let dir = place.data_dir();
    assert_eq!(place.cli(&["list"]).code, 0, "a list waits for nobody");
    let busy = ipam(&["pools", "--dir", dir.to_str().unwrap(), "--timeout", "0"]);
    assert_eq!(busy.code, 5);
    assert!(busy.stderr.starts_with("ipam: the ledger is busy: "), "{busy:?}");
    drop(held);
    damage(&place.data_dir());
    let damaged = place.cli(&["pools"]);
    assert_eq!(damaged.code, 6);
    assert!(damaged.stderr.contains("the next ADD or DEL puts it aside"), "{damaged:?}");
}

#[test]
fn a_busy_ledger_names_its_holder() {
    sandbox::private_host(|| {
        let place = populated();
        let held = fs::File::open(place.data_dir().join("lock")).unwrap();
        held.lock().unwrap();
        let dir = place.data_dir();
        let status = ipam(&["status", "-o", "json", "--timeout", "0", "--dir", dir.to_str().unwrap()]);
        assert_eq!(status.code, 5);
        let state: Value = serde_json::from_str(&status.stdout).unwrap();
        documents::assert_fits(&state);
        let holder = state["items"][0]["busy"].as_str().unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        for command in ["list", "history"] {
            assert_eq!(place.cli(&[command]).code, 0, "{command} waits for nobody");
        }
    });
}

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
