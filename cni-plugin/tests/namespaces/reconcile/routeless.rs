//! Pods whose routes somebody took: setting a link down and up does.

use std::fs;

use serde_json::{Value, json};

use super::{added, keep, reconcile, ruleset};
use crate::common::{TestPod, dual_stack, exchange, text, with};
use crate::masquerade::{address, outside_machine};

/// What is listed of a pod's guard in both families.
fn guard_of(pod: &str) -> Vec<String> {
    let there = ruleset();
    let mut lines: Vec<String> = Vec::new();
    let mut is_guard = false;
    for line in there.lines() {
        is_guard = if line.starts_with("table ") { line.contains("podwire-guard") } else { is_guard };
        let own = line.split('"').any(|word| word.ends_with(&format!(" {pod} eth0")));
        if is_guard && own {
            lines.push(line.trim().trim_start_matches("elements = { ").trim_end_matches([',', ' ', '}']).to_owned());
        }
    }
    lines.sort();
    lines
}

fn link_of(pod: &str) -> String {
    let links = text("ip", &["-o", "link"]);
    let line = links.lines().find(|line| line.contains(&format!(" {pod} eth0"))).unwrap();
    line.split([' ', '@']).nth(1).unwrap().to_owned()
}

fn take_routes(link: &str) {
    for state in ["down", "up"] {
        text("ip", &["link", "set", link, state]);
    }
}

/// The guard comes back, by the lease; what it takes to reach the pod does not, and that is said at every run.
#[test]
fn a_pod_without_routes_is_guarded_and_reported() {
    sandbox::private_host(|| {
        let told = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" }, "capabilities": { "mac": true } });
        let foreign = json!({ "cniVersion": "1.0.0", "name": "foreign", "ipam": { "type": "host-local", "subnet": "10.245.0.0/24" } });
        let kinds = [
            ("strict", json!({})),
            ("told", told),
            ("loose", json!({ "antiSpoofing": "addresses" })),
            ("off", json!({ "antiSpoofing": "off" })),
            ("foreign", foreign),
        ];
        let pods = kinds.each_ref().map(|(id, keys)| {
            let config = with(dual_stack(), keys);
            let pod = TestPod::new(id);
            pod.add(&config).ok();
            let mut kept = config.clone();
            let capabilities = kept.as_object_mut().unwrap().remove("runtimeConfig").unwrap_or(Value::Null);
            keep(&pod, &kept, &capabilities);
            (pod, config, link_of(id), guard_of(id))
        });
        let other = added("other", &dual_stack());
        for (_, _, link, _) in &pods {
            take_routes(link);
        }
        let before = ruleset();
        let (code, printed) = reconcile(&["--quiet"]);
        assert_eq!((code, ruleset()), (4, before), "{printed}");
        for (pod, _, link, _) in &pods {
            let said =
                format!("{} eth0: nothing to restore, but no route leads to {link}: its ADD is not done", pod.id);
            assert!(printed.contains(&said), "{printed}");
        }
        for _ in 0..2 {
            text("nft", &["flush", "ruleset"]);
            let (code, printed) = reconcile(&["--quiet"]);
            assert_eq!(code, 4, "{printed}");
            assert!(printed.contains("podnet other eth0: restored"), "{printed}");
            for (pod, _, link, guard) in &pods {
                // Nobody knows the address that another IPAM plugin gave: such a pod may send nothing, both families of it.
                let (expected, may_be) = (guard_of(&pod.id), if pod.id == "foreign" { 2 } else { guard.len() });
                assert!(expected.iter().all(|line| guard.contains(line)), "{expected:?} {guard:?}");
                assert_eq!(expected.len(), may_be, "{}: {expected:?} {guard:?}", pod.id);
                let done = if pod.id == "off" { "nothing to restore" } else { "restored (" };
                let lines: Vec<&str> =
                    printed.lines().filter(|line| line.contains(&format!(" {} eth0: ", pod.id))).collect();
                let is_said = |line: &&str| line.contains(done) && line.contains(&format!("no route leads to {link}"));
                assert!(lines.len() == 1 && lines.iter().all(is_said), "{printed}");
            }
        }
        for (pod, config, _, _) in &pods {
            pod.del(config).ok();
        }
        other.del(&dual_stack()).ok();
        assert_eq!(ruleset(), "");
    });
}

/// Without anything that says how it was guarded, and a link that does ARP, nobody knows.
#[test]
fn a_pod_without_routes_of_which_nothing_is_known_is_passed_over() {
    sandbox::private_host(|| {
        let config = with(dual_stack(), &json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" } }));
        let pod = TestPod::new("one");
        pod.add(&config).ok();
        let link = link_of("one");
        text("ip", &["link", "set", &link, "down"]);
        text("nft", &["flush", "ruleset"]);
        let (code, printed) = reconcile(&["--quiet"]);
        let said = format!("podnet one eth0: passed over, but no route leads to {link}: its ADD is not done");
        assert!(code == 4 && printed.contains(&said), "{printed}");
        assert_eq!(ruleset(), "");
        pod.del(&config).ok();
    });
}

/// The lease tells it from a link for layer 2, and the link that it is guarded.
#[test]
fn a_pod_without_routes_is_known_by_its_lease() {
    sandbox::private_host(|| {
        let wire = with(dual_stack(), &json!({ "ipam": {}, "ipMasq": false, "nonMasqueradeCIDRs": null }));
        let pods = [("one", dual_stack()), ("wire", wire)].map(|(id, config)| {
            let pod = TestPod::new(id);
            pod.add(&config).ok();
            (pod, config)
        });
        let (link, guard) = (link_of("one"), guard_of("one"));
        take_routes(&link);
        for (flushed, done) in [(false, "nothing to restore"), (true, "restored (")] {
            if flushed {
                text("nft", &["flush", "ruleset"]);
            }
            let (code, printed) = reconcile(&[]);
            let line = printed.lines().find(|line| line.starts_with("podnet one eth0: ")).unwrap_or_default();
            assert!(code == 4 && line.contains(done) && line.contains("but no route leads to"), "{printed}");
            assert!(!printed.contains(&format!("no route leads to {}", link_of("wire"))), "{printed}");
            assert_eq!(guard_of("one"), guard, "{printed}");
        }
        for (pod, config) in &pods {
            pod.del(config).ok();
        }
        assert_eq!(ruleset(), "");
    });
}

/// Another IPAM plugin gives one's addresses to two: one is still reported, and may send under neither.
#[test]
fn a_pod_whose_addresses_another_has_is_guarded_without_them() {
    sandbox::private_host(|| {
        let one = TestPod::new("one");
        let result = one.add(&dual_stack()).ok().json();
        keep(&one, &dual_stack(), &json!({}));
        let addresses: Vec<Value> =
            result["ips"].as_array().unwrap().iter().map(|ip| json!({ "address": ip["address"] })).collect();
        let ipam = json!({ "type": "static", "addresses": addresses });
        let config = with(dual_stack(), &json!({ "cniVersion": "1.0.0", "name": "other", "ipam": ipam }));
        let two = added("two", &config);
        let (link, guard) = (link_of("one"), guard_of("two"));
        assert_eq!((guard_of("one").len(), guard.len()), (4, 4), "an ADD does not look for senders of other links");
        for (flushed, arguments) in [(false, &[][..]), (true, &[]), (true, &["--network", "podnet"]), (false, &[])] {
            if flushed {
                text("nft", &["flush", "ruleset"]);
            }
            let (code, printed) = reconcile(arguments);
            let line = printed.lines().find(|line| line.starts_with("podnet one eth0: ")).unwrap_or_default();
            assert!(code == 4 && line.contains(&format!("no route leads to {link}")), "{code} {printed}");
            let links = guard_of("one");
            assert!(
                links.len() == 2 && links.iter().all(|it| !it.contains("10.244") && !it.contains("fd00")),
                "{links:?}"
            );
        }
        assert_eq!(guard_of("two"), guard);
        one.del(&dual_stack()).ok();
        two.del(&config).ok();
        assert_eq!(ruleset(), "");
    });
}

/// A ledger that cannot be read is not one without leases, and of a network's pods each is looked for in its own.
#[test]
fn a_lease_that_cannot_be_read_is_told() {
    sandbox::private_host(|| {
        let mut moved = dual_stack();
        moved["ipam"]["dataDir"] = json!("/run/elsewhere");
        // Of the first nothing but the usual ledger tells.
        let usual = TestPod::new("usual");
        usual.add(&dual_stack()).ok();
        let elsewhere =
            added("elsewhere", &with(moved.clone(), &json!({ "args": { "cni": { "ips": ["10.244.1.77"] } } })));
        let ids = ["usual", "elsewhere"];
        let guards = ids.map(guard_of);
        ids.iter().for_each(|id| take_routes(&link_of(id)));
        text("nft", &["flush", "ruleset"]);
        let (code, printed) = reconcile(&[]);
        assert!(code == 4 && !printed.contains("cannot be read"), "{printed}");
        assert_eq!(ids.map(guard_of), guards, "{printed}");

        text("nft", &["flush", "ruleset"]);
        let lock = fs::File::open("/run/podwire/ipam/lock").unwrap();
        lock.lock().unwrap();
        let (code, printed) = reconcile(&[]);
        drop(lock);
        let lines: Vec<&str> = printed.lines().filter(|line| line.contains("its lease cannot be read: ")).collect();
        assert!(code == 4 && lines.len() == 1 && lines[0].starts_with("podnet usual eth0: "), "{printed}");
        assert_eq!((guard_of("usual").len(), &guard_of("elsewhere")), (2, &guards[1]), "{printed}");
        let (code, printed) = reconcile(&[]);
        assert!(code == 4 && !printed.contains("cannot be read"), "{printed}");
        assert_eq!(ids.map(guard_of), guards, "{printed}");
        usual.del(&dual_stack()).ok();
        elsewhere.del(&moved).ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_pod_without_routes_of_ipv6_is_guarded_and_reported() {
    sandbox::private_host(|| one_family_is_lost("-6", "IPv6", ("10.244.1.0/24", "198.51.100.1", "192.168.50.1")));
}

#[test]
fn a_pod_without_routes_of_ipv4_is_guarded_and_reported() {
    sandbox::private_host(|| one_family_is_lost("-4", "IPv4", ("fd00:10:244:1::/64", "2001:db8:51::1", "fd50::1")));
}

/// Of the other family all comes back; of this what it may send from, and that nothing leads to it is said at every run.
fn one_family_is_lost(lost: &str, name: &str, (other, outside, node): (&str, &str, &str)) {
    let machine = outside_machine();
    let told = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" }, "capabilities": { "mac": true } });
    let kinds =
        [("strict", json!({})), ("told", told), ("loose", json!({ "antiSpoofing": "addresses" }))].map(|(id, keys)| {
            let config = with(dual_stack(), &keys);
            let pod = TestPod::new(id);
            pod.add(&config).ok();
            let mut kept = config.clone();
            let capabilities = kept.as_object_mut().unwrap().remove("runtimeConfig").unwrap_or(Value::Null);
            keep(&pod, &kept, &capabilities);
            (pod, config, link_of(id))
        });
    let one_family = json!({ "name": "single", "ipam": { "type": "podwire-ipam", "podCIDR": other } });
    let single = with(dual_stack(), &one_family);
    let alone = added("alone", &single);
    // Nothing but the usual ledger tells of it.
    let unknown = TestPod::new("unknown");
    unknown.add(&dual_stack()).ok();
    let guards = || ["strict", "told", "loose", "unknown", "alone"].map(guard_of);
    let (before, all) = (guards(), ruleset());
    text("ip", &[lost, "route", "flush", "proto", "112"]);
    for flushed in [false, true, true] {
        if flushed {
            text("nft", &["flush", "ruleset"]);
        }
        let (code, printed) = reconcile(&["--quiet"]);
        assert_eq!((code, guards()), (4, before.clone()), "{printed}");
        assert!(flushed || ruleset() == all, "{printed}");
        let done = if flushed { "restored (" } else { "nothing to restore, " };
        for (id, link) in
            kinds.iter().map(|(pod, _, link)| (&*pod.id, link.clone())).chain([("unknown", link_of("unknown"))])
        {
            let line = printed.lines().find(|line| line.starts_with(&format!("podnet {id} eth0: {done}")));
            let said = format!("no {name} route leads to {link}: its ADD is not done");
            assert!(line.is_some_and(|line| line.contains(&said)), "{id}: {printed}");
        }
        let is_told = |line: &str| line.starts_with("single alone eth0: restored (") && !line.contains("route");
        let lines: Vec<&str> = printed.lines().filter(|line| line.contains("alone")).collect();
        assert!(if flushed { lines.len() == 1 && is_told(lines[0]) } else { lines.is_empty() }, "{printed}");
    }
    for (pod, config, _) in &kinds {
        assert_eq!(exchange(&machine, &pod.netns, address(outside)).unwrap().ip(), address(node), "{}", pod.id);
        pod.del(config).ok();
    }
    alone.del(&single).ok();
    unknown.del(&dual_stack()).ok();
    assert_eq!(ruleset(), "");
}
