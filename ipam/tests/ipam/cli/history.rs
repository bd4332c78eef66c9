//! Who had an address when.

use std::fs::OpenOptions;
use std::io::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::documents;
use crate::support::{Place, attachment};

const POOL: &str = "10.1.2.0/30";

/// One address, which two pods have one after the other; the moments at which each has it, and nobody has.
fn one_after_the_other() -> (Place, [String; 3]) {
    let place = Place::new();
    let conf = json!({ "podCIDR": POOL, "cooldownSeconds": 0 });
    let now = || Timestamp::now().to_string();
    let lease = |container: &str| {
        let mut request = place.request("red", container);
        request.args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}").parse().unwrap();
        place.ipam("red", &conf).lease(&request).unwrap();
    };
    lease("first");
    let first = now();
    place.ledger().release(&attachment("red", "first")).unwrap();
    let nobody = now();
    lease("second");
    (place, [first, nobody, now()])
}

#[test]
fn the_history_tells_who_had_an_address_when() {
    sandbox::private_host(|| {
        let (place, [first, nobody, second]) = one_after_the_other();
        for (at, who) in [(&first, "shop/first"), (&second, "shop/second")] {
            let told = place.cli(&["history", "10.1.2.2", "--at", at, "--no-headers", "--columns", "address,pod"]);
            assert_eq!((told.code, told.stdout, told.stderr), (0, format!("10.1.2.2  {who}\n"), String::new()));
        }
        for at in [nobody.as_str(), "2001-01-01"] {
            let told = place.cli(&["history", "10.1.2.2", "--at", at]);
            assert_eq!((told.code, told.stdout.as_str()), (3, ""), "{at}");
            assert!(told.stderr.starts_with("ipam: nobody had 10.1.2.2 at "), "{told:?}");
        }
        let all = place.document(&["history"]);
        let items = all["items"].as_array().unwrap();
        let ends: Vec<&Value> = items.iter().map(|item| &item["end"]).collect();
        assert_eq!(ends, ["released", "active"]);
        assert_eq!(items[0]["begunBy"], "ADD red first eth0");
        assert_eq!(items[0]["endedBy"], "DEL red first eth0");
        let before = place.document(&["show", "10.1.2.2"]);
        assert_eq!(before["items"][0]["before"][0]["who"], "shop/first");
        for wrong in ["yesterday", "10:00"] {
            assert_eq!(place.cli(&["history", "--at", wrong]).code, 2);
        }
    });
}

#[test]
fn garbage_in_the_history_is_named_and_harms_nobody() {
    sandbox::private_host(|| {
        let (place, [first, ..]) = one_after_the_other();
        let path = place.data_dir().join("history.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\xff\xfe not a line\n{\"at\": \"2026-01-01T00:00:00Z\"}\n{\"cut").unwrap();
        place.ledger().release(&attachment("red", "second")).unwrap();
        let told = place.cli(&["history", "10.1.2.2", "--at", &first, "-o", "jsonl"]);
        assert_eq!(told.code, 0, "{told:?}");
        for number in [4, 5, 6] {
            assert!(told.stderr.contains(&format!("note: left out {}:{number}: is no ", path.display())), "{told:?}");
        }
        let all = place.document(&["history", "10.1.2.2"]);
        assert_eq!(all["items"][1]["end"], "released", "what came after the garbage is there: {all:#}");
        let check = place.document(&["check"]);
        let kinds: Vec<&Value> = check["items"].as_array().unwrap().iter().map(|item| &item["kind"]).collect();
        assert_eq!(kinds, ["garbage", "garbage", "garbage"]);
        let stats = place.document(&["stats"]);
        assert_eq!(stats["items"][0]["historyGarbage"], 3);
    });
}

#[test]
fn a_history_that_cannot_be_written_keeps_no_pod_from_its_address() {
    sandbox::private_host(|| {
        let place = Place::new();
        std::fs::create_dir_all(place.data_dir().join("history.jsonl")).unwrap();
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/24" }));
        assert_eq!(place.run("ADD", "c1", &conf).addresses().len(), 1);
        assert!(place.run("DEL", "c1", &conf).success);
        let told = place.cli(&["reserve", "10.1.2.9", "--reason", "x", "--yes"]);
        assert_eq!(told.code, 0);
        assert!(told.stderr.contains("this could not be written into"), "{told:?}");
    });
}

#[test]
fn watch_prints_what_happens() {
    sandbox::private_host(|| {
        let (place, _) = one_after_the_other();
        let printed = place.cli(&["watch", "--all", "--for", "0s", "-o", "jsonl"]);
        let events: Vec<Value> = printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        events.iter().for_each(|event| documents::assert_is("Event", event));
        let kinds: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
        assert_eq!(kinds, ["leased", "released", "leased"]);
        let table = place.cli(&["watch", "--all", "--for", "0s", "--pod", "shop/second"]).stdout;
        assert_eq!(table.lines().count(), 1, "{table}");
        assert!(table.contains("  leased     10.1.2.2                          shop/second "), "{table}");
    });
}
