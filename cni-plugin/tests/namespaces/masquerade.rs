//! Who sees which source address, by packets.

use std::net::IpAddr;

use crate::common::{TestPod, dual_stack, exchange, text, traces, with};
use kernel::netns::NetNs;
use serde_json::json;

/// A machine on the node's wire that has addresses inside and outside of `nonMasqueradeCIDRs`, and knows the way
/// back to pods only by the node.
pub fn outside_machine() -> NetNs {
    let outside = kernel::netns::create_named("/run/netns/outside").unwrap();
    text("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "wire", "netns", "outside"]);
    for arguments in [
        "address add 192.168.50.1/24 dev uplink",
        "address add fd50::1/64 dev uplink nodad",
        "link set uplink up",
        "route add default via 192.168.50.254 dev uplink onlink",
        "-6 route add default via fd50::fe dev uplink onlink",
        "-n outside address add 192.168.50.254/24 dev wire",
        "-n outside address add fd50::fe/64 dev wire nodad",
        "-n outside address add 10.244.9.9/32 dev lo",
        "-n outside address add fd00:10:244:9::9/128 dev lo",
        "-n outside address add 198.51.100.1/32 dev lo",
        "-n outside address add 2001:db8:51::1/128 dev lo",
        "-n outside link set lo up",
        "-n outside link set wire up",
        "-n outside route add 10.244.1.0/24 via 192.168.50.1",
        "-n outside -6 route add fd00:10:244:1::/64 via fd50::1",
    ] {
        text("ip", &arguments.split(' ').collect::<Vec<_>>());
    }
    outside
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_outside_sees_the_node_and_the_cluster_sees_the_pod() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        let seen = |to: &str| exchange(&outside, &pod.netns, address(to)).unwrap().ip();
        assert_eq!(seen("198.51.100.1"), address("192.168.50.1"));
        assert_eq!(seen("2001:db8:51::1"), address("fd50::1"));
        assert_eq!(seen("10.244.9.9"), address("10.244.1.2"));
        assert_eq!(seen("fd00:10:244:9::9"), address("fd00:10:244:1::2"));
    });
}

#[test]
fn without_ip_masq_everybody_sees_the_pod() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let pod = TestPod::new("one");
        pod.add(&with(dual_stack(), &json!({ "ipMasq": false }))).ok();
        assert_eq!(exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip(), address("10.244.1.2"));
        let tables = text("nft", &["list", "tables"]);
        assert!(!tables.contains("podwire-masq"), "{tables}");
    });
}

#[test]
fn the_outside_sees_the_source_that_the_config_names() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        text("ip", &["address", "add", "192.168.50.77/32", "dev", "uplink"]);
        text("ip", &["address", "add", "fd50::77/128", "dev", "uplink", "nodad"]);
        let pod = TestPod::new("one");
        let config = with(dual_stack(), &json!({ "snatSource": ["192.168.50.77", "fd50::77"] }));
        let result = pod.add(&config).ok().json();
        for (to, source) in [("198.51.100.1", "192.168.50.77"), ("2001:db8:51::1", "fd50::77")] {
            assert_eq!(exchange(&outside, &pod.netns, address(to)).unwrap().ip(), address(source));
        }
        assert_eq!(exchange(&outside, &pod.netns, address("10.244.9.9")).unwrap().ip(), address("10.244.1.2"));
        pod.check(&config, &result).ok();
    });
}

#[test]
fn a_changed_config_changes_the_rules_and_keeps_the_pods() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        one.add(&dual_stack()).ok();
        let changed = with(dual_stack(), &json!({ "nonMasqueradeCIDRs": ["198.51.100.0/24"] }));
        two.add(&changed).ok();
        for (pod, own) in [(&one, "10.244.1.2"), (&two, "10.244.1.3")] {
            assert_eq!(exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip(), address(own));
            assert_eq!(exchange(&outside, &pod.netns, address("10.244.9.9")).unwrap().ip(), address("192.168.50.1"));
        }
    });
}

#[test]
fn racing_pods_never_lose_their_masquerade() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        // Forwarding stays on once the first pod needed it, and with it come routes of the kernel's own.
        let first = TestPod::new("first");
        first.add(&dual_stack()).ok();
        first.del(&dual_stack()).ok();
        let before = traces();
        let pods: Vec<TestPod> = (0..8).map(|number| TestPod::new(&format!("pod{number}"))).collect();
        for round in 0..4 {
            std::thread::scope(|scope| {
                for pod in &pods {
                    let outside = &outside;
                    scope.spawn(move || {
                        pod.add(&dual_stack()).ok();
                        let seen = exchange(outside, &pod.netns, address("198.51.100.1")).unwrap().ip();
                        assert_eq!(seen, address("192.168.50.1"), "round {round}, {}", pod.id);
                        pod.del(&dual_stack()).ok();
                    });
                }
            });
        }
        before.unchanged("at the end");
    });
}
