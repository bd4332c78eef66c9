//! Ledgers that know nothing of each other and lend the same addresses: none is taken from a living pod.

use std::net::IpAddr;

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, run, text, traces, with};

const POOLS: [&str; 2] = ["10.244.1.0/29", "fd00:10:244:1::/125"];

fn folder(name: &str) -> String {
    format!("/var/lib/podwire/{name}")
}

/// A network whose ledger is in a folder of its own.
fn network(name: &str, pools: &[&str]) -> Value {
    let ipam = json!({ "type": "podwire-ipam", "podCIDR": pools, "dataDir": folder(name) });
    with(dual_stack(), &json!({ "name": name, "ipam": ipam }))
}

fn assert_reached(pod: &TestPod, ips: &[IpAddr]) {
    let node = NetNs::current().unwrap();
    for ip in ips {
        exchange(&pod.netns, &node, *ip).unwrap_or_else(|error| panic!("{}: {ip}: {error}", pod.id));
        exchange(&node, &pod.netns, node_address(ip)).unwrap_or_else(|error| panic!("from {}: {ip}: {error}", pod.id));
    }
}

fn node_address(ip: &IpAddr) -> IpAddr {
    if ip.is_ipv4() { "192.168.50.1" } else { "fd50::1" }.parse().unwrap()
}

#[test]
fn an_address_that_another_ledger_lent_is_refused() {
    sandbox::private_host(|| {
        node_addresses();
        let (red, blue) = (network("red", &POOLS), network("blue", &POOLS));
        let pods = ["first", "second", "third"].map(TestPod::new);
        // Both ledgers are there before the pods that matter: a new one would see them.
        for config in [&red, &blue] {
            pods[0].add(config).ok();
            pods[0].del(config).ok();
        }
        let result = pods[1].add(&red).ok().json();
        let ips = addresses(&result);
        assert_reached(&pods[1], &ips);
        let before = traces();
        let (code, msg) = pods[2].add(&blue).error();
        assert_eq!(code, 112, "{msg}");
        assert!(msg.contains(&format!("the address {} is in use: red second eth0 has it, by ", ips[0])), "{msg}");
        assert!(
            msg.contains("must not lease the same addresses (see: ipam check), or its lease was ended by force "),
            "{msg}"
        );
        assert!(msg.contains(&format!("(see: ipam history {})", ips[0])), "{msg}");
        before.unchanged("after what was refused");
        assert_eq!(ipam::Ledger::at(folder("blue")).leases("a test").unwrap().unwrap(), []);
        assert_reached(&pods[1], &ips);
        pods[1].check(&red, &result).ok();
        // The DEL that follows a refused ADD takes nothing from the living either, neither the route nor the masquerade.
        pods[2].del(&blue).ok();
        assert_reached(&pods[1], &ips);
        pods[1].check(&red, &result).ok();
        // The next is given another one, however few are left.
        let mut others = Vec::new();
        while others.len() < 4 {
            let pod = TestPod::new(&format!("other{}", others.len()));
            let other = addresses(&pod.add(&blue).ok().json());
            assert!(!other.contains(&ips[0]) && !other.contains(&ips[1]), "{other:?}");
            assert_reached(&pod, &other);
            others.push(pod);
        }
        let (code, msg) = pods[2].add(&blue).error();
        assert_eq!(code, 112, "{msg}");
        pods[1].del(&red).ok();
        assert_eq!(addresses(&pods[2].add(&blue).ok().json()), ips);
        assert_reached(&pods[2], &ips);
    });
}

/// What somebody routes to a pod besides its address is not the pod's own, nor is a route that is not of an ADD.
#[test]
fn what_is_routed_to_a_pod_besides_is_nobody_s() {
    sandbox::private_host(|| {
        node_addresses();
        let (router, pod) = (TestPod::new("router"), TestPod::new("pod"));
        let result = router.add(&network("red", &["10.244.9.0/24"])).ok().json();
        let link = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
        text("ip", &["route", "add", "10.244.1.0/24", "dev", &link]);
        text("ip", &["route", "add", "10.244.1.2", "dev", &link]);
        let ips = addresses(&pod.add(&network("blue", &["10.244.1.0/24"])).ok().json());
        assert_eq!(ips[0].to_string(), "10.244.1.2");
        assert_reached(&pod, &ips);
    });
}

/// The attachment's own earlier life is no other's.
#[test]
fn a_second_life_gets_its_own_address_again() {
    sandbox::private_host(|| {
        let node = node_addresses();
        let config = network("red", &["10.244.1.5/32"]);
        let first = TestPod::new("pod");
        let ips = addresses(&first.add(&config).ok().json());
        text("ip", &["netns", "delete", "pod"]);
        let again = TestPod::new("pod");
        let result = run(&again.env("ADD"), &config).ok().json();
        assert_eq!(addresses(&result), ips);
        exchange(&NetNs::current().unwrap(), &again.netns, node[0]).unwrap();
        drop(first);
    });
}
