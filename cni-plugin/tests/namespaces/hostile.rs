//! What a pod with CAP_NET_RAW cannot do, by frames. Each attack is also made where nothing guards, to show that it is
//! one.

use std::net::{IpAddr, UdpSocket};
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{DEADLINE, TestPod, addresses, dual_stack, exchange, node_addresses, shown, text, with};
use crate::frames::{BROADCAST, Claim, Wire, advertisement, arp, udp};

/// A hardware address that nobody has.
const NOBODY: [u8; 6] = [0x0a, 0, 0, 0, 0xba, 0xd0];

/// A node with a hostile pod and its victim.
struct Scene {
    node: [IpAddr; 2],
    hostile: TestPod,
    victim: TestPod,
    wire: Wire,
    link: String,
    node_mac: [u8; 6],
    own_mac: [u8; 6],
    own: Vec<IpAddr>,
    others: Vec<IpAddr>,
}

pub fn mac(text: &Value) -> [u8; 6] {
    let bytes = text.as_str().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

impl Scene {
    fn new(anti_spoofing: &str) -> Self {
        Self::with_hostile(anti_spoofing, &json!({}))
    }

    /// The hostile pod's config has these keys too.
    fn with_hostile(anti_spoofing: &str, changes: &Value) -> Self {
        let node = node_addresses();
        let config = with(dual_stack(), &json!({ "ipMasq": false, "antiSpoofing": anti_spoofing }));
        let (hostile, victim) = (TestPod::new("hostile"), TestPod::new("victim"));
        let made = hostile.add(&with(config.clone(), changes)).ok().json();
        let others = addresses(&victim.add(&config).ok().json());
        let interfaces = &made["interfaces"];
        Self {
            node,
            wire: Wire::of(&hostile.netns, "eth0"),
            link: interfaces[0]["name"].as_str().unwrap().to_owned(),
            node_mac: mac(&interfaces[0]["mac"]),
            own_mac: mac(&interfaces[1]["mac"]),
            own: addresses(&made),
            others,
            hostile,
            victim,
        }
    }

    /// An honest frame to the node, in the family of the number.
    fn honest(&self, family: usize) -> Claim {
        Claim { from_mac: self.own_mac, to_mac: self.node_mac, from: self.own[family], to: self.node[family] }
    }

    /// What gets through to `at`, of a frame with this claim and an honest one behind it. Frames may pass each other on
    /// their way through processors: the two leave from the same one, and the honest one is sent again and again.
    fn heard(&self, at: IpAddr, claim: &Claim, honest: &Claim) -> Vec<String> {
        let socket = UdpSocket::bind((at, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let honest_socket = UdpSocket::bind((honest.to, 0)).unwrap();
        let honest_port = honest_socket.local_addr().unwrap().port();
        honest_socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 64];
        for round in 0..3 {
            sandbox::on_one_processor(|| {
                if round == 0 {
                    self.wire.send(&udp(claim, port, "attack"));
                }
                self.wire.send(&udp(honest, honest_port, "honest"));
            });
            let length = honest_socket.recv(&mut buffer).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(&buffer[..length], b"honest");
            if let Ok(length) = socket.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
        heard
    }

    fn neighbours(&self) -> String {
        let shown = text("ip", &["neighbour", "show", "dev", &self.link]);
        let mut lines: Vec<&str> = shown.lines().filter(|line| !line.contains("FAILED")).collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

/// How many packets the guard of a family has dropped.
pub fn dropped(family: &str) -> u64 {
    let table = shown("nft", &["-j", "list", "table", family, "podwire-guard"]);
    let rules = table["nftables"].as_array().unwrap().iter().filter_map(|object| object["rule"]["expr"].as_array());
    let packets = rules.flatten().filter_map(|expression| expression["counter"]["packets"].as_u64());
    packets.sum()
}

fn spoofs(scene: &Scene) -> Vec<(&'static str, usize, Claim)> {
    let mut spoofs = Vec::new();
    for family in [0, 1] {
        let honest = scene.honest(family);
        spoofs.push(("another pod's address", family, Claim { from: scene.others[family], ..honest }));
        spoofs.push(("another hardware address", family, Claim { from_mac: NOBODY, ..honest }));
    }
    let outside = ["198.51.100.9", "2001:db8::9"].map(|text| text.parse().unwrap());
    spoofs.push(("an address of the outside", 0, Claim { from: outside[0], ..scene.honest(0) }));
    spoofs.push(("an address of the outside", 1, Claim { from: outside[1], ..scene.honest(1) }));
    let node = scene.node;
    spoofs.push(("the node's own address", 0, Claim { from: node[0], ..scene.honest(0) }));
    spoofs.push(("no address", 0, Claim { from: "0.0.0.0".parse().unwrap(), ..scene.honest(0) }));
    spoofs.push(("a link-local address", 1, Claim { from: "fe80::1234".parse().unwrap(), ..scene.honest(1) }));
    spoofs
}

#[test]
fn nobody_elses_address_gets_through() {
    sandbox::private_host(|| {
        let scene = Scene::new("strict");
        for (what, family, claim) in spoofs(&scene) {
            let name = ["ip", "ip6"][family];
            let before = dropped(name);
            let honest = scene.honest(family);
            assert_eq!(scene.heard(claim.to, &claim, &honest), Vec::<String>::new(), "{what}: {claim:?}");
            assert!(dropped(name) > before, "{what} was dropped by somebody else: {claim:?}");
        }
        // And the pod itself talks on.
        for address in scene.node {
            exchange(&kernel::netns::NetNs::current().unwrap(), &scene.hostile.netns, address).unwrap();
        }
    });
}

/// A flush opens the way, and `podwire reconcile` closes it again, whether or not it finds out what else was asked for.
#[test]
fn a_guard_that_was_flushed_is_put_back() {
    sandbox::private_host(|| {
        let scene = Scene::new("strict");
        text("nft", &["flush", "ruleset"]);
        // The kernel's own check of the way back (rp_filter) is for IPv4 alone.
        let claim = Claim { from: scene.others[1], ..scene.honest(1) };
        let heard = || scene.heard(claim.to, &claim, &scene.honest(1));
        assert_eq!(heard(), ["attack"], "nothing guards after a flush");
        let (code, printed) = crate::reconcile::reconcile(&[]);
        assert_eq!(code, 4, "{printed}");
        for (what, family, claim) in spoofs(&scene) {
            let name = ["ip", "ip6"][family];
            let before = dropped(name);
            assert_eq!(scene.heard(claim.to, &claim, &scene.honest(family)), Vec::<String>::new(), "{what}");
            assert!(dropped(name) > before, "{what} was dropped by somebody else: {claim:?}");
        }
    });
}

/// The node's end does ARP then, and has the gateway's addresses: nothing of it is another way through.
#[test]
fn a_told_hardware_address_opens_nothing() {
    sandbox::private_host(|| {
        let told = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" } });
        let scene = Scene::with_hostile("strict", &told);
        assert_eq!(scene.own_mac, [2, 0, 0, 0, 0, 0x77]);
        for (what, family, claim) in spoofs(&scene) {
            assert_eq!(scene.heard(claim.to, &claim, &scene.honest(family)), Vec::<String>::new(), "{what}: {claim:?}");
        }
        // It answers for the gateway, and for nobody else: not for the other pod.
        let answers = Answers::listen(&scene);
        let (IpAddr::V4(own), IpAddr::V4(victim)) = (scene.own[0], scene.others[0]) else { panic!("IPv4 first") };
        scene.wire.send(&arp(scene.own_mac, 1, own, victim));
        scene.wire.send(&arp(scene.own_mac, 1, own, "169.254.1.1".parse().unwrap()));
        let deadline = Instant::now() + DEADLINE;
        while answers.count() == 0 {
            assert!(Instant::now() < deadline, "the node did not answer for the gateway");
        }
        exchange(&kernel::netns::NetNs::current().unwrap(), &scene.hostile.netns, scene.node[0]).unwrap();
        assert_eq!(answers.count(), 1, "the node answered for somebody else");
        // What it says about others is believed by nobody.
        scene.wire.send(&arp(scene.own_mac, 2, victim, victim));
        exchange(&scene.victim.netns, &kernel::netns::NetNs::current().unwrap(), scene.others[0]).unwrap();
    });
}

/// The guard stands before connection tracking, so what it drops cannot fill the node's table.
#[test]
fn what_is_dropped_is_not_tracked() {
    sandbox::private_host(|| {
        for (mode, tracked) in [("off", true), ("strict", false)] {
            let scene = Scene::new(mode);
            for key in ["all", &scene.link] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{key}/rp_filter"), "0").unwrap();
            }
            // Whatever tracks: without a rule that asks for it the kernel does not.
            text("nft", &["add table inet tracks"]);
            text("nft", &["add chain inet tracks in { type filter hook input priority 0; }"]);
            text("nft", &["add rule inet tracks in ct state new counter"]);
            for family in [0, 1] {
                let claim = Claim { from: scene.others[family], ..scene.honest(family) };
                scene.heard(claim.to, &claim, &scene.honest(family));
                let shown = text("conntrack", &["-L", "-f", ["ipv4", "ipv6"][family], "-p", "udp"]);
                assert!(shown.contains(&format!("src={}", scene.own[family])), "{mode}: {shown}");
                assert_eq!(shown.contains(&format!("src={}", scene.others[family])), tracked, "{mode}: {shown}");
            }
            text("nft", &["delete table inet tracks"]);
            let config = with(dual_stack(), &json!({ "ipMasq": false, "antiSpoofing": mode }));
            for pod in [&scene.hostile, &scene.victim] {
                pod.del(&config).ok();
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            text("ip", &["link", "delete", "uplink"]);
        }
    });
}

#[test]
fn without_a_guard_the_same_frames_get_through() {
    sandbox::private_host(|| {
        let scene = Scene::new("off");
        // The kernel's own check of IPv4 sources is another guard.
        for key in ["all", &scene.link] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{key}/rp_filter"), "0").unwrap();
        }
        let attacks = spoofs(&scene).into_iter().filter(|(what, ..)| {
            ["another pod's address", "another hardware address", "an address of the outside"].contains(what)
        });
        let mut seen = 0;
        for (what, family, claim) in attacks {
            let heard = scene.heard(claim.to, &claim, &scene.honest(family));
            assert_eq!(heard, ["attack"], "{what}: {claim:?}");
            seen += 1;
        }
        assert_eq!(seen, 6);
        let answers = Answers::listen(&scene);
        let (IpAddr::V4(node), IpAddr::V4(own)) = (scene.node[0], scene.own[0]) else { panic!("IPv4 first") };
        scene.wire.send(&arp(scene.own_mac, 1, own, node));
        let deadline = Instant::now() + DEADLINE;
        while answers.count() == 0 {
            assert!(Instant::now() < deadline, "the node did not answer ARP");
        }
    });
}

#[test]
fn a_hardware_address_may_change_where_the_config_says_so() {
    sandbox::private_host(|| {
        let scene = Scene::new("addresses");
        for (what, family, claim) in spoofs(&scene) {
            let expected: &[&str] = if what == "another hardware address" { &["attack"] } else { &[] };
            assert_eq!(scene.heard(claim.to, &claim, &scene.honest(family)), expected, "{what}: {claim:?}");
        }
    });
}

#[test]
fn the_nodes_loopback_is_out_of_reach() {
    sandbox::private_host(|| {
        for (mode, expected) in [("off", &["attack"][..]), ("strict", &[])] {
            let scene = Scene::new(mode);
            // As where the node reaches hostPorts at 127.0.0.1.
            for key in ["all", &scene.link] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{key}/route_localnet"), "1").unwrap();
            }
            text("ip", &["link", "set", "lo", "up"]);
            let four = Claim { to: "127.0.0.1".parse().unwrap(), ..scene.honest(0) };
            assert_eq!(scene.heard(four.to, &four, &scene.honest(0)), expected, "{mode}");
            // The kernel lets nobody through to ::1 (`ip6_rcv_core`, net/ipv6/ip6_input.c), guard or not.
            let six = Claim { to: "::1".parse().unwrap(), ..scene.honest(1) };
            assert_eq!(scene.heard(six.to, &six, &scene.honest(1)), Vec::<String>::new(), "{mode}");
            let config = with(dual_stack(), &json!({ "ipMasq": false, "antiSpoofing": mode }));
            for pod in [&scene.hostile, &scene.victim] {
                pod.del(&config).ok();
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            text("ip", &["link", "delete", "uplink"]);
        }
    });
}

#[test]
fn nobody_believes_what_a_pod_says_about_the_gateway() {
    sandbox::private_host(|| {
        let scene = Scene::new("strict");
        let before = scene.neighbours();
        let (IpAddr::V4(node), IpAddr::V4(own)) = (scene.node[0], scene.own[0]) else { panic!("IPv4 first") };
        let gateway = "169.254.1.1".parse().unwrap();
        for sender in [gateway, node, own] {
            for operation in [1, 2] {
                scene.wire.send(&arp(NOBODY, operation, sender, sender));
            }
        }
        // A question about the node is not answered either.
        let answers = Answers::listen(&scene);
        scene.wire.send(&arp(scene.own_mac, 1, own, node));
        let dropped_before = dropped("ip6");
        let to = "ff02::1".parse().unwrap();
        for target in [IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]), scene.own[1], scene.node[1]] {
            let IpAddr::V6(target) = target else { continue };
            for from in [IpAddr::V6(target), scene.own[1]] {
                let claim = Claim { from, to, to_mac: BROADCAST, from_mac: NOBODY };
                scene.wire.send(&advertisement(&claim, target, NOBODY));
                let claim = Claim { from_mac: scene.own_mac, ..claim };
                scene.wire.send(&advertisement(&claim, target, NOBODY));
            }
        }
        let deadline = Instant::now() + DEADLINE;
        while dropped("ip6") < dropped_before + 12 {
            assert!(Instant::now() < deadline, "{} of 12 were dropped", dropped("ip6") - dropped_before);
        }
        // Both ways still work, for the hostile pod and for its victim.
        let current = kernel::netns::NetNs::current().unwrap();
        for (pod, own) in [(&scene.hostile, &scene.own), (&scene.victim, &scene.others)] {
            for family in [0, 1] {
                exchange(&current, &pod.netns, scene.node[family]).unwrap();
                exchange(&pod.netns, &current, own[family]).unwrap();
            }
        }
        assert_eq!(scene.neighbours(), before);
        assert_eq!(answers.count(), 0, "the node answered ARP");
    });
}

/// How many ARP messages come into the pod.
struct Answers<'a> {
    scene: &'a Scene,
}

impl<'a> Answers<'a> {
    fn listen(scene: &'a Scene) -> Self {
        let nft = |arguments: &[&str]| {
            let pod = scene.hostile.path.display().to_string();
            let name = format!("--net={pod}");
            text("nsenter", &[&[name.as_str(), "nft"][..], arguments].concat())
        };
        nft(&["add table arp seen"]);
        nft(&["add chain arp seen input { type filter hook input priority 0; }"]);
        nft(&["add rule arp seen input counter"]);
        Self { scene }
    }

    fn count(&self) -> u64 {
        let name = format!("--net={}", self.scene.hostile.path.display());
        let table = shown("nsenter", &[&name, "nft", "-j", "list", "table", "arp", "seen"]);
        let rules = table["nftables"].as_array().unwrap().iter();
        rules.filter_map(|object| object["rule"]["expr"][0]["counter"]["packets"].as_u64()).sum()
    }
}
