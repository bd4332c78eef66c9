//! What only concerns whoever opens the database by himself: that it is not there, damaged, or open elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::support::{Answer, Place, attachment, damage, holders, ip, ips};
use cni_spec::{CniError, ErrorCode};
use ipam::{Error, Lease, Origin, Released, code};
use serde_json::{Value, json};

fn small() -> Value {
    json!({ "subnet": "10.1.2.0/29", "cooldownSeconds": 0 })
}

#[test]
fn a_release_makes_no_ledger() {
    let place = Place::new();
    assert_eq!(place.ledger().release(&attachment("n", "c1")).unwrap(), Released::Nothing);
    assert!(!place.data_dir().exists());
}

#[test]
fn status_makes_no_ledger() {
    let place = Place::new();
    place.ipam("n", &small()).status().unwrap();
    assert!(!place.data_dir().exists());
}

#[test]
fn a_delete_is_remembered_while_there_is_no_database() {
    let place = Place::new();
    let waiting = place.ipam("n", &small());
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(3) {
        std::thread::yield_now();
    }
    // As while the first ADD makes the database, or after a damaged one was put aside.
    fs::create_dir(place.data_dir()).unwrap();
    assert_eq!(place.ledger().release(&attachment("n", "c1")).unwrap(), Released::Nothing);
    let error = waiting.lease(&place.request("n", "c1")).unwrap_err();
    assert_eq!(error.code(), code::DELETED, "{error}");
}

#[test]
fn a_damaged_ledger_is_put_aside_and_pods_go_on() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    ipam.lease(&place.request("n", "c1")).unwrap();
    for round in 1..=5 {
        damage(&place.data_dir());
        let look = place.ledger().leases("test");
        assert!(matches!(look, Err(Error::Store { .. })), "looking mends nothing: {look:?}");
        let gone = format!("c{}", round / 2);
        if round % 2 == 0 {
            let released = ipam.release(&attachment("n", &gone)).unwrap();
            assert!(matches!(released, Released::Lease(_)), "{released:?}");
        }
        let lease = ipam.lease(&place.request("n", &format!("c{}", round + 1))).unwrap();
        assert!(lease.fresh);
        assert_eq!(holders(&place.leases()).len(), 1 + round - round / 2);
    }
    let aside = place.ledger().quarantined().unwrap();
    assert_eq!(aside.len(), 3, "the last three are kept");
    let reason = fs::read_to_string(aside[0].join("reason.txt")).unwrap();
    assert!(reason.starts_with("sled "), "{reason}");
}

#[test]
fn a_pending_release_is_carried_out_by_the_next_opener() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    for container in ["c1", "c2"] {
        ipam.lease(&place.request("n", container)).unwrap();
    }
    // The database is open without our lock: the engine's own lock keeps the release out.
    let held = fs::File::open(place.data_dir().join("ledger/db")).unwrap();
    held.lock().unwrap();
    assert_eq!(ipam.release(&attachment("n", "c1")).unwrap(), Released::Spooled);
    let error = CniError::from(ipam.lease(&place.request("n", "c3")).unwrap_err());
    assert_eq!((error.code, error.details.as_str()), (ErrorCode::TryAgainLater, "the database is open elsewhere"));
    drop(held);
    let left = || fs::read_dir(place.data_dir().join("pending-del")).unwrap().count();
    assert_eq!(holders(&place.leases()).into_values().collect::<Vec<_>>(), ["c2"], "it is as good as released");
    assert_eq!(left(), 1, "looking carries nothing out");
    let again = place.ipam("n", &small()).lease(&place.request("n", "c1")).unwrap();
    assert!(again.fresh);
    assert_eq!(left(), 0);
    assert_eq!(place.leases().len(), 2, "the old request does not end the new lease");
    assert!(place.leases().iter().all(|lease| lease.origin == Origin::Add));
}

#[test]
fn a_pending_undo_ends_its_own_lease_only() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let lease = ipam.lease(&place.request("n", "c1")).unwrap();
    let held = fs::File::open(place.data_dir().join("ledger/db")).unwrap();
    held.lock().unwrap();
    ipam.undo(&lease).unwrap();
    ipam.undo(&Lease { lease_id: "another".parse().unwrap(), ..lease.clone() }).unwrap();
    drop(held);
    assert_eq!(place.leases(), []);
    let next = ipam.lease(&place.request("n", "c2")).unwrap();
    assert_eq!(holders(&place.leases()).len(), 1);
    assert_eq!(ip(&ips(&next)[0]), next.addresses[0].address.ip());
}

/// The DEL that the runtime sends after an ADD that it gave up: both waited for the ledger, and the ADD gets it last.
#[test]
fn a_pending_release_keeps_a_late_add_from_leasing() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    ipam.lease(&place.request("n", "c1")).unwrap();
    let given_up = place.ipam("n", &small());
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(3) {
        std::thread::yield_now();
    }
    let held = fs::File::open(place.data_dir().join("ledger/db")).unwrap();
    held.lock().unwrap();
    assert_eq!(ipam.release(&attachment("n", "c2")).unwrap(), Released::Spooled);
    drop(held);
    assert_eq!(given_up.lease(&place.request("n", "c2")).unwrap_err().code(), code::DELETED);
    assert!(place.ipam("n", &small()).lease(&place.request("n", "c2")).unwrap().fresh);
}

/// A file that the plugin may not open: root too may be refused, by a security module or a network file system.
#[test]
fn a_ledger_that_the_plugin_may_not_read_is_named_and_left_alone() {
    let place = Place::new();
    let conf = place.json("n", &small());
    place.run("ADD", "c1", &conf).addresses();
    let program = place.data_dir().with_file_name("podwire-ipam");
    // Not by this process: whoever forks meanwhile would have it open for writing, and what is open so cannot be run.
    let copied = sandbox::command("cp").arg(env!("CARGO_BIN_EXE_podwire-ipam")).arg(&program).status().unwrap();
    assert!(copied.success());
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(program.parent().unwrap(), 0o755);
    mode(&program, 0o755);
    // Root may read everything, so root asks as somebody else; an ordinary user takes his own right away.
    let is_root = nix::unistd::geteuid().is_root();
    let asked = |command: &str, container: &str| {
        let mut process = sandbox::command(&program);
        if is_root {
            process.uid(65534).gid(65534);
        }
        Answer::of(&place.feed(process, command, container, &conf).wait_with_output().unwrap())
    };
    for (path, closed, open) in [("", 0o700, 0o700), ("lock", 0o600, 0o600)] {
        let path = place.data_dir().join(path);
        // The folder itself, or a file in one that may be entered.
        mode(&place.data_dir(), 0o755);
        mode(&path, if is_root { closed } else { 0 });
        let (added, deleted, status) = (asked("ADD", "c2"), asked("DEL", "c1"), asked("STATUS", "c1"));
        mode(&path, open);
        mode(&place.data_dir(), 0o700);
        assert!(added.error().0 == 5 && added.error().1.contains("ledger"), "{added:?}");
        assert!(added.json["details"].as_str().unwrap().contains("Permission denied"), "{added:?}");
        assert_eq!(deleted.error().0, 11, "neither carried out nor written down: {deleted:?}");
        assert_eq!(status.error().0, 50, "{status:?}");
        assert_eq!(place.leases().len(), 1, "{}", path.display());
    }
    assert!(place.run("DEL", "c1", &conf).success);
    assert!(place.leases().is_empty());
}
