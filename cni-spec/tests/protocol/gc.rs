//! Spec section 2, "GC": which attachments must stay.

use cni_spec::Attachment;
use serde_json::{Value, json};

use crate::support::{Outcome, Request, TestPlugin, environment, run};

fn gc(keys: Value) -> Outcome {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "n" });
    if let (Value::Object(config), Value::Object(keys)) = (&mut config, keys) {
        config.extend(keys);
    }
    run(&TestPlugin::default(), environment("GC"), config.to_string())
}

fn valid(keys: Value) -> Vec<String> {
    let Request::Gc(request) = gc(keys).only_request() else { panic!("not a GC") };
    request.valid.0.iter().map(|entry| format!("{} {}", entry.container_id, entry.ifname)).collect()
}

#[test]
fn either_key_will_do() {
    let list = json!([{ "containerID": "b", "ifname": "eth0" }, { "containerID": "a", "ifname": "net1", "more": 1 }]);
    let expected = ["a net1", "b eth0"];
    assert_eq!(valid(json!({ "cni.dev/valid-attachments": list })), expected);
    assert_eq!(valid(json!({ "cni.dev/attachments": list })), expected);
    assert_eq!(valid(json!({ "cni.dev/attachments": list, "cni.dev/valid-attachments": list })), expected);
}

#[test]
fn two_keys_that_differ_spare_what_either_names() {
    let keys = json!({ "cni.dev/attachments": [{ "containerID": "a", "ifname": "eth0" }],
        "cni.dev/valid-attachments": [{ "containerID": "b", "ifname": "eth0" }] });
    assert_eq!(valid(keys), ["a eth0", "b eth0"]);
}

#[test]
fn empty_and_null_mean_nothing_stays() {
    for list in [json!([]), Value::Null] {
        assert!(valid(json!({ "cni.dev/valid-attachments": list })).is_empty());
        assert!(valid(json!({ "cni.dev/attachments": list })).is_empty());
    }
}

#[test]
fn no_list_at_all_is_refused() {
    let outcome = gc(json!({}));
    assert!(outcome.seen.is_empty());
    let expected = (7, "invalid network config: cni.dev/valid-attachments is missing".to_owned());
    assert_eq!(outcome.code_and_msg(), expected);
}

#[test]
fn entries_that_cannot_be_read_are_named() {
    let good = json!({ "containerID": "a", "ifname": "eth0" });
    for (list, expected) in [
        (json!("a"), "=\"a\" is not a list"),
        (json!({}), "={} is not a list"),
        (json!([good, "a"]), "[1]=\"a\" is not an object"),
        (json!([null]), "[0]=null is not an object"),
        (json!([{ "ifname": "eth0" }]), "[0].containerID is missing"),
        (json!([{ "containerID": "a" }]), "[0].ifname is missing"),
        (json!([good, { "containerID": 7, "ifname": "eth0" }]), "[1].containerID=7 is not a string"),
        (json!([{ "containerID": "", "ifname": "eth0" }]), "[0].containerID=\"\" is empty"),
        (
            json!([{ "containerID": "a", "ifname": "a/b" }]),
            "[0].ifname=\"a/b\" is not an interface name: 1 to 15 bytes, not \".\" or \"..\", without '/', ':', '%' and white space",
        ),
    ] {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let outcome = gc(json!({ key: list }));
            assert!(outcome.seen.is_empty());
            assert_eq!(outcome.code_and_msg(), (7, format!("invalid network config: {key}{expected}")));
        }
    }
}

#[test]
fn an_attachment_is_found_by_container_and_interface() {
    let outcome = gc(json!({ "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }] }));
    let Request::Gc(request) = outcome.only_request() else { panic!("not a GC") };
    let attachment = |id: &str, ifname: &str| Attachment {
        network: request.config.name.clone(),
        container_id: id.parse().expect("an id"),
        ifname: ifname.parse().expect("a name"),
    };
    assert!(request.valid.contains(&attachment("a", "eth0")));
    assert!(!request.valid.contains(&attachment("a", "eth1")));
    assert!(!request.valid.contains(&attachment("b", "eth0")));
}
