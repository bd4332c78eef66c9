//! The copies beside the database, on a host whose kernel shows no pod: as with any main plugin but podwire.

use std::fs;
use std::path::PathBuf;

use crate::support::{Place, attachment, damage, holders, ips};
use cni_spec::ValidAttachments;
use ipam::{Ipam, Lease, Record, Released};
use serde_json::{Value, json};

fn conf() -> Value {
    json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"], "cooldownSeconds": 0 })
}

fn leased(place: &Place, ipam: &Ipam, container: &str) -> Lease {
    ipam.lease(&place.request("n", container)).unwrap()
}

/// The copy of a container's lease.
fn copy(place: &Place, container: &str) -> (PathBuf, Record) {
    let is_of = |record: &Record| record.attachment.container_id.as_str() == container;
    place.copies().into_iter().find(|(_, record)| is_of(record)).unwrap()
}

fn note(place: &Place, text: &str) {
    fs::write(place.data_dir().join("unsettled"), text).unwrap();
}

fn containers(place: &Place) -> Vec<String> {
    let mut all: Vec<String> = holders(&place.leases()).into_values().collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_damaged_ledger_gives_no_address_twice() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let first = leased(&place, &ipam, "x1");
    damage(&place.data_dir());
    let second = leased(&place, &ipam, "x2");
    assert!(ips(&second).iter().all(|ip| !ips(&first).contains(ip)), "{first:?} {second:?}");
    damage(&place.data_dir());
    let again = leased(&place, &ipam, "x1");
    assert_eq!(again, Lease { fresh: false, ..first.clone() });
    damage(&place.data_dir());
    ipam.undo(&first).unwrap();
    assert_eq!(containers(&place), ["x2"], "the lease has kept its name");
    place.assert_copied("undo");
}

/// The engine opens what is left of a log that lost its end, without a word.
#[test]
fn a_ledger_that_went_back_in_time_is_damaged() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "x1");
    let (now, before) = (place.data_dir().join("ledger"), place.data_dir().join("before"));
    fs::create_dir(&before).unwrap();
    for entry in fs::read_dir(&now).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), before.join(entry.file_name())).unwrap();
    }
    let second = leased(&place, &ipam, "x2");
    for round in 1..=3 {
        fs::remove_dir_all(&now).unwrap();
        fs::create_dir(&now).unwrap();
        for entry in fs::read_dir(&before).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), now.join(entry.file_name())).unwrap();
        }
        let look = place.ledger().leases("test").unwrap_err();
        assert_eq!(look.code(), ipam::code::DAMAGED, "{look}");
        let third = leased(&place, &ipam, &format!("y{round}"));
        assert!(ips(&third).iter().all(|ip| !ips(&second).contains(ip)), "{second:?} {third:?}");
        place.assert_copied("the rebuilt ledger");
        assert_eq!((place.leases().len(), place.ledger().quarantined().unwrap().len()), (2 + round, round));
    }
    let aside = place.ledger().quarantined().unwrap();
    let reason = fs::read_to_string(aside[0].join("reason.txt")).unwrap();
    assert_eq!(reason, "it counts 1 changes of leases, but 2 were made\n");
    ipam.release(&attachment("n", "x1")).unwrap();
    assert_eq!(place.ledger().quarantined().unwrap().len(), 3, "the new database counts on");
}

#[test]
fn what_ends_leaves_no_copy() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    for container in ["deleted", "undone", "collected"] {
        let lease = leased(&place, &ipam, container);
        place.assert_copied(container);
        match container {
            "deleted" => drop(ipam.release(&lease.attachment).unwrap()),
            "undone" => ipam.undo(&lease).unwrap(),
            _ => drop(ipam.gc(&lease.attachment.network, &ValidAttachments::default()).unwrap()),
        }
        assert_eq!((place.copies().len(), place.leases().len()), (0, 0), "{container}");
        assert!(!place.data_dir().join("unsettled").exists(), "{container}");
    }
    damage(&place.data_dir());
    leased(&place, &ipam, "new");
    assert_eq!(containers(&place), ["new"]);
}

#[test]
fn a_new_lease_of_an_attachment_takes_the_old_ones_copy() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let mut request = place.request("n", "x1");
    ipam.lease(&request).unwrap();
    request.netns = ipam::Netns::at(&place.netns("x1-restarted"));
    let second = ipam.lease(&request).unwrap();
    place.assert_copied("the second ADD");
    assert_eq!(copy(&place, "x1").1.lease_id, second.lease_id);
}

/// Killed between the end of a lease and that of its copy: the copy is settled before it can do harm.
#[test]
fn a_copy_that_outlived_its_lease_is_settled() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let first = leased(&place, &ipam, "x1");
    let (path, _) = copy(&place, "x1");
    let text = fs::read(&path).unwrap();
    ipam.release(&first.attachment).unwrap();
    fs::write(&path, &text).unwrap();
    note(&place, "\nn x1 eth0\n");
    leased(&place, &ipam, "x2");
    place.assert_copied("settled");
    // The same, but the database is lost before anybody could settle it: the DEL, never answered, is repeated.
    fs::write(&path, &text).unwrap();
    note(&place, "\nn x1 eth0\n");
    damage(&place.data_dir());
    assert!(matches!(ipam.release(&first.attachment).unwrap(), Released::Lease(_)));
    assert_eq!(containers(&place), ["x2"]);
    place.assert_copied("the repeated DEL");
}

/// Killed between the lease and its copy.
#[test]
fn a_lease_without_a_copy_gets_one() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let first = leased(&place, &ipam, "x1");
    let (path, _) = copy(&place, "x1");
    fs::remove_file(&path).unwrap();
    fs::write(path.with_extension("unfinished"), "{\"leaseId\"").unwrap();
    note(&place, "\nn x1 eth0\n\nn x2 et");
    assert!(!leased(&place, &ipam, "x1").fresh);
    place.assert_copied("settled");
    damage(&place.data_dir());
    assert!(!ips(&leased(&place, &ipam, "x2")).contains(&ips(&first)[0]));
}

/// Killed between the note and the change: a note about nothing does nothing.
#[test]
fn a_note_alone_changes_nothing() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "x1");
    let before = place.copies();
    for text in
        ["", "\n", "\nn x1 eth0\n", "\nn unknown eth0\n", "\nn x1", "\u{0}\u{0}\u{0}\nnot an attachment at all\n"]
    {
        note(&place, text);
        assert_eq!(ipam.release(&attachment("n", "nobody")).unwrap(), Released::Nothing, "{text:?}");
        assert_eq!(place.copies(), before, "{text:?}");
        assert!(!place.data_dir().join("unsettled").exists(), "{text:?}");
    }
}

#[test]
fn copies_that_mean_nothing_block_nothing() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    for container in ["torn", "of-another-boot", "older", "renamed", "stays"] {
        leased(&place, &ipam, container);
    }
    let write = |path: &PathBuf, record: &Record| fs::write(path, json!(record).to_string()).unwrap();
    let (path, mut record) = copy(&place, "of-another-boot");
    record.boot_id = "another".to_owned();
    write(&path, &record);
    let (path, mut older) = copy(&place, "older");
    older.addresses = copy(&place, "stays").1.addresses;
    older.created_boottime_ms = 1;
    write(&path, &older);
    let (path, _) = copy(&place, "renamed");
    fs::rename(&path, path.with_file_name("0123.json")).unwrap();
    let (torn, _) = copy(&place, "torn");
    let (newer, mut foreign) = (torn.with_file_name("4567.json"), json!(copy(&place, "stays").1));
    fs::write(&torn, &fs::read(&torn).unwrap()[..40]).unwrap();
    foreign["addresses"] = json!({ "a newer version": "says it otherwise" });
    fs::write(&newer, foreign.to_string()).unwrap();
    damage(&place.data_dir());
    leased(&place, &ipam, "new");
    assert_eq!(containers(&place), ["new", "stays"]);
    place.assert_copied("the rebuilt ledger");
    let aside = torn.with_extension("unreadable");
    assert_eq!(fs::read(aside).unwrap().len(), 40, "people can look at what nobody could understand");
    assert_eq!(fs::read_to_string(newer.with_extension("unreadable")).unwrap(), foreign.to_string());
}

#[test]
fn a_ledger_that_has_no_copies_gets_them() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "x1");
    fs::remove_dir_all(place.data_dir().join("leases")).unwrap();
    fs::create_dir(place.data_dir().join("leases.new")).unwrap();
    fs::write(place.data_dir().join("leases.new/half.json"), "{").unwrap();
    leased(&place, &ipam, "x2");
    place.assert_copied("the first visit");
    assert_eq!(place.copies().len(), 2);
}

#[test]
fn copies_that_cannot_be_written_keep_add_from_leasing_and_del_from_nothing() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let lease = leased(&place, &ipam, "x1");
    let (path, _) = copy(&place, "x1");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    note(&place, "\nn x1 eth0\n");
    let refused = ipam.lease(&place.request("n", "x2")).unwrap_err();
    assert_eq!(refused.code(), cni_spec::ErrorCode::Io);
    assert_eq!(refused.to_string(), format!("cannot read or write {}", path.display()));
    assert_eq!(containers(&place), ["x1"], "it was refused before anything was leased");
    assert!(matches!(ipam.release(&lease.attachment).unwrap(), Released::Lease(_)));
    fs::remove_dir(&path).unwrap();
    leased(&place, &ipam, "x2");
    assert_eq!(containers(&place), ["x2"]);
    place.assert_copied("in the end");
}
