//! `podwire reconcile` while pods come and go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{CACHE, added, configure, keep, lines, reconcile, ruleset};
use crate::common::{TestPod, dual_stack, exchange, run, text, traces, until, with};
use crate::flavour::Flavour;
use crate::masquerade::{address, outside_machine};
use crate::masquerade_iptables::by_iptables;

on_both_flavours!(an_address_by_iptables_that_changed_hands_meanwhile_is_the_new_pods);

/// One address goes from pod to pod, each the same attachment as before, while firewalls are flushed and rules are put back.
#[test]
fn an_address_that_goes_around_is_always_its_pods() {
    sandbox::private_host(|| {
        crate::common::adopt_orphans();
        let config = asking(&dual_stack(), "10.244.1.9");
        configure("10-podnet.conflist", &json!({ "name": "podnet", "cniVersion": "1.1.0", "plugins": [dual_stack()] }));
        let pods = [TestPod::new("one"), TestPod::new("two")];
        pods[0].add(&config).ok();
        pods[0].del(&config).ok();
        let before = traces();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let runs = std::thread::scope(|scope| {
            let reconciling = scope.spawn(|| {
                let mut runs = Vec::new();
                while !is_over.load(relaxed) {
                    runs.push(reconcile(&[]));
                }
                runs
            });
            for _ in 0..8 {
                for pod in &pods {
                    text("nft", &["flush", "ruleset"]);
                    let result = pod.add(&config).ok().json();
                    pod.check(&config, &result).ok();
                    text("nft", &["flush", "ruleset"]);
                    pod.del(&config).ok();
                }
            }
            is_over.store(true, relaxed);
            reconciling.join().unwrap()
        });
        // 4: an ADD was not done.
        assert!(!runs.is_empty() && runs.iter().all(|(code, _)| [0, 4].contains(code)), "{runs:?}");
        until(|| !crate::common::has_children(), || "a process is left".to_owned());
        before.unchanged("after it");
    });
}

/// A config that asks for an address.
fn asking(config: &Value, address: &str) -> Value {
    with(config.clone(), &json!({ "args": { "cni": { "ips": [address] } } }))
}

/// While a run waits for what libcni keeps of the first pod, `meanwhile` is done.
fn held_up(first: &TestPod, config: &Value, meanwhile: impl FnOnce()) -> (i32, String) {
    let file = Path::new(CACHE).join(format!("results/podnet-{}-eth0", first.id));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&file);
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    std::thread::scope(|scope| {
        let reconciling = scope.spawn(|| reconcile(&[]));
        // Opens when somebody reads.
        let mut fifo = fs::OpenOptions::new().write(true).open(&file).unwrap();
        meanwhile();
        let list = json!({ "cniVersion": "1.1.0", "name": "podnet", "plugins": [config] });
        let kept = json!({ "config": BASE64.encode(list.to_string().as_bytes()) }).to_string();
        std::io::Write::write_all(&mut fifo, kept.as_bytes()).unwrap();
        drop(fifo);
        let done = reconciling.join().unwrap();
        fs::remove_file(&file).unwrap();
        done
    })
}

/// The list of pods is older than the rules: whoever has the address of one that went keeps what its ADD made.
#[test]
fn an_address_that_changed_hands_meanwhile_is_the_new_pods() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        let config = asking(&dual_stack(), "10.244.1.9");
        let (old, new) = (TestPod::new("old"), TestPod::new("new"));
        old.add(&config).ok();
        let mut result = Value::Null;
        let (code, printed) = held_up(&old, &config, || {
            old.del(&config).ok();
            text("nft", &["flush", "ruleset"]);
            result = new.add(&config).ok().json();
        });
        assert!(code == 0 && printed.contains("podnet old eth0: deleted or added again meanwhile"), "{printed}");
        assert!(!ruleset().contains("podnet old eth0"), "{}", ruleset());
        new.check(&config, &result).ok();
        assert_eq!(exchange(&outside, &new.netns, address("198.51.100.1")).unwrap().ip(), address("192.168.50.1"));
    });
}

fn an_address_by_iptables_that_changed_hands_meanwhile_is_the_new_pods(flavour: Flavour) {
    outside_machine();
    let config = asking(&by_iptables(), "10.244.1.9");
    let (old, new) = (TestPod::new("old"), TestPod::new("new"));
    old.add(&config).ok();
    let mut result = Value::Null;
    let (code, printed) = held_up(&old, &config, || {
        old.del(&config).ok();
        result = new.add(&config).ok().json();
    });
    assert!(code == 0 && printed.contains("podnet old eth0: deleted or added again meanwhile"), "{printed}");
    let rules = flavour.rules().join("\n");
    assert!(rules.contains("podnet new eth0") && !rules.contains("podnet old eth0"), "{rules}");
    new.check(&config, &result).ok();
}

/// The same attachment with another address: the earlier one is not opened again, and where it is open it is closed.
#[test]
fn an_address_of_an_earlier_life_is_not_the_pods() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let (earlier, now) = (asking(&dual_stack(), "10.244.1.9"), asking(&dual_stack(), "10.244.1.20"));
        pod.add(&earlier).ok();
        let mut result = Value::Null;
        let (code, printed) = held_up(&pod, &earlier, || {
            pod.del(&earlier).ok();
            result = pod.add(&now).ok().json();
        });
        assert!(code == 0 && printed.contains("podnet one eth0: deleted or added again meanwhile"), "{printed}");
        let before = ruleset();
        assert!(!before.contains("10.244.1.9"), "{before}");
        pod.check(&now, &result).ok();

        keep(&pod, &now, &json!({}));
        let senders = text("nft", &["list", "set", "ip", "podwire-guard", "senders"]);
        let element = senders.lines().find(|line| line.contains("10.244.1.20")).unwrap();
        let element = element.trim_start().trim_start_matches("elements = ").replace("10.244.1.20", "10.244.1.9");
        text("nft", &[&format!("add element ip podwire-guard senders {element}")]);
        let of_masquerade = "add element ip podwire-masq-podnet pods { 10.244.1.9 comment \"podnet one eth0\" }";
        text("nft", &[of_masquerade]);
        text("nft", &["add element ip podwire-masq-podnet pods { 10.244.1.8 comment \"podnet two eth0\" }"]);
        let (code, printed) = reconcile(&[]);
        assert!(code == 0 && printed.contains("podnet one eth0: restored (2 differences)"), "{printed}");
        let there = ruleset();
        assert!(!there.contains("10.244.1.9") && there.contains("10.244.1.8"), "{there}");
        text("nft", &["delete element ip podwire-masq-podnet pods { 10.244.1.8 }"]);
        assert_eq!(lines(&ruleset()), lines(&before));
    });
}

/// Whoever is deleted meanwhile is gone: of pods that are deleted while rules are put back, nothing is left.
#[test]
fn a_pod_that_is_deleted_meanwhile_leaves_nothing() {
    sandbox::private_host(|| {
        crate::common::adopt_orphans();
        let first = TestPod::new("first");
        first.add(&dual_stack()).ok();
        first.del(&dual_stack()).ok();
        let before = traces();
        let mut restored = 0;
        for round in 0..8 {
            let pods: Vec<TestPod> = (0..3).map(|n| added(&format!("r{round}p{n}"), &dual_stack())).collect();
            text("nft", &["flush", "ruleset"]);
            std::thread::scope(|scope| {
                let reconciling = scope.spawn(|| (0..3).map(|_| reconcile(&[])).collect::<Vec<_>>());
                pods.iter().for_each(|pod| drop(pod.del(&dual_stack()).ok()));
                for (code, printed) in reconciling.join().unwrap() {
                    assert!([0, 4].contains(&code), "round {round}: {printed}");
                    restored += printed.matches("restored (").count();
                }
            });
            until(|| !crate::common::has_children(), || "a process is left".to_owned());
            fs::remove_dir_all(CACHE).unwrap();
            for pod in &pods {
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            before.unchanged(format!("round {round}"));
        }
        assert_ne!(restored, 0, "nothing was put back at all");
    });
}

/// Whoever is added meanwhile has what an ADD alone would have made, and its DEL takes all of it.
#[test]
fn a_pod_that_is_added_meanwhile_is_as_its_add_made_it() {
    sandbox::private_host(|| {
        crate::common::adopt_orphans();
        let list = json!({ "name": "podnet", "cniVersion": "1.1.0", "plugins": [dual_stack()] });
        configure("10-podnet.conflist", &list);
        let first = TestPod::new("first");
        first.add(&dual_stack()).ok();
        first.del(&dual_stack()).ok();
        let before = traces();
        for round in 0..4 {
            let pods: Vec<TestPod> = (0..3).map(|n| TestPod::new(&format!("r{round}p{n}"))).collect();
            std::thread::scope(|scope| {
                let reconciling = scope.spawn(|| (0..6).map(|_| reconcile(&[])).collect::<Vec<_>>());
                for pod in &pods {
                    let result = pod.add(&dual_stack()).ok().json();
                    pod.check(&dual_stack(), &result).ok();
                }
                for (code, printed) in reconciling.join().unwrap() {
                    assert!([0, 4].contains(&code), "round {round}: {printed}");
                }
            });
            for pod in &pods {
                pod.del(&dual_stack()).ok();
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            until(|| !crate::common::has_children(), || "a process is left".to_owned());
            before.unchanged(format!("round {round}"));
        }
    });
}

/// An IPAM plugin that tells when it is asked, and refuses when it is told to.
const REFUSING: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
: > /run/asked
read go < /run/go
echo '{ "cniVersion": "1.0.0", "code": 100, "msg": "none is left" }'
exit 1
"#;

/// A link that waits for its addresses is guarded if nobody knows its config; an ADD that fails then takes that along.
#[test]
fn an_add_that_gets_no_address_takes_a_guard_along() {
    sandbox::private_host(|| {
        fs::create_dir("/run/plugins").unwrap();
        // Nothing below /run may be run.
        text("mount", &["-t", "tmpfs", "none", "/run/plugins"]);
        fs::write("/run/plugins/refusing", REFUSING).unwrap();
        fs::set_permissions("/run/plugins/refusing", fs::Permissions::from_mode(0o755)).unwrap();
        nix::unistd::mkfifo("/run/go", nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        let config = with(dual_stack(), &json!({ "cniVersion": "1.0.0", "ipam": { "type": "refusing" } }));
        let pod = TestPod::new("one");
        let mut env = pod.env("ADD");
        env.retain(|(name, _)| *name != "CNI_PATH");
        env.push(("CNI_PATH", "/run/plugins".to_owned()));
        let before = traces();
        let refused = std::thread::scope(|scope| {
            let adding = scope.spawn(|| run(&env, &config));
            until(|| Path::new("/run/asked").exists(), || "nobody is asked".to_owned());
            until(|| reconcile(&[]).1.contains("podnet one eth0: restored ("), || "no link is there".to_owned());
            assert!(ruleset().contains("podnet one eth0"), "{}", ruleset());
            fs::write("/run/go", "go\n").unwrap();
            adding.join().unwrap()
        });
        assert_eq!(refused.error().0, 100);
        fs::remove_file("/run/asked").unwrap();
        before.unchanged("at the end");
    });
}
