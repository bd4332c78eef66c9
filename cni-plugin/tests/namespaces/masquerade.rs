//! Who sees which source address, by packets.

use std::net::{IpAddr, SocketAddr};

use crate::common::{TestPod, dual_stack, exchange, text, traces, with};
use kernel::netns::NetNs;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

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
    crate::common::until_up("uplink");
    // Its answers to ARP are lost until then.
    outside.run(|| crate::common::until_up("wire")).unwrap();
    crate::common::until_usable("fd50::1");
    outside.run(|| ["fd50::fe", "2001:db8:51::1"].into_iter().for_each(crate::common::until_usable)).unwrap();
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

/// Each network has its own rules, on each backend: pods of the same network see each other, and those of another network see
/// the node unless a CIDR says otherwise.
#[test]
fn two_networks_of_a_node_see_the_node() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        for backend in ["nftables", "iptables"] {
            let of = |name: &str, pools: [&str; 2], kept: &[&str]| {
                let ipam = json!({ "type": "podwire-ipam", "podCIDR": pools });
                let keys = json!({ "name": name, "ipam": ipam, "ipMasqBackend": backend, "nonMasqueradeCIDRs": kept });
                with(dual_stack(), &keys)
            };
            let one = of("neta", ["10.21.0.0/24", "fd21::/64"], &[]);
            let two = of("netb", ["10.22.0.0/24", "fd22::/64"], &["10.21.0.0/24", "fd21::/64"]);
            let pods = [TestPod::new("one"), TestPod::new("two"), TestPod::new("three")];
            let results = [&one, &two, &one].into_iter().zip(&pods).map(|(config, pod)| pod.add(config).ok().json());
            let ips: Vec<_> = results.map(|result| crate::common::addresses(&result)).collect();
            for family in [0, 1] {
                let node = [address("192.168.50.1"), address("fd50::1")][family];
                let seen = |to: usize, from: usize| {
                    exchange(&pods[to].netns, &pods[from].netns, ips[to][family]).unwrap().ip()
                };
                assert_eq!(seen(2, 0), ips[0][family], "{backend}: the same network");
                assert_eq!(seen(1, 0), node, "{backend}: another network");
                assert_eq!(seen(0, 1), ips[1][family], "{backend}: one that is named");
                let to = [address("198.51.100.1"), address("2001:db8:51::1")][family];
                for pod in &pods {
                    assert_eq!(exchange(&outside, &pod.netns, to).unwrap().ip(), node, "{backend}: the outside");
                }
            }
            for (config, pod) in [&one, &two, &one].into_iter().zip(&pods) {
                pod.del(config).ok();
                kernel::netns::remove_named(&pod.path).unwrap();
            }
        }
    });
}

/// What connection tracking cannot place: the answer to a question that nobody asked. Whoever listens in the outside
/// machine hears it, and questions too; tells who sent what, up to the first question.
fn heard_of_invalid(outside: &NetNs, pod: &NetNs, to: IpAddr, strays: usize) -> Vec<(u8, IpAddr)> {
    // Echo request and echo reply (RFC 792, RFC 4443).
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let open = || Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    let listener = outside.run(open).unwrap();
    listener.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
    let sender = pod.run(open).unwrap();
    let say = |kind: u8| {
        let mut message = [kind, 0, 0, 0, 0, 1, 0x77, 0x77];
        // The kernel sums up ICMPv6 itself.
        if to.is_ipv4() {
            let sum = !(u16::from_be_bytes([kind, 0]) + 0x7777 + 1);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        sender.send_to(&message, &SocketAddr::new(to, 0).into()).unwrap();
    };
    (0..strays).for_each(|_| say(reply));
    say(request);
    let mut heard = Vec::new();
    loop {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1500];
        let (length, from) = listener.recv_from(&mut buffer).unwrap();
        #[expect(unsafe_code, reason = "the socket says how much it wrote")]
        // SAFETY: the first `length` bytes were written by recv_from.
        let packet: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        // Raw sockets of IPv4 hear the IP header too.
        let message = if to.is_ipv4() { &packet[20..] } else { &packet[..] };
        // Its number; the identifier is translated too where another one has it.
        if message.get(6..8) == Some(&[0x77, 0x77]) {
            heard.push((message[0], from.as_socket().unwrap().ip()));
            if message[0] == request {
                return heard;
            }
        }
    }
}

#[test]
fn what_is_not_tracked_does_not_leave_with_the_pods_address() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        for (drop, strays) in [(json!(false), 2), (json!(null), 0)] {
            let pod = TestPod::new("one");
            let config = with(dual_stack(), &json!({ "dropInvalid": drop }));
            let result = pod.add(&config).ok().json();
            let own = crate::common::addresses(&result);
            for (to, node, own, kinds) in
                [("198.51.100.1", "192.168.50.1", own[0], (8, 0)), ("2001:db8:51::1", "fd50::1", own[1], (128, 129))]
            {
                let mut expected = vec![(kinds.1, own); strays];
                expected.push((kinds.0, address(node)));
                assert_eq!(heard_of_invalid(&outside, &pod.netns, address(to), 2), expected, "{drop} to {to}");
            }
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
            kernel::netns::remove_named(&pod.path).unwrap();
        }
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
