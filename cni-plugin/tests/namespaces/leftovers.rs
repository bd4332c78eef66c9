//! An ADD that no DEL came before: what the attachment, or whoever had its addresses, has left is gone, so that nobody sends
//! or is masqueraded by a right that is another's.

use std::net::{IpAddr, UdpSocket};

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, run, text, with};
use crate::flavour::Flavour;
use crate::frames::{Claim, Wire, udp};
use crate::hostile::{dropped, mac};
use crate::masquerade::{address, outside_machine};
use crate::masquerade_iptables::by_iptables;

/// The sandbox died and its successor has the same id.
fn begun_anew(pod: &TestPod, config: &Value) -> (TestPod, Value) {
    kernel::netns::remove_named(&pod.path).unwrap();
    let pod = TestPod::new(&pod.id);
    let result = pod.add(config).ok().json();
    (pod, result)
}

fn asking_for(config: &Value, ips: &[IpAddr]) -> Value {
    with(config.clone(), &json!({ "runtimeConfig": { "ips": ips } }))
}

#[test]
fn an_address_from_an_earlier_life_may_not_be_sent_from() {
    sandbox::private_host(|| {
        let [_, node] = node_addresses();
        let config = with(dual_stack(), &json!({ "ipMasq": false }));
        let one = TestPod::new("one");
        let old = addresses(&one.add(&config).ok().json());
        let (one, result) = begun_anew(&one, &config);
        let own = addresses(&result);
        assert_ne!(own, old);
        // Somebody else has them now.
        let two = TestPod::new("two");
        assert_eq!(addresses(&two.add(&asking_for(&config, &old)).ok().json()), old);

        let wire = Wire::of(&one.netns, "eth0");
        let claim = |from| Claim {
            from_mac: mac(&result["interfaces"][1]["mac"]),
            to_mac: mac(&result["interfaces"][0]["mac"]),
            from,
            to: node,
        };
        let socket = UdpSocket::bind((node, 0)).unwrap();
        socket.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let before = dropped("ip6");
        wire.send(&udp(&claim(old[1]), port, "attack"));
        wire.send(&udp(&claim(own[1]), port, "honest"));
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
        crate::common::until(|| dropped("ip6") > before, || "the guard dropped nothing".to_owned());
        one.check(&config, &result).ok();
        let rules = text("nft", &["list", "ruleset"]);
        assert!(
            !rules.contains("elements = { }") && rules.matches("comment \"podnet one eth0\"").count() == 4,
            "{rules}"
        );
    });
}

#[test]
fn check_finds_what_the_pod_should_not_have() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let element = "{ 10.244.1.9 comment \"podnet one eth0\" }";
        text("nft", &["add", "element", "ip", "podwire-masq-podnet", "pods", element]);
        let answer = pod.check(&dual_stack(), &result);
        let details = answer.json()["details"].to_string();
        assert!(
            answer.error().0 == 110 && details.contains("no `nft add element ip podwire-masq-podnet pods"),
            "{details}"
        );
        assert!(details.contains("10.244.1.9"), "{details}");
    });
}

/// From each backend to each other way, and the address goes to a pod that is not masqueraded.
#[test]
fn a_masquerade_from_an_earlier_life_ends() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let flavour = Flavour::Nft.chosen();
        let by_nftables = with(dual_stack(), &json!({ "ipMasqBackend": "nftables" }));
        let unguarded = |config: &Value| with(config.clone(), &json!({ "antiSpoofing": "off" }));
        let without = with(dual_stack(), &json!({ "ipMasq": false }));
        for (first, second) in [
            (by_iptables(), by_nftables.clone()),
            (by_nftables.clone(), by_iptables()),
            (by_iptables(), without.clone()),
            (by_nftables.clone(), without.clone()),
            (unguarded(&by_iptables()), unguarded(&by_nftables)),
            (unguarded(&by_nftables), unguarded(&by_iptables())),
            // A guard that is not wanted any more would drop everything.
            (by_nftables.clone(), unguarded(&without)),
        ] {
            let context = format!("{first} then {second}");
            let one = TestPod::new("one");
            let old = addresses(&one.add(&first).ok().json());
            let (one, result) = begun_anew(&one, &second);
            assert!(
                !flavour
                    .rules()
                    .iter()
                    .any(|rule| rule.contains("-s 10.244.1") && rule.contains(&format!("{}/32", old[0]))),
                "{context}"
            );
            one.check(&second, &result).ok();
            let two = TestPod::new("two");
            two.add(&asking_for(&without, &old)).ok();
            assert_eq!(exchange(&outside, &two.netns, address("198.51.100.1")).unwrap().ip(), old[0], "{context}");
            assert_eq!(exchange(&outside, &two.netns, address("2001:db8:51::1")).unwrap().ip(), old[1], "{context}");
            let node = NetNs::current().unwrap();
            exchange(&node, &one.netns, address("192.168.50.1")).unwrap_or_else(|error| panic!("{context}: {error}"));
            one.del(&second).ok();
            two.del(&without).ok();
            for pod in [&one, &two] {
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            assert_eq!(flavour.rules(), Vec::<String>::new(), "{context}");
            assert!(!text("nft", &["list", "tables"]).contains("podwire"), "{context}");
        }
    });
}

/// The namespace died, and another network's pod gets the address: its ledger is another one. Then the first network has a
/// further pod: nothing leads back to what was left.
#[test]
fn a_masquerade_of_another_network_ends() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let flavours = [Flavour::Nft.chosen(), Flavour::Legacy];
        let by_nftables = with(dual_stack(), &json!({ "ipMasqBackend": "nftables" }));
        let called = |config: &Value, name: &str| with(config.clone(), &json!({ "name": name }));
        let without = with(dual_stack(), &json!({ "ipMasq": false }));
        let open = with(without.clone(), &json!({ "antiSpoofing": "off" }));
        let to = ["198.51.100.1", "2001:db8:51::1"].map(address);
        for (number, (first, second, is_masqueraded)) in [
            (by_nftables.clone(), without.clone(), false),
            (by_nftables.clone(), open, false),
            (by_iptables(), without, false),
            (by_iptables(), by_nftables.clone(), true),
            (by_nftables, by_iptables(), true),
            (by_iptables(), by_iptables(), true),
        ]
        .into_iter()
        .enumerate()
        {
            let context = format!("{first} then {second}");
            let ipam =
                json!({ "ipam": with(first["ipam"].clone(), &json!({ "dataDir": format!("/run/ledger{number}") })) });
            let (first, second) = (called(&with(first, &ipam), "one"), called(&second, "two"));
            let pod = |name: &str| TestPod::new(&format!("{name}{number}"));
            let (old, other) = (pod("old"), pod("other"));
            let addresses_of_old = addresses(&old.add(&first).ok().json());
            other.add(&first).ok();
            kernel::netns::remove_named(&old.path).unwrap();
            drop(old);
            let is_gone = || !text("ip", &["-o", "route"]).contains(&addresses_of_old[0].to_string());
            crate::common::until(is_gone, || text("ip", &["route"]));

            let (new, late) = (pod("new"), pod("late"));
            let result = new.add(&asking_for(&second, &addresses_of_old)).ok().json();
            assert_eq!(addresses(&result), addresses_of_old, "{context}");
            late.add(&first).ok();
            for (to, own) in to.iter().zip(&addresses_of_old) {
                let seen = exchange(&outside, &new.netns, *to).unwrap().ip();
                assert_eq!(seen != *own, is_masqueraded, "{context}: {to} sees {seen}");
                // The first network has kept its other pods.
                for pod in [&other, &late] {
                    let seen = exchange(&outside, &pod.netns, *to).unwrap().ip();
                    assert!(
                        [address("192.168.50.1"), address("fd50::1")].contains(&seen),
                        "{context}: {to} sees {seen}"
                    );
                }
            }
            for (pod, config) in [(&other, &first), (&late, &first), (&new, &second)] {
                pod.del(config).ok();
            }
            let gc = [("CNI_COMMAND", "GC".to_owned()), ("CNI_PATH", "/usr/lib/cni".to_owned())];
            run(&gc, &with(first, &json!({ "cni.dev/valid-attachments": [] }))).ok();
            let rules = flavours.iter().flat_map(|flavour| flavour.rules()).collect::<Vec<_>>();
            assert_eq!(rules, Vec::<String>::new(), "{context}");
            assert!(!text("nft", &["list", "tables"]).contains("podwire"), "{context}");
        }
    });
}
