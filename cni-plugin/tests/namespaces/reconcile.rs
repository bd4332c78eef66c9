//! `podwire reconcile` after a firewall was flushed: by packets, and beside what the ADDs had made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::common::{TestPod, dual_stack, exchange, finish, text, with};
use crate::flavour::Flavour;
use crate::masquerade::{address, outside_machine};
use crate::masquerade_iptables::by_iptables;

mod changed;
mod meanwhile;
mod routeless;
mod told;

const CACHE: &str = "/run/cni-cache";
const CONFIGS: &str = "/run/cni-configs";
const OF_MULTUS: &str = "/run/multus-cache";

on_both_flavours!(masquerade_by_iptables_comes_back);

/// The administrator chose the flavour anew: packets meet both.
#[test]
fn masquerade_by_iptables_moves_to_the_flavour_that_was_chosen() {
    sandbox::private_host(|| {
        let _ = Flavour::Legacy.chosen();
        let pods = ["one", "two"].map(|id| added(id, &by_iptables()));
        text("umount", &["/usr/local/sbin"]);
        assert_eq!(Flavour::Nft.rules(), Vec::<String>::new());
        let (code, told) = reconcile(&[]);
        assert_eq!(code, 0, "{told}");
        assert_eq!(Flavour::Legacy.rules(), Vec::<String>::new(), "{told}");
        for pod in &pods {
            let of_pod = format!("podnet {} eth0", pod.id);
            let rules = Flavour::Nft.rules();
            assert_eq!(rules.iter().filter(|rule| rule.contains(&of_pod)).count(), 4, "{told}\n{rules:?}");
        }
    });
}

/// Runs it; tells its exit code and what it printed.
pub fn reconcile(arguments: &[&str]) -> (i32, String) {
    let (code, out, err) = reconcile_apart(arguments);
    (code, out + &err)
}

/// As [`reconcile`], with standard error by itself.
fn reconcile_apart(arguments: &[&str]) -> (i32, String, String) {
    let mut podwire = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
    podwire.env_clear().args(["reconcile", "--cache-dir", CACHE, "--conf-dir", CONFIGS]).args(arguments);
    let Output { status, stdout, stderr } = podwire.output().unwrap();
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (status.code().unwrap(), out, err)
}

/// What libcni keeps of an ADD, in its words (`cachedInfo`, libcni/api.go).
fn keep(pod: &TestPod, config: &Value, capabilities: &Value) {
    keep_in(CACHE, pod, config, capabilities);
}

fn keep_in(cache: &str, pod: &TestPod, config: &Value, capabilities: &Value) {
    let list = json!({ "cniVersion": "1.1.0", "name": config["name"], "plugins": [config] });
    let kept = json!({
        "kind": "cniCacheV1", "containerId": pod.id, "ifName": "eth0", "networkName": config["name"],
        "config": BASE64.encode(list.to_string().as_bytes()), "netns": pod.path,
        "cniArgs": [["IgnoreUnknown", "1"]], "capabilityArgs": capabilities,
    });
    let folder = Path::new(cache).join("results");
    fs::create_dir_all(&folder).unwrap();
    let name = format!("{}-{}-eth0", config["name"].as_str().unwrap(), pod.id);
    fs::write(folder.join(name), kept.to_string()).unwrap();
}

fn configure(name: &str, config: &Value) {
    fs::create_dir_all(CONFIGS).unwrap();
    fs::write(Path::new(CONFIGS).join(name), config.to_string()).unwrap();
}

fn added(id: &str, config: &Value) -> TestPod {
    let pod = TestPod::new(id);
    pod.add(config).ok();
    keep(&pod, config, &json!({}));
    pod
}

fn ruleset() -> String {
    text("nft", &["-s", "list", "ruleset"])
}

/// Lines without the order of tables, which is that of their making.
fn lines(ruleset: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = ruleset.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_a_flush_took_is_there_again_and_nothing_twice() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        keep(&pod, &dual_stack(), &json!({}));
        let two = added("two", &dual_stack());
        let before = ruleset();
        let seen = |pod: &TestPod, to: &str| exchange(&outside, &pod.netns, address(to)).unwrap().ip();
        text("nft", &["flush", "ruleset"]);
        assert_eq!(seen(&pod, "198.51.100.1"), address("10.244.1.2"), "the flush took the masquerade");

        let (code, printed) = reconcile(&["--dry-run"]);
        assert_eq!((code, ruleset().as_str()), (0, ""), "{printed}");
        assert!(printed.contains("# podnet one eth0: to be restored"), "{printed}");
        let document: Value = serde_json::from_str(&reconcile(&["--dry-run", "-o", "json"]).1).unwrap();
        assert_eq!(document["items"][0]["done"], "toRestore", "{document}");
        let mut nft = sandbox::command("nft");
        nft.args(["--file", "-"]);
        finish(nft, printed.as_bytes()).ok();
        assert_eq!(lines(&ruleset()), lines(&before), "what it prints does what it would do");
        text("nft", &["flush", "ruleset"]);

        let (code, printed) = reconcile(&[]);
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("podnet one eth0: restored (") && printed.contains("podnet two eth0: restored ("));
        for pod in [&pod, &two] {
            assert_eq!(seen(pod, "198.51.100.1"), address("192.168.50.1"));
            assert_eq!(seen(pod, "2001:db8:51::1"), address("fd50::1"));
        }
        assert_eq!(seen(&pod, "10.244.9.9"), address("10.244.1.2"));
        assert_eq!(lines(&ruleset()), lines(&before));
        pod.check(&dual_stack(), &result).ok();

        let (code, document) = reconcile(&["-o", "json"]);
        let document: Value = serde_json::from_str(&document).unwrap();
        let items = document["items"].as_array().unwrap();
        assert_eq!((code, items.len(), &document["nft"]), (0, 2, &json!([])), "{document}");
        assert!(items.iter().all(|item| item["done"] == "nothing"), "{document}");
        assert_eq!(reconcile(&["--quiet"]), (0, String::new()));
        assert_eq!(lines(&ruleset()), lines(&before));
    });
}

/// Pods with all kinds of guards and masquerade: each is guarded and masqueraded as its own ADD left it.
#[test]
fn every_pod_gets_its_own_rules_again() {
    sandbox::private_host(|| {
        outside_machine();
        let told = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" }, "capabilities": { "mac": true } });
        let kinds = [
            ("strict", json!({})),
            ("told", told),
            ("loose", json!({ "antiSpoofing": "addresses" })),
            ("off", json!({ "antiSpoofing": "off" })),
            ("ranged", json!({ "gateway": "range", "hostInterfacePrefix": "veth" })),
            ("layer2", json!({ "name": "wires", "ipam": {}, "ipMasq": false, "nonMasqueradeCIDRs": null })),
            ("plain", json!({ "ipMasq": false, "name": "plain" })),
            ("alone", json!({ "name": "v4", "ipam": { "type": "podwire-ipam", "podCIDR": "10.244.4.0/24" } })),
            ("source", json!({ "name": "sourced", "snatSource": "192.168.50.1", "dropInvalid": false })),
        ];
        for (id, keys) in &kinds {
            let ipam = json!({ "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00:10:244:1::/64"] });
            let mut config = with(with(dual_stack(), &json!({ "ipam": ipam })), keys);
            let pod = TestPod::new(id);
            pod.add(&config).ok();
            let capabilities = config["runtimeConfig"].take();
            config.as_object_mut().unwrap().remove("runtimeConfig");
            keep(&pod, &config, if capabilities.is_null() { &Value::Null } else { &capabilities });
        }
        let before = ruleset();
        assert_eq!(reconcile(&["--quiet"]), (0, String::new()), "all is as it should be");
        text("nft", &["flush", "ruleset"]);
        assert_eq!(reconcile(&[]).0, 0);
        assert_eq!(lines(&ruleset()), lines(&before));
    });
}

#[test]
fn rules_that_were_changed_are_made_anew_with_everybodys_elements() {
    sandbox::private_host(|| {
        let _pods = [added("one", &dual_stack()), added("two", &dual_stack())];
        let before = ruleset();
        for spoilt in [
            "flush chain ip podwire-guard guard",
            "flush table ip6 podwire-masq-podnet",
            "delete table ip podwire-masq-podnet",
            "insert rule ip podwire-guard guard accept",
            "flush set ip podwire-masq-podnet pods",
        ] {
            text("nft", &spoilt.split(' ').collect::<Vec<_>>());
            assert_ne!(lines(&ruleset()), lines(&before), "{spoilt}");
            let (code, printed) = reconcile(&[]);
            assert_eq!((code, lines(&ruleset())), (0, lines(&before)), "{spoilt}: {printed}");
        }
    });
}

#[test]
fn pods_of_other_networks_are_left_alone() {
    sandbox::private_host(|| {
        let other = with(dual_stack(), &json!({ "name": "other" }));
        let _pods = [added("one", &dual_stack()), added("two", &other)];
        text("nft", &["flush", "ruleset"]);
        let (code, printed) = reconcile(&["--network", "podnet"]);
        assert!(code == 0 && printed.contains("podnet one eth0: restored") && !printed.contains("two"), "{printed}");
        let there = ruleset();
        assert!(there.contains("podnet one eth0") && !there.contains("other"), "{there}");
        assert_eq!(reconcile(&["--network", "nobody"]).0, 3);
    });
}

/// Without what libcni keeps, the network's config is asked; without that, nobody knows, and it is said.
#[test]
fn what_is_not_known_is_said_and_guarded() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        let before = ruleset();
        text("nft", &["flush", "ruleset"]);
        let (code, printed) = reconcile(&[]);
        assert!(
            code == 4 && printed.contains("masquerade is not known, so not restored: nothing of it is in"),
            "{printed}"
        );
        let there = ruleset();
        assert!(there.contains("podwire-guard") && !there.contains("podwire-masq"), "{there}");
        configure(
            "10-other.conflist",
            &json!({ "name": "other", "cniVersion": "1.1.0", "plugins": [{ "type": "podwire" }] }),
        );
        assert_eq!(reconcile(&[]).0, 4);
        let mut plugin = dual_stack();
        for key in ["name", "cniVersion"] {
            plugin.as_object_mut().unwrap().remove(key);
        }
        configure(
            "20-podnet.conflist",
            &json!({ "name": "podnet", "cniVersion": "1.1.0", "plugins": [{ "type": "tuning" }, plugin] }),
        );
        assert_eq!(reconcile(&[]).0, 0);
        assert_eq!(lines(&ruleset()), lines(&before));
        assert_eq!(exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip(), address("192.168.50.1"));
    });
}

/// Multus keeps what it did elsewhere, and its configs are in no folder. Whose guard was off stays open: nothing tells that from
/// a guard that was flushed where the node's end does ARP and the kernel was told, or knows, no hardware address.
#[test]
fn a_guard_of_which_nobody_knows_is_not_made() {
    sandbox::private_host(|| {
        let wire = json!({ "name": "wires", "ipam": {}, "ipMasq": false, "nonMasqueradeCIDRs": null });
        let off = json!({ "antiSpoofing": "off" });
        let told = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:77" } });
        let kinds = [
            ("wireoff", with(with(dual_stack(), &wire), &off)),
            ("off", with(dual_stack(), &off)),
            ("told", with(dual_stack(), &told)),
            ("wire", with(dual_stack(), &wire)),
            ("loose", with(dual_stack(), &json!({ "antiSpoofing": "addresses" }))),
            ("strict", dual_stack()),
        ];
        let pods: Vec<(TestPod, &Value, Value)> = kinds
            .iter()
            .map(|(id, config)| {
                let pod = TestPod::new(id);
                let result = pod.add(config).ok().json();
                (pod, config, result)
            })
            .collect();
        let before = ruleset();
        assert!(reconcile(&["--quiet"]).1.starts_with("podwire: not all is known of 5 of 6 pods: "));
        let (code, printed) = reconcile(&[]);
        assert_eq!((code, ruleset()), (4, before.clone()), "{printed}");
        for (pod, said) in [
            ("wires wireoff", "nothing to restore, but guard is not known"),
            ("podnet off", "nothing to restore, but guard and masquerade are not known"),
            ("podnet told", "nothing to restore, but guard and masquerade are not known"),
            ("podnet loose", "nothing to restore, but masquerade is not known"),
            ("podnet strict", "nothing to restore, but masquerade is not known"),
        ] {
            assert!(
                printed.contains(&format!("{pod} eth0: {said}, so not restored: nothing of it is in")),
                "{printed}"
            );
        }
        assert!(printed.lines().any(|line| line == "wires wire eth0: as it should be"), "{printed}");
        for (pod, config, result) in &pods {
            pod.check(config, result).ok();
        }

        text("nft", &["flush", "ruleset"]);
        assert_eq!(reconcile(&[]).0, 4);
        let of = |ruleset: &str, pod: &str| ruleset.matches(&format!(" {pod} eth0\"")).count();
        let there = ruleset();
        for pod in ["wireoff", "off", "told"] {
            assert_eq!(of(&there, pod), 0, "{pod}: {there}");
        }
        // Links and senders of both families, and of those without addresses the links alone.
        for (pod, count) in [("wire", 2), ("loose", 4), ("strict", 4)] {
            assert_eq!(of(&there, pod), count, "{pod}: {there}");
        }

        for (pod, config, _) in &pods {
            let mut config = (*config).clone();
            let mac = config.as_object_mut().unwrap().remove("runtimeConfig");
            config["capabilities"] = json!({ "mac": true });
            keep_in(OF_MULTUS, pod, &config, &mac.unwrap_or_default());
        }
        assert_eq!(reconcile(&[]).0, 4, "nobody looks there");
        let (code, printed) = reconcile(&["--cache-dir", OF_MULTUS]);
        assert_eq!((code, lines(&ruleset())), (0, lines(&before)), "{printed}");
    });
}

/// As it can be named to `ipam verify`.
#[test]
fn the_folder_of_results_may_be_named_itself() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        keep_in(OF_MULTUS, &pod, &dual_stack(), &json!({}));
        assert_eq!(reconcile(&[]).0, 4, "nobody looks there");
        for cache in [OF_MULTUS, &format!("{OF_MULTUS}/results")] {
            assert_eq!(reconcile(&["--cache-dir", cache, "--quiet"]), (0, String::new()), "{cache}");
        }
    });
}

fn masquerade_by_iptables_comes_back(flavour: Flavour) {
    let outside = outside_machine();
    let pods = [added("one", &by_iptables()), added("two", &by_iptables())];
    let sorted = || lines(&flavour.rules().join("\n")).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let before = sorted();
    for program in ["iptables", "ip6tables"] {
        text(program, &["-t", "nat", "-F"]);
    }
    let (code, printed) = reconcile(&["--dry-run"]);
    assert!(code == 0 && printed.contains("# -A PODWIRE-PODS -s 10.244.1.2/32"), "{printed}");
    for _ in 0..2 {
        assert_eq!(reconcile(&[]).0, 0);
        assert_eq!(sorted(), before);
    }
    for pod in &pods {
        let seen = exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip();
        assert_eq!(seen, address("192.168.50.1"));
    }
}

/// A flow that began while nothing masqueraded is translated as soon as something does, though it goes on and on.
#[test]
fn what_was_sent_in_vain_is_sent_anew() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let pod = added("one", &dual_stack());
        text("nft", &["flush", "ruleset"]);
        // Has connections tracked, as kube-proxy's rules do, whoever translates.
        text("nft", &["add", "table", "ip", "other"]);
        text("nft", &["add", "chain", "ip", "other", "c", "{ type filter hook forward priority 0 ; }"]);
        text("nft", &["add", "rule", "ip", "other", "c", "ct", "state", "new", "accept"]);
        let listener = outside.run(|| std::net::UdpSocket::bind("198.51.100.1:53")).unwrap().unwrap();
        listener.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
        let sender = pod.netns.run(|| std::net::UdpSocket::bind("10.244.1.2:4000")).unwrap().unwrap();
        let heard_from = || {
            sender.send_to(b"?", "198.51.100.1:53").unwrap();
            listener.recv_from(&mut [0; 8]).unwrap().1.ip()
        };
        assert_eq!(heard_from(), address("10.244.1.2"));
        assert_eq!(reconcile(&[]).0, 0);
        assert_eq!(heard_from(), address("192.168.50.1"));
    });
}

/// The administrator chose the flavour anew, and what is in the one of before cannot be removed: that is told, and what was
/// put back counts all the same.
#[test]
fn what_was_sent_in_vain_is_sent_anew_though_the_other_flavour_keeps_rules() {
    const FOLDER: &str = "/usr/local/sbin";
    sandbox::private_host(|| {
        let outside = outside_machine();
        let _ = Flavour::Legacy.chosen();
        let pod = added("one", &by_iptables());
        text("umount", &[FOLDER]);
        Flavour::Legacy.iptables(&["-t", "nat", "-F", "PODWIRE-PODS"]);
        text("mount", &["-t", "tmpfs", "none", FOLDER]);
        for program in ["iptables-legacy-restore", "ip6tables-legacy-restore"].map(|name| format!("{FOLDER}/{name}")) {
            fs::write(&program, "#!/bin/sh\necho 'out of order' >&2\nexit 1\n").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let listener = outside.run(|| std::net::UdpSocket::bind("198.51.100.1:53")).unwrap().unwrap();
        listener.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
        let sender = pod.netns.run(|| std::net::UdpSocket::bind("10.244.1.2:4000")).unwrap().unwrap();
        let heard_from = || {
            sender.send_to(b"?", "198.51.100.1:53").unwrap();
            listener.recv_from(&mut [0; 8]).unwrap().1.ip()
        };
        assert_eq!(heard_from(), address("10.244.1.2"));
        let (code, printed) = reconcile(&[]);
        assert!(code == 1 && printed.contains("podnet one eth0: restored (4 differences), but "), "{printed}");
        assert!(printed.contains("out of order"), "{printed}");
        assert_eq!(heard_from(), address("192.168.50.1"));
    });
}
