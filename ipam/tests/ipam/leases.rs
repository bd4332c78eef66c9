//! Leases through the library, each test on a ledger of its own.

use crate::support::{Place, attachment, holders, ips, net_conf};
use cni_spec::{CniError, CniResult, ErrorCode, ValidAttachment, ValidAttachments};
use ipam::{Ipam, Lease, Released, code};
use serde_json::{Value, json};

fn small() -> Value {
    json!({ "subnet": "10.1.2.0/29", "cooldownSeconds": 0 })
}

#[test]
fn a_lease_carries_what_the_config_says() {
    let place = Place::new();
    let resolv_conf = place.netns("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.96.0.10\n").unwrap();
    let ipam = place.ipam(
        "n",
        &json!({
            "ranges": [[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "gateway": "10.1.2.254" }], [{ "subnet": "fd00::/64" }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.168.0.0/16", "gw": "10.1.2.253", "mtu": 1400 }],
            "resolvConf": resolv_conf,
        }),
    );
    let lease = ipam.lease(&place.request("n", "c1")).unwrap();
    assert!(lease.fresh);
    let result = CniResult::from(&lease).to_json(cni_spec::SpecVersion::V1_1_0).unwrap();
    let expected = json!({
        "cniVersion": "1.1.0",
        "ips": [
            { "address": "10.1.2.20/24", "gateway": "10.1.2.254" },
            { "address": "fd00::2/64", "gateway": "fd00::1" },
        ],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.168.0.0/16", "gw": "10.1.2.253", "mtu": 1400 }],
        "dns": { "nameservers": ["10.96.0.10"] },
    });
    assert_eq!(result, expected);
}

#[test]
fn the_same_container_gets_the_same_answer() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let first = ipam.lease(&place.request("n", "c1")).unwrap();
    let again = ipam.lease(&place.request("n", "c1")).unwrap();
    assert_eq!(again, Lease { fresh: false, ..first.clone() });
    let other = ipam.lease(&place.request("n", "c2")).unwrap();
    assert_ne!(ips(&other), ips(&first));
    assert_eq!(place.leases().len(), 2);
}

#[test]
fn a_new_namespace_gets_a_new_lease() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let mut request = place.request("n", "c1");
    let first = ipam.lease(&request).unwrap();
    request.netns = ipam::Netns::at(&place.netns("c1-restarted"));
    let second = ipam.lease(&request).unwrap();
    assert!(second.fresh);
    assert_ne!(second.lease_id, first.lease_id);
    let leases = place.leases();
    assert_eq!(leases.len(), 1, "the old one has ended");
    assert_eq!(leases[0].lease_id, second.lease_id);
}

#[test]
fn a_lease_that_no_longer_fits_the_config_is_replaced() {
    let place = Place::new();
    let request = place.request("n", "c1");
    place.ipam("n", &small()).lease(&request).unwrap();
    let moved = place.ipam("n", &json!({ "subnet": "10.9.0.0/29" })).lease(&request).unwrap();
    assert_eq!(ips(&moved), ["10.9.0.2"]);
    let both = place.ipam("n", &json!({ "podCIDR": ["10.9.0.0/29", "fd00::/64"] })).lease(&request).unwrap();
    assert_eq!(ips(&both).len(), 2);
    assert_eq!(holders(&place.leases()).len(), 2);
}

#[test]
fn releasing_is_idempotent() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let container = attachment("n", "c1");
    let lease = ipam.lease(&place.request("n", "c1")).unwrap();
    assert_eq!(ipam.release(&container).unwrap(), Released::Lease(vec![lease.addresses[0].address.ip()]));
    assert_eq!(ipam.release(&container).unwrap(), Released::Nothing);
    assert_eq!(ipam.release(&attachment("n", "never-seen")).unwrap(), Released::Nothing);
    assert_eq!(place.leases(), []);
}

#[test]
fn a_pool_gives_all_its_addresses_and_then_says_so() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let mut given: Vec<String> =
        (0..5).flat_map(|i| ips(&ipam.lease(&place.request("n", &format!("c{i}"))).unwrap())).collect();
    given.sort();
    assert_eq!(given, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    let error = CniError::from(ipam.lease(&place.request("n", "c5")).unwrap_err());
    assert_eq!(error.code, code::EXHAUSTED);
    assert_eq!(error.msg, "no free address in 10.1.2.0/29: all 5 are leased");
    assert_eq!(error.details, "see who holds what with: ipam list");
    let status = CniError::from(ipam.status().unwrap_err());
    assert_eq!(status.code, ErrorCode::NotAvailable);
    assert!(status.details.contains("no free address in 10.1.2.0/29"), "{status}");
    ipam.release(&attachment("n", "c3")).unwrap();
    ipam.status().unwrap();
    assert_eq!(ips(&ipam.lease(&place.request("n", "c5")).unwrap()), ["10.1.2.5"]);
}

#[test]
fn point_to_point_and_host_pools_are_used_up_whole() {
    for (subnet, expected) in [
        ("10.1.2.4/31", vec!["10.1.2.4", "10.1.2.5"]),
        ("10.1.2.4/32", vec!["10.1.2.4"]),
        ("fd00::4/127", vec!["fd00::4", "fd00::5"]),
        ("fd00::4/128", vec!["fd00::4"]),
    ] {
        let place = Place::new();
        let ipam = place.ipam("n", &json!({ "podCIDR": subnet }));
        for (index, address) in expected.iter().enumerate() {
            let lease = ipam.lease(&place.request("n", &format!("c{index}"))).unwrap();
            assert_eq!((ips(&lease), lease.addresses[0].gateway), (vec![(*address).to_owned()], None), "{subnet}");
        }
        let error = ipam.lease(&place.request("n", "too-many")).unwrap_err();
        assert!(error.code() == code::EXHAUSTED, "{subnet}: {error}");
    }
}

#[test]
fn both_families_or_none() {
    let place = Place::new();
    let ipam = place.ipam("n", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/126"] }));
    for container in ["c1", "c2"] {
        ipam.lease(&place.request("n", container)).unwrap();
    }
    let before = place.leases();
    let error = ipam.lease(&place.request("n", "c3")).unwrap_err();
    assert_eq!(error.to_string(), "no free address in fd00::/126: all 2 are leased");
    assert_eq!(place.leases(), before, "no IPv4 address was kept");
}

#[test]
fn networks_that_share_a_ledger_never_share_an_address() {
    let place = Place::new();
    let (red, blue) = (place.ipam("red", &small()), place.ipam("blue", &json!({ "subnet": "10.1.2.0/28" })));
    for container in ["c1", "c2", "c3"] {
        red.lease(&place.request("red", container)).unwrap();
        blue.lease(&place.request("blue", container)).unwrap();
    }
    assert_eq!(holders(&place.leases()).len(), 6);
    let error = red.lease(&place.request("red", "c4")).unwrap_err();
    assert_eq!(error.to_string(), "no free address in 10.1.2.0/29: all 5 are leased, 2 of them by other networks");
}

#[test]
fn an_address_that_is_asked_for_is_given_or_its_holder_named() {
    let place = Place::new();
    let mut conf = place.json("n", &small());
    conf["runtimeConfig"] = json!({ "ips": ["10.1.2.4"] });
    let ipam = Ipam::from_config(&net_conf(&conf)).unwrap();
    let mut request = place.request("n", "c1");
    request.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=7".parse().unwrap();
    assert_eq!(ips(&ipam.lease(&request).unwrap()), ["10.1.2.4"]);
    assert!(!ipam.lease(&request).unwrap().fresh, "its own address is not taken");
    let error = CniError::from(ipam.lease(&place.request("n", "c2")).unwrap_err());
    assert_eq!(error.code, code::TAKEN);
    let holder = "pod shop/cart, container c1, interface eth0, network n";
    assert_eq!(error.msg, format!("address 10.1.2.4 was asked for, but is held by {holder}"));
}

#[test]
fn cni_args_ask_only_where_the_config_does_not() {
    let place = Place::new();
    let mut request = place.request("n", "c1");
    request.args = "IP=10.1.2.5/29".parse().unwrap();
    assert_eq!(ips(&place.ipam("n", &small()).lease(&request).unwrap()), ["10.1.2.5"]);
    let mut conf = place.json("n", &small());
    conf["args"] = json!({ "cni": { "ips": ["10.1.2.6"] } });
    request.attachment = attachment("n", "c2");
    let ipam = Ipam::from_config(&net_conf(&conf)).unwrap();
    assert_eq!(ips(&ipam.lease(&request).unwrap()), ["10.1.2.6"]);
    request.args = "IP=10.1.2".parse().unwrap();
    let error = CniError::from(place.ipam("n", &small()).lease(&request).unwrap_err());
    assert_eq!(
        (error.code, error.msg.as_str()),
        (ErrorCode::InvalidEnvironment, "CNI_ARGS has IP=\"10.1.2\", which is not an IP address")
    );
}

#[test]
fn released_addresses_rest_and_undone_ones_do_not() {
    let place = Place::new();
    let resting = json!({ "podCIDR": "10.1.2.0/29", "cooldownSeconds": 3600 });
    let ipam = place.ipam("n", &resting);
    let leases: Vec<Lease> = (0..5).map(|i| ipam.lease(&place.request("n", &format!("c{i}"))).unwrap()).collect();
    ipam.release(&leases[0].attachment).unwrap();
    ipam.release(&leases[1].attachment).unwrap();
    ipam.undo(&leases[4]).unwrap();
    let next = |container: &str| ips(&ipam.lease(&place.request("n", container)).unwrap());
    assert_eq!(next("d0"), ips(&leases[4]), "nobody has seen it");
    assert_eq!(next("d1"), ips(&leases[0]), "nothing else is left: the one that has rested longest");
    assert_eq!(next("d2"), ips(&leases[1]));
}

#[test]
fn undo_ends_only_what_its_own_call_began() {
    let place = Place::new();
    let ipam = place.ipam("n", &small());
    let request = place.request("n", "c1");
    let first = ipam.lease(&request).unwrap();
    let repeated = ipam.lease(&request).unwrap();
    ipam.undo(&repeated).unwrap();
    assert_eq!(place.leases().len(), 1, "an ADD that was sent again must not end the running pod's lease");
    ipam.release(&first.attachment).unwrap();
    let later = place.ipam("n", &small());
    let second = later.lease(&request).unwrap();
    ipam.undo(&first).unwrap();
    assert_eq!(place.leases()[0].lease_id, second.lease_id, "the name is another's");
    later.undo(&second).unwrap();
    assert_eq!(place.leases(), []);
}

#[test]
fn gc_keeps_what_is_valid_and_what_is_not_its_network() {
    let place = Place::new();
    let (red, blue) = (place.ipam("red", &small()), place.ipam("blue", &json!({ "podCIDR": "10.9.0.0/24" })));
    for container in ["c1", "c2", "c3"] {
        red.lease(&place.request("red", container)).unwrap();
        blue.lease(&place.request("blue", container)).unwrap();
    }
    let keep = ValidAttachment { container_id: "c2".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let valid = ValidAttachments([keep].into());
    let network = "red".parse().unwrap();
    assert_eq!(red.gc(&network, &valid).unwrap(), 2);
    assert_eq!(red.gc(&network, &valid).unwrap(), 0);
    let left: Vec<String> = place.leases().iter().map(|lease| lease.attachment.to_string()).collect();
    assert_eq!(left, ["blue c1 eth0", "blue c2 eth0", "blue c3 eth0", "red c2 eth0"]);
    assert_eq!(red.gc(&network, &ValidAttachments::default()).unwrap(), 1, "an empty list is meant");
}

#[test]
fn check_compares_lease_and_result() {
    let place = Place::new();
    let ipam = place.ipam("n", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"] }));
    let container = attachment("n", "c1");
    let error = CniError::from(ipam.check(&container, &CniResult::default()).unwrap_err());
    assert_eq!((error.code, error.msg.as_str()), (code::DIFFERS, "n c1 eth0 has no lease"));
    let lease = ipam.lease(&place.request("n", "c1")).unwrap();
    let mut result = CniResult::from(&lease);
    let of_another = cni_spec::IpConfig { address: "192.0.2.1/24".parse().unwrap(), gateway: None, interface: None };
    result.ips.push(of_another);
    ipam.check(&container, &result).unwrap();
    result.ips.remove(1);
    let error = CniError::from(ipam.check(&container, &result).unwrap_err());
    assert_eq!(error.code, code::DIFFERS);
    assert_eq!(error.msg, "n c1 eth0 has a lease for fd00::2, which is not in prevResult");
}

#[test]
fn an_add_that_was_deleted_while_it_waited_leases_nothing() {
    let place = Place::new();
    place.ipam("n", &small()).lease(&place.request("n", "c1")).unwrap();
    let waiting = place.ipam("n", &small());
    // The runtime gives up and sends DEL, some time after the ADD was started.
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(3) {
        std::thread::yield_now();
    }
    assert_eq!(place.ledger().release(&attachment("n", "c2")).unwrap(), Released::Nothing);
    let error = CniError::from(waiting.lease(&place.request("n", "c2")).unwrap_err());
    assert_eq!((error.code, error.msg.as_str()), (code::DELETED, "n c2 eth0 was deleted while this ADD was under way"));
    let anew = place.ipam("n", &small());
    assert!(anew.lease(&place.request("n", "c2")).unwrap().fresh, "a new ADD is another matter");
    // The second ADD of a container that has a lease waits, when the DEL ends that lease.
    let waiting = place.ipam("n", &small());
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(3) {
        std::thread::yield_now();
    }
    assert!(matches!(place.ledger().release(&attachment("n", "c2")).unwrap(), Released::Lease(_)));
    assert_eq!(waiting.lease(&place.request("n", "c2")).unwrap_err().code(), code::DELETED);
    assert_eq!(place.leases().len(), 1);
}
