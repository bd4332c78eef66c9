//! Several networks in one pod, and several attachments to one network: whoever asks is answered by the link that the
//! question came by.

use std::net::IpAddr;

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{
    Answer, TestPod, addresses, dual_stack, exchange, finish, node_addresses, run, text, traces, with,
};

/// Another network of the same node.
fn storage() -> Value {
    with(
        dual_stack(),
        &json!({ "name": "storage", "ipMasq": false,
                 "ipam": { "type": "podwire-ipam", "podCIDR": ["10.245.1.0/24", "fd00:10:245:1::/64"] } }),
    )
}

fn call(pod: &TestPod, command: &str, ifname: &str, config: &Value) -> Answer {
    let mut env = pod.env(command);
    env.retain(|(name, _)| *name != "CNI_IFNAME");
    env.push(("CNI_IFNAME", ifname.to_owned()));
    run(&env, config)
}

fn in_pod(pod: &TestPod, arguments: &str) -> String {
    let arguments: Vec<&str> = ["-n", &pod.id].into_iter().chain(arguments.split(' ')).collect();
    text("ip", &arguments)
}

/// Both ways between a pod's addresses and another namespace.
fn talk(pod: &TestPod, own: &[IpAddr], other: &NetNs, others: &[IpAddr]) {
    for (own, other_address) in own.iter().zip(others) {
        exchange(&pod.netns, other, *own).unwrap_or_else(|error| panic!("to {own}: {error}"));
        exchange(other, &pod.netns, *other_address).unwrap_or_else(|error| panic!("to {other_address}: {error}"));
    }
}

#[test]
fn two_networks_answer_by_the_link_that_was_asked() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let node = NetNs::current().unwrap();
        let (pod, peer) = (TestPod::new("two"), TestPod::new("peer"));
        let first = call(&pod, "ADD", "eth0", &dual_stack()).ok().json();
        let before = (in_pod(&pod, "route show default"), in_pod(&pod, "-6 route show default"));
        let second = call(&pod, "ADD", "eth1", &storage()).ok().json();
        let on_peer = addresses(&call(&peer, "ADD", "eth0", &storage()).ok().json());
        assert_eq!((in_pod(&pod, "route show default"), in_pod(&pod, "-6 route show default")), before);
        let (eth0, eth1) = (addresses(&first), addresses(&second));
        for own in [&eth0, &eth1] {
            talk(&pod, own, &node, &node_addresses);
            talk(&pod, own, &peer.netns, &on_peer);
        }
        // What the second network's link carries shows that the answers did leave by it.
        let seen = in_pod(&pod, "-s -j link show eth1");
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert!(seen[0]["stats64"]["tx"]["packets"].as_u64().unwrap() > 10, "{seen}");
        for (ifname, config, result) in [("eth0", dual_stack(), &first), ("eth1", storage(), &second)] {
            call(&pod, "CHECK", ifname, &with(config, &json!({ "prevResult": result }))).ok();
        }
        // The second network is taken away, the pod lives on.
        let marked = || in_pod(&pod, "rule show") + &in_pod(&pod, "-6 rule show");
        // For its own addresses, and for those of the first.
        assert_eq!(marked().matches("proto 112").count(), 4);
        call(&pod, "DEL", "eth1", &storage()).ok();
        assert_eq!(marked().matches("proto 112").count(), 0);
        talk(&pod, &eth0, &node, &node_addresses);
    });
}

#[test]
fn two_attachments_to_one_network_answer_by_their_links() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let node = NetNs::current().unwrap();
        let pod = TestPod::new("two");
        let before = traces();
        for ifname in ["net1", "net2"] {
            let result = call(&pod, "ADD", ifname, &dual_stack()).ok().json();
            talk(&pod, &addresses(&result), &node, &node_addresses);
            call(&pod, "CHECK", ifname, &with(dual_stack(), &json!({ "prevResult": result }))).ok();
        }
        for ifname in ["net1", "net2"] {
            call(&pod, "DEL", ifname, &dual_stack()).ok();
        }
        before.unchanged("both are gone");
    });
}

/// Whatever next hop the first network has, CHECK of the second knows which routes are whose, and misses that which keeps the
/// first network's answers on its link.
#[test]
fn a_check_knows_the_first_networks_routes() {
    sandbox::private_host(|| {
        let by_bridge = json!({ "cniVersion": "1.0.0", "name": "bridged", "type": "bridge", "bridge": "br0", "isDefaultGateway": true,
                                "ipam": { "type": "host-local", "subnet": "10.22.0.0/16" } });
        let of_range = with(dual_stack(), &json!({ "gateway": "range" }));
        for (number, first) in [dual_stack(), of_range, by_bridge].iter().enumerate() {
            for version in ["1.1.0", "1.0.0"] {
                let pod = TestPod::new(&format!("pod{number}-{}", version.replace('.', "")));
                if first["type"] == "bridge" {
                    let mut bridge = sandbox::command("/usr/lib/cni/bridge");
                    bridge.envs(pod.env("ADD"));
                    finish(bridge, first.to_string().as_bytes()).ok();
                } else {
                    call(&pod, "ADD", "eth0", first).ok();
                }
                let second = with(storage(), &json!({ "cniVersion": version }));
                let result = call(&pod, "ADD", "eth1", &second).ok().json();
                let check = || call(&pod, "CHECK", "eth1", &with(second.clone(), &json!({ "prevResult": result })));
                check().ok();
                let rules = in_pod(&pod, "rule show");
                let tables =
                    rules.lines().filter_map(|rule| rule.split_once("lookup ")?.1.split(' ').next()?.parse().ok());
                let last: u32 = tables.filter(|table| *table > 1000).max().unwrap();
                in_pod(&pod, &format!("route flush table {last}"));
                let (code, _) = check().error();
                let details = check().json()["details"].to_string();
                let missed = format!("dev eth0 table {last}");
                assert!(code == 110 && details.contains(&missed), "{first} {version}: no {missed:?} in {details}");
            }
        }
    });
}

#[test]
fn a_check_misses_the_rule_that_leads_to_a_table() {
    sandbox::private_host(|| {
        let pod = TestPod::new("two");
        call(&pod, "ADD", "eth0", &dual_stack()).ok();
        let result = call(&pod, "ADD", "eth1", &storage()).ok().json();
        let (address, table) = (addresses(&result)[0], &result["routes"][1]["table"]);
        in_pod(&pod, &format!("rule delete from {address} lookup {table}"));
        let checked = call(&pod, "CHECK", "eth1", &with(storage(), &json!({ "prevResult": result })));
        let (code, _) = checked.error();
        let details = checked.json()["details"].to_string();
        assert!(code == 110 && details.contains(&format!("rule add from {address} lookup {table}")), "{details}");
    });
}
