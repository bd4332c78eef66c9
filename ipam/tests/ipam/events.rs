//! What the history says, and that what is set aside is not leased.

use std::fs;

use crate::support::{Place, attachment, damage, ip, ips};
use cni_spec::{CniError, ErrorCode, ValidAttachments};
use ipam::{Ipam, Lease, code};
use serde_json::{Value, json};

fn conf() -> Value {
    json!({ "podCIDR": ["10.1.2.0/29", "fd00::/64"], "cooldownSeconds": 0 })
}

fn leased(place: &Place, ipam: &Ipam, container: &str) -> Lease {
    ipam.lease(&place.request("n", container)).unwrap()
}

/// `EVENT CONTAINER (PURPOSE)` of each line.
fn history(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.data_dir().join("history.jsonl")).unwrap_or_default();
    let line = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let container = event["lease"]["attachment"]["containerId"].as_str().unwrap();
        let purpose = event["by"]["purpose"].as_str().unwrap();
        assert_eq!(event["by"]["pid"], std::process::id());
        format!("{} {container} ({purpose})", event["event"].as_str().unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn every_change_of_leases_is_in_the_history() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let mut expected = Vec::new();
    let mut expect = |events: &[&str]| {
        expected.extend(events.iter().map(|event| (*event).to_owned()));
        assert_eq!(history(&place), expected);
    };
    let mut request = place.request("n", "c1");
    ipam.lease(&request).unwrap();
    ipam.lease(&request).unwrap();
    expect(&["leased c1 (ADD n c1 eth0)"]);
    request.netns = ipam::Netns::at(&place.netns("c1-restarted"));
    ipam.lease(&request).unwrap();
    expect(&["replaced c1 (ADD n c1 eth0)", "leased c1 (ADD n c1 eth0)"]);
    ipam.release(&request.attachment).unwrap();
    ipam.release(&request.attachment).unwrap();
    expect(&["released c1 (DEL n c1 eth0)"]);
    let second = leased(&place, &ipam, "c2");
    ipam.undo(&second).unwrap();
    expect(&["leased c2 (ADD n c2 eth0)", "undone c2 (undo of ADD n c2 eth0)"]);
    leased(&place, &ipam, "c3");
    ipam.gc(&"n".parse().unwrap(), &ValidAttachments::default()).unwrap();
    expect(&["leased c3 (ADD n c3 eth0)", "collected c3 (GC n)"]);
    leased(&place, &ipam, "c4");
    place.undisturbed(|| damage(&place.data_dir()));
    leased(&place, &ipam, "c5");
    expect(&["leased c4 (ADD n c4 eth0)", "leased c5 (ADD n c5 eth0)"]);
}

/// Killed after the change and before its line: the next opener writes it.
#[test]
fn what_a_killed_process_did_is_in_the_history_too() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let kept = leased(&place, &ipam, "kept");
    let ended = leased(&place, &ipam, "ended");
    let copy = place.copies().into_iter().find(|(_, record)| record.lease_id == ended.lease_id).unwrap();
    ipam.release(&ended.attachment).unwrap();
    // As it stands before the copies are made like the database.
    fs::write(&copy.0, json!(copy.1).to_string()).unwrap();
    let (kept_copy, _) = place.copies().into_iter().find(|(_, record)| record.lease_id == kept.lease_id).unwrap();
    fs::remove_file(kept_copy).unwrap();
    let said = |why: &str, purpose: &str| {
        let by = json!({ "purpose": purpose, "pid": std::process::id(), "uid": 0 });
        json!({ "at": "2026-01-01T00:00:00Z", "why": why, "by": by })
    };
    let (add, gc) = (said("replaced", "ADD n kept eth0"), said("collected", "GC n"));
    fs::write(place.data_dir().join("unsettled"), format!("\n{add}\n\nn kept eth0\n\n{gc}\n\nn ended eth0\n")).unwrap();
    fs::remove_file(place.data_dir().join("history.jsonl")).unwrap();
    ipam.release(&attachment("n", "unknown")).unwrap();
    assert_eq!(history(&place), ["collected ended (GC n)", "leased kept (ADD n kept eth0)"]);
    place.assert_copied("settled");
}

/// What a request did before it was refused is told, and told as its own.
#[test]
fn what_a_refused_request_ended_is_in_the_history() {
    let place = Place::new();
    let ipam = place.ipam("n", &json!({ "podCIDR": ["10.1.2.0/29", "fd00::2/128"], "cooldownSeconds": 0 }));
    leased(&place, &ipam, "c1");
    let narrow = place.ipam("n", &json!({ "podCIDR": ["10.1.2.0/29", "fd00::4/128"], "cooldownSeconds": 0 }));
    leased(&place, &narrow, "c2");
    let mut request = place.request("n", "c1");
    request.netns = ipam::Netns::at(&place.netns("c1-restarted"));
    assert_eq!(narrow.lease(&request).unwrap_err().code(), code::EXHAUSTED);
    let expected = ["leased c1 (ADD n c1 eth0)", "leased c2 (ADD n c2 eth0)", "replaced c1 (ADD n c1 eth0)"];
    assert_eq!(history(&place), expected);
    place.assert_copied("the refusal");
    leased(&place, &ipam, "c3");
    assert_eq!(history(&place)[3..], ["leased c3 (ADD n c3 eth0)"]);
}

#[test]
fn a_history_that_cannot_be_written_keeps_no_pod_from_its_address() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "c1");
    fs::remove_file(place.data_dir().join("history.jsonl")).unwrap();
    fs::create_dir(place.data_dir().join("history.jsonl")).unwrap();
    leased(&place, &ipam, "c2");
    ipam.release(&attachment("n", "c1")).unwrap();
    assert_eq!(place.leases().len(), 1);
}

#[test]
fn what_is_set_aside_is_not_leased() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "before");
    let reserve = |reservations: &Value| {
        fs::write(place.data_dir().join("reservations.json"), reservations.to_string()).unwrap();
    };
    reserve(&json!([
        { "cidr": "10.1.2.4/31", "reason": "the printers" },
        { "cidr": "10.1.2.2/32", "reason": "a lease that stands" },
        { "cidr": "10.1.2.3/32", "reason": "long ago", "until": "2020-01-01T00:00:00Z" },
    ]));
    assert_eq!(ips(&leased(&place, &ipam, "before"))[0], "10.1.2.2", "a lease stays what it is");
    assert_eq!(ips(&leased(&place, &ipam, "c1"))[0], "10.1.2.3");
    assert_eq!(ips(&leased(&place, &ipam, "c2"))[0], "10.1.2.6");
    assert_eq!(ipam.lease(&place.request("n", "c3")).unwrap_err().code(), code::EXHAUSTED);
    assert_eq!(CniError::from(ipam.status().unwrap_err()).code, ErrorCode::NotAvailable);
    let mut request = place.request("n", "c3");
    request.args = "IP=10.1.2.5".parse().unwrap();
    let refused = CniError::from(ipam.lease(&request).unwrap_err());
    let text = "address 10.1.2.5 was asked for, but is reserved: the printers";
    assert_eq!((refused.code, refused.msg.as_str()), (code::TAKEN, text));
    assert_eq!(refused.details, "end the reservation with: ipam unreserve");
    reserve(&json!([]));
    assert_eq!(leased(&place, &ipam, "c3").addresses[0].address.ip(), ip("10.1.2.4"));
}

#[test]
fn reservations_that_cannot_be_read_keep_add_from_leasing_and_del_from_nothing() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    leased(&place, &ipam, "c1");
    let file = place.data_dir().join("reservations.json");
    for garbage in ["", "{", "[{\"cidr\": 7}]", "[{\"cidr\": \"10.1.2.0/99\", \"reason\": \"x\"}]"] {
        fs::write(&file, garbage).unwrap();
        let refused = CniError::from(ipam.lease(&place.request("n", "c2")).unwrap_err());
        assert_eq!(refused.code, ErrorCode::Io);
        assert_eq!(refused.msg, format!("cannot read the reservations in {}", file.display()));
        assert!(refused.details.ends_with("keep what can be read of it with: ipam repair"), "{refused:?}");
        ipam.release(&attachment("n", "c1")).unwrap();
        assert_eq!(place.leases(), []);
    }
}
