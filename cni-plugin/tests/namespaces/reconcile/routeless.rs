//! Pods whose routes somebody took: setting a link down and up does.

use serde_json::{Value, json};

use super::{added, keep, reconcile, ruleset};
use crate::common::{TestPod, dual_stack, text, with};

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
