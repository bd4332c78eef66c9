//! What only concerns whoever opens the database by himself: that it is not there, damaged, or open elsewhere.

use crate::support::{Place, attachment, damage, holders, ip, ips};
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
    std::fs::create_dir(place.data_dir()).unwrap();
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
    let reason = std::fs::read_to_string(aside[0].join("reason.txt")).unwrap();
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
    let held = std::fs::File::open(place.data_dir().join("ledger/db")).unwrap();
    held.lock().unwrap();
    assert_eq!(ipam.release(&attachment("n", "c1")).unwrap(), Released::Spooled);
    let error = CniError::from(ipam.lease(&place.request("n", "c3")).unwrap_err());
    assert_eq!((error.code, error.details.as_str()), (ErrorCode::TryAgainLater, "the database is open elsewhere"));
    drop(held);
    let left = || std::fs::read_dir(place.data_dir().join("pending-del")).unwrap().count();
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
    let held = std::fs::File::open(place.data_dir().join("ledger/db")).unwrap();
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
    let held = std::fs::File::open(place.data_dir().join("ledger/db")).unwrap();
    held.lock().unwrap();
    assert_eq!(ipam.release(&attachment("n", "c2")).unwrap(), Released::Spooled);
    drop(held);
    assert_eq!(given_up.lease(&place.request("n", "c2")).unwrap_err().code(), code::DELETED);
    assert!(place.ipam("n", &small()).lease(&place.request("n", "c2")).unwrap().fresh);
}
