//! What a network's config can say about who gets which address.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Answer, Place, attachment, ips, net_conf};
use cni_spec::{CniError, ErrorCode, NetConf};
use ipam::{Ipam, Lease, LeaseRequest, code};
use serde_json::{Value, json};

fn of_pod(place: &Place, container: &str, pod: &str) -> LeaseRequest {
    let (namespace, name) = pod.split_once('/').unwrap();
    let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}").parse().unwrap();
    LeaseRequest { args, ..place.request("n", container) }
}

fn address(ipam: &Ipam, request: &LeaseRequest) -> String {
    ips(&ipam.lease(request).unwrap()).join(" ")
}

fn refusal(ipam: &Ipam, request: &LeaseRequest) -> (u32, String) {
    let error = CniError::from(ipam.lease(request).unwrap_err());
    (error.code.number(), error.msg)
}

fn invalid(conf: &Value) -> String {
    Ipam::from_config(&net_conf(conf)).unwrap_err().to_string()
}

#[test]
fn subnets_come_from_flannels_file() {
    let place = Place::new();
    let file = place.netns("subnet.env");
    fs::write(&file, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd00:1::1/64\n")
        .unwrap();
    let ipam = place.ipam("n", &json!({ "subnetFile": file }));
    let lease = ipam.lease(&place.request("n", "c1")).unwrap();
    assert_eq!(ips(&lease), ["10.244.1.2", "fd00:1::2"]);
    assert_eq!(lease.addresses[0].gateway, Some("10.244.1.1".parse().unwrap()));
    fs::write(&file, "FLANNEL_MTU=1450\n").unwrap();
    let conf = place.json("n", &json!({ "subnetFile": file }));
    let start = format!("invalid network config: ipam.subnetFile={:?} cannot be used: ", file.display().to_string());
    assert_eq!(invalid(&conf), format!("{start}it has neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET"));
    fs::write(&file, "FLANNEL_SUBNET=10.244.1.1/99\n").unwrap();
    assert_eq!(invalid(&conf), format!("{start}FLANNEL_SUBNET=\"10.244.1.1/99\" is not a subnet in CIDR notation"));
    let both = place.json("n", &json!({ "subnetFile": file, "podCIDR": "10.9.0.0/24" }));
    assert!(invalid(&both).contains("ipam.subnetFile"), "{}", invalid(&both));
}

/// flannel writes the file when it has got a subnet; DEL does not need it.
#[test]
fn a_subnet_file_that_is_not_there_yet_is_no_broken_config() {
    let place = Place::new();
    let conf = place.conf("n", &json!({ "subnetFile": "/nonexistent/subnet.env" }));
    let error = CniError::from(Ipam::from_config(&conf).unwrap_err());
    assert_eq!(
        (error.code, error.msg.as_str()),
        (ErrorCode::TryAgainLater, "cannot read ipam.subnetFile=\"/nonexistent/subnet.env\"")
    );
    assert!(error.details.ends_with("see whether it is running"), "{error:?}");
    assert_eq!(Ipam::status_of(&conf).unwrap_err().code(), ErrorCode::NotAvailable);
    ipam::Ledger::from_config(&conf).unwrap().release(&attachment("n", "c1")).unwrap();
}

#[test]
fn an_address_of_the_subnets_other_part_can_be_asked_for() {
    let place = Place::new();
    let range = json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.100", "rangeEnd": "10.1.2.101",
                        "exclude": ["10.1.2.9"], "cooldownSeconds": 0 });
    let ipam = place.ipam("n", &range);
    let asking = |container: &str, ip: &str| LeaseRequest {
        args: format!("IP={ip}").parse().unwrap(),
        ..place.request("n", container)
    };
    let fixed = ipam.lease(&asking("fixed", "10.1.2.10")).unwrap();
    assert_eq!(fixed.addresses[0].address.to_string(), "10.1.2.10/24");
    assert_eq!(fixed.addresses[0].gateway, Some("10.1.2.1".parse().unwrap()));
    assert_eq!(ipam.lease(&asking("fixed", "10.1.2.10")).unwrap(), Lease { fresh: false, ..fixed });
    assert_eq!(address(&ipam, &place.request("n", "c1")), "10.1.2.100");
    assert_eq!(address(&ipam, &place.request("n", "c2")), "10.1.2.101");
    assert_eq!(ipam.lease(&place.request("n", "c3")).unwrap_err().code(), code::EXHAUSTED);
    for (ip, why) in [
        ("10.1.2.0", "is the network address of 10.1.2.0/24"),
        ("10.1.2.255", "is the broadcast address of 10.1.2.0/24"),
        ("10.1.2.1", "is the gateway of 10.1.2.0/24"),
        ("10.1.2.9", "is excluded from its pool"),
        ("10.1.3.9", "is not in 10.1.2.0/24 (10.1.2.100-10.1.2.101)"),
        ("fd00::9", "the network has no IPv6 pool"),
    ] {
        assert_eq!(refusal(&ipam, &asking("c4", ip)), (102, format!("address {ip} was asked for, but {why}")));
    }
}

fn with_annotations(place: &Place, annotations: &Value, ipam: &Value) -> NetConf {
    let mut conf = place.json("n", ipam);
    conf["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": annotations });
    net_conf(&conf)
}

#[test]
fn pods_ask_by_annotation() {
    let place = Place::new();
    let pools = json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"] });
    let leased = |container: &str, annotations: Value| {
        let ipam = Ipam::from_config(&with_annotations(&place, &annotations, &pools))?;
        ipam.lease(&place.request("n", container)).map(|lease| ips(&lease).join(" "))
    };
    assert_eq!(leased("c1", json!({ "podwire/ips": "10.1.2.50, fd00::50" })).unwrap(), "10.1.2.50 fd00::50");
    assert_eq!(leased("c2", json!({ "podwire/ips": "fd00::51/64", "other": 7 })).unwrap(), "10.1.2.2 fd00::51");
    assert_eq!(leased("c3", Value::Null).unwrap(), "10.1.2.3 fd00::2");
    let said = |annotations| {
        let error = leased("c4", annotations).unwrap_err();
        format!("{} {error}", error.code().number())
    };
    let start = "7 invalid network config: pod annotation podwire/";
    for (annotations, expected) in [
        (json!({ "podwire/ips": "10.1.2.50,nonsense" }), format!("{start}ips=\"nonsense\" is not an IP address")),
        (json!({ "podwire/ips": ["10.1.2.9"] }), format!("{start}ips=\"[\\\"10.1.2.9\\\"]\" is not a string")),
        (json!({ "podwire/sticky": "maybe" }), format!("{start}sticky=\"maybe\" is neither true nor false")),
        (
            json!({ "podwire/ips": "\u{1b}[31m;IP=10.0.0.1\n" }),
            format!("{start}ips=\"\\u{{1b}}[31m;IP=10.0.0.1\" is not an IP address"),
        ),
        (
            json!({ "podwire/ips": "x".repeat(100_000) }),
            format!("{start}ips=\"{}\" is not an IP address", "x".repeat(100)),
        ),
        (
            json!({ "podwire/ips": "192.0.2.1" }),
            "102 address 192.0.2.1 was asked for, but is not in 10.1.2.0/24, fd00::/64".to_owned(),
        ),
    ] {
        assert_eq!(said(annotations), expected);
    }
}

#[test]
fn namespaces_have_pools_of_their_own() {
    let place = Place::new();
    let ipam = place.ipam(
        "n",
        &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"], "namespacePools": {
            "shop": "10.1.2.8/31", "bank": ["10.9.0.0/24", "fd00:9::/64"],
        } }),
    );
    let lease = ipam.lease(&of_pod(&place, "s1", "shop/cart")).unwrap();
    let shown: Vec<String> = lease.addresses.iter().map(|leased| leased.address.to_string()).collect();
    assert_eq!(shown, ["10.1.2.8/24", "fd00::2/64"], "a part of the subnet has the subnet's prefix length");
    assert_eq!(lease.addresses[0].gateway, Some("10.1.2.1".parse().unwrap()));
    assert_eq!(address(&ipam, &of_pod(&place, "s2", "shop/mail")), "10.1.2.9 fd00::3");
    let (number, text) = refusal(&ipam, &of_pod(&place, "s3", "shop/more"));
    assert_eq!((number, text.as_str()), (100, "no free address in 10.1.2.0/24 (10.1.2.8-10.1.2.9): all 2 are leased"));
    assert_eq!(address(&ipam, &of_pod(&place, "b1", "bank/vault")), "10.9.0.2 fd00:9::2");
    let others: Vec<String> = (0..12).map(|n| address(&ipam, &of_pod(&place, &format!("o{n}"), "other/pod"))).collect();
    assert!(others.iter().all(|ips| !ips.starts_with("10.1.2.8 ") && !ips.starts_with("10.1.2.9 ")), "{others:?}");
    let asking = LeaseRequest { args: "IP=10.1.2.8".parse().unwrap(), ..place.request("n", "thief") };
    assert_eq!(refusal(&ipam, &asking).0, 102, "nor can they be asked for");
}

#[test]
fn bad_namespace_pools_are_named() {
    let place = Place::new();
    for (pools, expected) in [
        (json!({ "a": "10.1.2.0/33" }), "ipam.namespacePools.a=\"10.1.2.0/33\" is not a subnet in CIDR notation"),
        (json!({ "a": [] }), "ipam.namespacePools.a has no range"),
        (json!({ "a": ["10.1.2.0/26", "10.1.2.64/26"] }), "ipam.namespacePools.a=\"10.1.2.0/26\" has more than one"),
        (
            json!({ "a": "10.1.2.0/26", "b": "10.1.2.32/27" }),
            "ipam.namespacePools.b=\"10.1.2.32/27\" overlaps ipam.namespacePools.a",
        ),
        (json!({ "a": "10.1.2.0/24" }), "ipam.namespacePools=\"10.1.2.0/24\" leaves no address to lease"),
        (json!({ "a": "10.1.2.1/32" }), "ipam.namespacePools.a=\"10.1.2.1/32\" leaves no address to lease"),
        (json!({ "a": 7 }), "ipam.namespacePools.a=7"),
    ] {
        let said = invalid(&place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "namespacePools": pools })));
        assert!(said.starts_with(&format!("invalid network config: {expected}")), "{said}");
    }
}

#[test]
fn strict_keeps_what_cools_down() {
    let place = Place::new();
    let ipam = place.ipam("n", &json!({ "subnet": "10.1.2.0/30", "cooldownSeconds": 3600, "strict": true }));
    ipam.lease(&place.request("n", "c1")).unwrap();
    ipam.release(&attachment("n", "c1")).unwrap();
    let error = CniError::from(ipam.lease(&place.request("n", "c2")).unwrap_err());
    assert_eq!(error.code, code::EXHAUSTED);
    let start = "no free address in 10.1.2.0/30: of 1, 0 are leased, 1 cooling down, the next free in 3";
    assert!(error.msg.starts_with(start), "{error:?}");
    assert_eq!(CniError::from(ipam.status().unwrap_err()).code, ErrorCode::NotAvailable);
    let asking = LeaseRequest { args: "IP=10.1.2.2".parse().unwrap(), ..place.request("n", "c2") };
    let (number, text) = refusal(&ipam, &asking);
    assert_eq!(number, 11, "it will be there");
    assert!(text.starts_with("address 10.1.2.2 was asked for, but rests for another 3"), "{text}");
    let lenient = place.ipam("n", &json!({ "subnet": "10.1.2.0/30", "cooldownSeconds": 3600 }));
    assert_eq!(address(&lenient, &place.request("n", "c2")), "10.1.2.2");
}

#[test]
fn a_sticky_pod_gets_its_addresses_again() {
    let place = Place::new();
    let conf = json!({ "podCIDR": ["10.1.2.0/29", "fd00::/64"], "cooldownSeconds": 3600 });
    let mut sticky = conf.clone();
    sticky["sticky"] = true.into();
    let (sticky, plain) = (place.ipam("n", &sticky), place.ipam("n", &conf));
    let first = address(&sticky, &of_pod(&place, "db-first", "shop/db-0"));
    assert_eq!(first, "10.1.2.2 fd00::2");
    sticky.release(&attachment("n", "db-first")).unwrap();
    for container in ["o1", "o2", "o3", "o4"] {
        let other = address(&plain, &place.request("n", container));
        assert!(!other.starts_with("10.1.2.2 "), "{other} is kept");
    }
    // Lost with the boot, like every lease; the pod's address is not.
    place.undisturbed(|| fs::remove_dir_all(place.data_dir().join("ledger")).unwrap());
    assert_eq!(address(&sticky, &of_pod(&place, "db-second", "shop/db-0")), first);
    sticky.release(&attachment("n", "db-second")).unwrap();
    assert!(address(&plain, &place.request("n", "o5")).starts_with("10.1.2.2 "), "rather than none at all");
    plain.release(&attachment("n", "o1")).unwrap();
    let moved = address(&sticky, &of_pod(&place, "db-third", "shop/db-0"));
    assert_eq!(moved, "10.1.2.3 fd00::2", "what is still there");
}

/// Or a pod would be refused what somebody else has for as long as he has it.
#[test]
fn what_somebody_else_has_is_kept_for_no_sticky_pod() {
    let place = Place::new();
    let conf = json!({ "podCIDR": ["10.1.2.0/29", "fd00::/64"], "cooldownSeconds": 3600, "sticky": true });
    let ipam = place.ipam("n", &conf);
    let pod = |container: &str| of_pod(&place, container, "shop/db-0");
    let lease = |container: &str| ipam.lease(&pod(container)).unwrap();
    let of = |lease: &Lease| lease.addresses.iter().map(|leased| leased.address.ip()).collect::<Vec<IpAddr>>();
    ipam.undo(&lease("failed")).unwrap();
    let refused = lease("refused");
    assert_eq!(ips(&refused), ["10.1.2.2", "fd00::2"], "what no pod has seen is kept");
    ipam.undo_for_a_while(&refused, &of(&refused)).unwrap();
    let other = lease("again");
    assert_eq!(ips(&other), ["10.1.2.3", "fd00::3"]);
    ipam.undo_for_a_while(&other, &of(&other)).unwrap();
    // Nor after the ledger, and with it the cool-down, is gone.
    place.undisturbed(|| fs::remove_dir_all(place.data_dir().join("ledger")).unwrap());
    assert_eq!(ips(&lease("later")), ["10.1.2.2", "fd00::2"]);
    // From now on as any other's.
    ipam.release(&attachment("n", "later")).unwrap();
    let latest = lease("latest");
    assert_eq!(ips(&latest), ["10.1.2.2", "fd00::2"]);
    // One of them alone is somebody's: the other stays the pod's.
    ipam.undo_for_a_while(&latest, &of(&latest)[..1]).unwrap();
    let half = lease("half");
    assert_eq!(ips(&half)[1], "fd00::2");
    assert_ne!(ips(&half)[0], "10.1.2.2");
}

/// Two pools that are parts of one subnet, each of which gives all of it to whoever asks.
#[test]
fn a_sticky_pod_gets_no_address_twice() {
    let place = Place::new();
    let part = |first: u8, last: u8| json!([{ "subnet": "10.1.2.0/24", "rangeStart": format!("10.1.2.{first}"), "rangeEnd": format!("10.1.2.{last}") }]);
    let conf = json!({ "ranges": [part(10, 20), part(30, 40)], "sticky": true, "cooldownSeconds": 0 });
    let ipam = place.ipam("n", &conf);
    let pod = |container: &str| of_pod(&place, container, "shop/db-0");
    let release = |container: &str| drop(ipam.release(&attachment("n", container)).unwrap());
    assert_eq!(address(&ipam, &pod("c1")), "10.1.2.10 10.1.2.30");
    release("c1");
    assert_eq!(address(&ipam, &pod("c2")), "10.1.2.10 10.1.2.30");
    release("c2");
    // One of them is another's by now.
    let asking = |container: &str, ip: &str| LeaseRequest {
        args: format!("IP={ip}").parse().unwrap(),
        ..place.request("n", container)
    };
    assert_eq!(address(&ipam, &asking("thief", "10.1.2.10")), "10.1.2.10 10.1.2.31");
    assert_eq!(address(&ipam, &pod("c3")), "10.1.2.30 10.1.2.32", "what is left, from whichever pool gives it");
    release("c3");
    // And one is asked for.
    let args = "IP=10.1.2.30;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0".parse().unwrap();
    let asked = LeaseRequest { args, ..place.request("n", "c4") };
    assert_eq!(address(&ipam, &asked), "10.1.2.32 10.1.2.30");
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_damaged_memory_of_sticky_pods_costs_no_more_than_the_memory() {
    let place = Place::new();
    let conf = json!({ "podCIDR": "10.1.2.0/24", "sticky": true });
    place.undisturbed(|| {
        fs::create_dir_all(place.data_dir()).unwrap();
        let _ = fs::remove_dir_all(place.data_dir().join("ledger"));
        let good = json!({ "network": "n", "namespace": "shop", "name": "db-0", "ifname": "eth0", "addresses": ["10.1.2.77"] });
        let lines = format!("{{\"network\":\n\u{0}\u{0}\nnull\n{good}\n{{\"network\": \"n\", \"names");
        fs::write(place.data_dir().join("sticky.jsonl"), lines).unwrap();
    });
    let ipam = place.ipam("n", &conf);
    assert_eq!(address(&ipam, &of_pod(&place, "c1", "shop/db-0")), "10.1.2.77");
    assert_eq!(address(&ipam, &of_pod(&place, "c2", "shop/db-1")), "10.1.2.2");
}

/// The pools of the config are others than when the leases were made.
#[test]
fn leases_of_pools_that_are_gone_stand_until_they_are_released() {
    let place = Place::new();
    let before = place.ipam("n", &json!({ "podCIDR": "10.1.2.0/24" }));
    let old = before.lease(&place.request("n", "c1")).unwrap();
    let after = place.ipam("n", &json!({ "podCIDR": "10.9.0.0/24" }));
    assert_eq!(address(&after, &place.request("n", "c2")), "10.9.0.2");
    after.status().unwrap();
    after.check(&old.attachment, &cni_spec::CniResult::from(&old)).unwrap();
    assert_eq!(place.leases().len(), 2);
    after.release(&old.attachment).unwrap();
    assert_eq!(place.leases().len(), 1);
}

/// Two configs of one name, with other ranges: what either leases, the other does not.
#[test]
fn two_configs_of_one_name_share_no_address() {
    let place = Place::new();
    let one = place.ipam("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
    let other = place.ipam("n", &json!({ "subnet": "10.1.2.0/28", "cooldownSeconds": 0 }));
    let mut all: Vec<String> = Vec::new();
    for number in 0..6 {
        all.push(address(&one, &place.request("n", &format!("a{number}"))));
        all.push(address(&other, &place.request("n", &format!("b{number}"))));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 12);
    assert_eq!(address(&other, &place.request("n", "last")), "10.1.2.14");
    assert_eq!(other.lease(&place.request("n", "too-many")).unwrap_err().code(), code::EXHAUSTED);
}

/// A config that was changed while pods live: what DEL can do without keeps no address.
#[test]
fn a_key_that_del_does_not_need_keeps_it_from_nothing() {
    let place = Place::new();
    let conf = json!({ "podCIDR": "10.1.2.0/24" });
    for (key, value) in [("lockTimeoutSeconds", json!("long")), ("stateDir", json!("var")), ("stateDir", json!(7))] {
        place.run("ADD", "c1", &place.json("n", &conf)).addresses();
        let mut changed = place.json("n", &conf);
        changed["ipam"][key] = value;
        assert_eq!(place.run("ADD", "c2", &changed).error().0, 7);
        assert!(place.run("DEL", "c1", &changed).success, "{changed}");
        assert!(place.leases().is_empty(), "{changed}");
        changed["ipam"]["dataDir"] = json!("here");
        assert_eq!(place.run("DEL", "c1", &changed).error().0, 7, "nobody knows where its ledger is");
    }
}

/// The runtime gave the ADD up while it waited for its config.
#[test]
fn what_is_deleted_while_the_config_is_read_is_not_leased() {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
    // Where there is no ledger yet, a DEL leaves no trace.
    assert!(place.run("ADD", "c0", &conf).success);
    let mut process = sandbox::command(env!("CARGO_BIN_EXE_podwire-ipam"));
    process.envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")]);
    process.env("CNI_NETNS", place.netns("c1"));
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut waiting = process.spawn().unwrap();
    let began = Instant::now();
    // The kernel counts the beginning of a process in hundredths of a second.
    while began.elapsed() < Duration::from_millis(50) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(place.run("DEL", "c1", &conf).success);
    waiting.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    let refused = Answer::of(&waiting.wait_with_output().unwrap());
    assert_eq!(refused.error().0, 104, "{refused:?}");
    assert_eq!(place.leases().len(), 1);
    assert!(place.run("ADD", "c1", &conf).success, "a later one");
}

/// Names that would be paths, other columns, or no name at all.
#[test]
fn hostile_container_ids_reach_no_file() {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
    assert!(place.run("ADD", "c1", &conf).success);
    let files = || {
        let beside = fs::read_dir(place.data_dir().parent().unwrap()).unwrap();
        let copies = fs::read_dir(place.data_dir().join("leases")).unwrap();
        let names = beside.chain(copies).map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    let long = "a".repeat(5000);
    for id in ["", "../../c1", "/etc/passwd", "a/b", "a b", "a\nb", "-rf", ".", "a\u{1b}[2J", "ä", &long] {
        for command in ["ADD", "DEL", "CHECK"] {
            let mut process = sandbox::command(env!("CARGO_BIN_EXE_podwire-ipam"));
            process.envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/"),
            ]);
            process.env("CNI_NETNS", place.netns("c1"));
            process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = process.spawn().unwrap();
            child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
            let answer = Answer::of(&child.wait_with_output().unwrap());
            if id != long {
                let (code, message) = answer.error();
                assert!(code == 4 && message.contains("CNI_CONTAINERID"), "{command} {id:?}: {answer:?}");
            }
        }
    }
    assert_eq!(place.leases().len(), 1);
    assert_eq!(files(), before);
}
