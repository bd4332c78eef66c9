//! Masquerade by iptables, in both flavours: who sees which source address, what CHECK sees, and what is left.

use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, exchange, gc, run, text, traces, with};
use crate::flavour::Flavour;
use crate::masquerade::{address, outside_machine};

on_both_flavours!(
    the_outside_sees_the_node_and_the_cluster_sees_the_pod,
    the_outside_sees_the_source_that_the_config_names,
    a_changed_config_changes_the_rules_and_keeps_the_pods,
    racing_pods_never_lose_their_masquerade,
    check_names_every_difference,
    check_finds_a_rule_in_front,
    check_leaves_other_plugins_rules_alone,
    flushed_chains_are_filled_by_the_next_add,
    a_family_without_its_program_is_refused_and_nothing_is_left,
    an_address_is_taken_over_from_a_pod_that_was_never_deleted,
    del_and_gc_clean_whatever_the_config_says_by_then,
    others_rules_stay,
    a_changed_hook_goes_with_the_last_pod,
    a_rule_of_others_keeps_the_chains_and_no_pods_rules,
    a_rule_of_others_keeps_only_the_chain_that_it_leads_to,
    a_pods_own_rules_go_where_nothing_can_be_listed,
);

/// The network of the other tests, masqueraded by iptables.
pub fn by_iptables() -> Value {
    with(dual_stack(), &json!({ "ipMasqBackend": "iptables" }))
}

fn the_outside_sees_the_node_and_the_cluster_sees_the_pod(flavour: Flavour) {
    let outside = outside_machine();
    let before = traces_of(flavour);
    let (one, two) = (TestPod::new("one"), TestPod::new("two"));
    let results = [&one, &two].map(|pod| pod.add(&by_iptables()).ok().json());
    let seen = |to: &str| exchange(&outside, &one.netns, address(to)).unwrap().ip();
    assert_eq!(seen("198.51.100.1"), address("192.168.50.1"));
    assert_eq!(seen("2001:db8:51::1"), address("fd50::1"));
    assert_eq!(seen("10.244.9.9"), address("10.244.1.2"));
    assert_eq!(seen("fd00:10:244:9::9"), address("fd00:10:244:1::2"));
    // Pods see each other, also where nothing says that the range is the cluster's.
    for (from, to) in addresses(&results[0]).into_iter().zip(addresses(&results[1])) {
        assert_eq!(exchange(&two.netns, &one.netns, to).unwrap().ip(), from);
    }
    for (pod, result) in [&one, &two].into_iter().zip(&results) {
        pod.check(&by_iptables(), result).ok();
        pod.del(&by_iptables()).ok();
    }
    unchanged(flavour, &before, "at the end");
}

fn the_outside_sees_the_source_that_the_config_names(_: Flavour) {
    let outside = outside_machine();
    text("ip", &["address", "add", "192.168.50.77/32", "dev", "uplink"]);
    text("ip", &["address", "add", "fd50::77/128", "dev", "uplink", "nodad"]);
    let pod = TestPod::new("one");
    let config = with(by_iptables(), &json!({ "snatSource": ["192.168.50.77", "fd50::77"] }));
    let result = pod.add(&config).ok().json();
    for (to, source) in [("198.51.100.1", "192.168.50.77"), ("2001:db8:51::1", "fd50::77")] {
        assert_eq!(exchange(&outside, &pod.netns, address(to)).unwrap().ip(), address(source));
    }
    pod.check(&config, &result).ok();
}

fn a_changed_config_changes_the_rules_and_keeps_the_pods(flavour: Flavour) {
    let outside = outside_machine();
    let before = traces_of(flavour);
    let (one, two) = (TestPod::new("one"), TestPod::new("two"));
    one.add(&by_iptables()).ok();
    let changed = with(by_iptables(), &json!({ "nonMasqueradeCIDRs": ["198.51.100.0/24"] }));
    two.add(&changed).ok();
    for (pod, own) in [(&one, "10.244.1.2"), (&two, "10.244.1.3")] {
        assert_eq!(exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip(), address(own));
        assert_eq!(exchange(&outside, &pod.netns, address("10.244.9.9")).unwrap().ip(), address("192.168.50.1"));
    }
    one.del(&changed).ok();
    two.del(&changed).ok();
    unchanged(flavour, &before, "at the end");
}

fn racing_pods_never_lose_their_masquerade(flavour: Flavour) {
    let outside = outside_machine();
    let first = TestPod::new("first");
    first.add(&by_iptables()).ok();
    first.del(&by_iptables()).ok();
    let before = traces_of(flavour);
    let pods: Vec<TestPod> = (0..6).map(|number| TestPod::new(&format!("pod{number}"))).collect();
    for round in 0..3 {
        std::thread::scope(|scope| {
            for pod in &pods {
                let outside = &outside;
                scope.spawn(move || {
                    pod.add(&by_iptables()).ok();
                    let seen = exchange(outside, &pod.netns, address("198.51.100.1")).unwrap().ip();
                    assert_eq!(seen, address("192.168.50.1"), "round {round}, {}", pod.id);
                    pod.del(&by_iptables()).ok();
                });
            }
        });
    }
    unchanged(flavour, &before, "at the end");
}

fn check_names_every_difference(flavour: Flavour) {
    let pod = TestPod::new("one");
    let result = pod.add(&by_iptables()).ok().json();
    pod.check(&by_iptables(), &result).ok();
    let details = || {
        let answer = pod.check(&by_iptables(), &result);
        assert_eq!(answer.error().0, 110);
        answer.json()["details"].as_str().unwrap().to_owned()
    };
    let chain = "PODWIRE-MASQ-podnet";
    // The last rule, which masquerades, is now before those of exceptions.
    flavour.iptables(&["-t", "nat", "-D", chain, "4"]);
    let found = details();
    for program in ["iptables", "ip6tables"] {
        assert!(found.contains(&format!("{program} -t nat -A {chain} -m comment --comment")), "{found}");
    }
    assert!(found.contains("-j MASQUERADE`, found no such rule"), "{found}");
    flavour.iptables(&["-t", "nat", "-I", chain, "1", "-j", "RETURN"]);
    assert!(details().contains(&format!("no `iptables -t nat -A {chain} -j RETURN`")), "{}", details());
    flavour.iptables(&["-t", "nat", "-D", chain, "1"]);
    flavour.iptables(&["-t", "nat", "-I", "PODWIRE-PODS", "1", "-j", "RETURN"]);
    assert!(details().contains("no `iptables -t nat -A PODWIRE-PODS -j RETURN`"), "{}", details());
    flavour.iptables(&["-t", "nat", "-F", "PODWIRE-PODS"]);
    assert!(details().contains("-A PODWIRE-PODS -s 10.244.1.2/32"), "{}", details());
    // The next ADD puts right what pods share, and the next DEL removes all of it.
    TestPod::new("two").add(&by_iptables()).ok();
    pod.check(&by_iptables(), &result).ok();
    gc(&json!([])).ok();
    assert_eq!(flavour.rules(), Vec::<String>::new());
}

/// The same rule once more changes everything if it comes first.
fn check_finds_a_rule_in_front(flavour: Flavour) {
    let pod = TestPod::new("one");
    let result = pod.add(&by_iptables()).ok().json();
    let listed = flavour.rules();
    let rule =
        listed.iter().find(|rule| rule.starts_with("-A PODWIRE-MASQ-podnet") && rule.ends_with("MASQUERADE")).unwrap();
    let rule = rule.trim_start_matches("-A PODWIRE-MASQ-podnet ");
    // Only the comment is in quotes.
    let mut parts = rule.split('"');
    let (before, comment, after) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let mut arguments = vec!["-t", "nat", "-I", "PODWIRE-MASQ-podnet", "1"];
    arguments.extend(before.split_whitespace().chain([comment]).chain(after.split_whitespace()));
    text(if flavour == Flavour::Nft { "iptables-nft" } else { "iptables-legacy" }, &arguments);
    let answer = pod.check(&by_iptables(), &result);
    let details = answer.json()["details"].to_string();
    assert!(answer.error().0 == 110 && details.contains("another order"), "{details}");
}

/// Rules of other plugins in the same table may name the same owner.
fn check_leaves_other_plugins_rules_alone(flavour: Flavour) {
    let pod = TestPod::new("one");
    let result = pod.add(&by_iptables()).ok().json();
    flavour.iptables(&["-t", "nat", "-N", "PODWIRE-WILDCARD"]);
    let comments = ["-m", "comment", "--comment", "podnet one eth0", "-m", "comment", "--comment", "tcp . 80 : x"];
    let rule = [&["-t", "nat", "-A", "PODWIRE-WILDCARD"][..], &comments, &["-j", "RETURN"]].concat();
    flavour.iptables(&rule);
    pod.check(&by_iptables(), &result).ok();
}

/// The pods that were there before, too.
fn flushed_chains_are_filled_by_the_next_add(flavour: Flavour) {
    let outside = outside_machine();
    let old = TestPod::new("old");
    let result = old.add(&by_iptables()).ok().json();
    for chain in ["PODWIRE-PODS", "PODWIRE-MASQ-podnet", "POSTROUTING"] {
        flavour.iptables(&["-t", "nat", "-F", chain]);
        let pod = TestPod::new(&format!("after-{}", chain.to_ascii_lowercase()));
        pod.add(&by_iptables()).ok();
        for to in ["198.51.100.1", "2001:db8:51::1"] {
            let seen = exchange(&outside, &old.netns, address(to)).unwrap().ip();
            assert!([address("192.168.50.1"), address("fd50::1")].contains(&seen), "{chain}: {to} sees {seen}");
        }
        old.check(&by_iptables(), &result).ok();
    }
}

/// STATUS says so too, and asks for no program that the pools need not.
fn a_family_without_its_program_is_refused_and_nothing_is_left(flavour: Flavour) {
    let before = traces_of(flavour);
    let multi =
        ["/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi"][usize::from(flavour == Flavour::Legacy)];
    let program = std::fs::read(multi).unwrap();
    let name = std::path::Path::new(multi).file_name().unwrap().to_str().unwrap().to_owned();
    let pod = TestPod::new("one");
    let status = |config: &Value| run(&[("CNI_COMMAND", "STATUS".into()), ("CNI_PATH", "/usr/lib/cni".into())], config);
    let only = |pool: &str| with(by_iptables(), &json!({ "ipam": { "type": "podwire-ipam", "podCIDR": pool } }));
    let (four, six) = (only("10.244.1.0/24"), only("fd00:10:244:1::/64"));
    let hide = || {
        text("mount", &["-t", "tmpfs", "none", "/usr/sbin"]);
        text("mount", &["-t", "tmpfs", "none", "/usr/local/sbin"]);
        let path = format!("/usr/sbin/{name}");
        std::fs::write(&path, &program).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&path, "/usr/sbin/iptables-restore").unwrap();
    };
    hide();
    let added = pod.add(&by_iptables());
    let ready = (status(&by_iptables()), status(&four), status(&six));
    let alone = pod.add(&four);
    text("umount", &["/usr/local/sbin"]);
    text("umount", &["/usr/sbin"]);
    for (answer, expected) in [(&added, 5), (&ready.0, 50), (&ready.2, 50)] {
        let (code, _) = answer.error();
        assert!(code == expected && answer.stdout.contains("there is no program ip6tables-restore"), "{answer:?}");
    }
    ready.1.ok();
    alone.ok();
    pod.del(&four).ok();
    unchanged(flavour, &before, "after the refusal, and the other's DEL");
}

fn an_address_is_taken_over_from_a_pod_that_was_never_deleted(flavour: Flavour) {
    let outside = outside_machine();
    let ipam = json!({ "type": "static", "addresses": [{ "address": "10.244.1.5/32" }] });
    let config = with(by_iptables(), &json!({ "cniVersion": "1.0.0", "ipam": ipam }));
    let (old, new) = (TestPod::new("old"), TestPod::new("new"));
    old.add(&config).ok();
    let result = new.add(&config).ok().json();
    assert!(!flavour.rules().iter().any(|rule| rule.contains(" old ")), "{:?}", flavour.rules());
    old.del(&config).ok();
    assert_eq!(exchange(&outside, &new.netns, address("198.51.100.1")).unwrap().ip(), address("192.168.50.1"));
    new.check(&config, &result).ok();
}

fn del_and_gc_clean_whatever_the_config_says_by_then(flavour: Flavour) {
    let before = traces_of(flavour);
    let by_nftables = with(dual_stack(), &json!({ "ipMasqBackend": "nftables" }));
    let without = with(dual_stack(), &json!({ "ipMasq": false }));
    for (added, deleted) in
        [(by_iptables(), by_nftables.clone()), (by_iptables(), without), (by_nftables, by_iptables())]
    {
        let pod = TestPod::new("one");
        pod.add(&added).ok();
        let mut env = pod.env("DEL");
        env.retain(|(name, _)| *name != "CNI_NETNS");
        run(&env, &deleted).ok();
        unchanged(flavour, &before, "after DEL");
        pod.del(&added).ok();
        kernel::netns::remove_named(&pod.path).unwrap();

        let (stale, valid) = (TestPod::new("stale"), TestPod::new("valid"));
        stale.add(&added).ok();
        let result = valid.add(&added).ok().json();
        gc(&json!([{ "containerID": "valid", "ifname": "eth0" }])).ok();
        valid.check(&added, &result).ok();
        gc(&json!([])).ok();
        unchanged(flavour, &before, "after GC");
        kernel::netns::remove_named(&stale.path).unwrap();
        kernel::netns::remove_named(&valid.path).unwrap();
    }
}

/// An administrator's exception comes first, and neither it nor another network's rules go with ours.
fn others_rules_stay(flavour: Flavour) {
    let outside = outside_machine();
    text(
        if flavour == Flavour::Nft { "iptables-nft" } else { "iptables-legacy" },
        &["-t", "nat", "-A", "POSTROUTING", "-s", "10.244.1.2", "-d", "198.51.100.1", "-j", "ACCEPT"],
    );
    let before = traces_of(flavour);
    let (one, two) = (TestPod::new("one"), TestPod::new("two"));
    let pools = json!({ "type": "podwire-ipam", "podCIDR": "10.245.1.0/24" });
    let other = with(by_iptables(), &json!({ "name": "another-network-with-a-long-name", "ipam": pools }));
    one.add(&by_iptables()).ok();
    let result = two.add(&other).ok().json();
    assert_eq!(exchange(&outside, &one.netns, address("198.51.100.1")).unwrap().ip(), address("10.244.1.2"));
    one.del(&by_iptables()).ok();
    two.check(&other, &result).ok();
    assert_eq!(exchange(&outside, &two.netns, address("198.51.100.1")).unwrap().ip(), address("192.168.50.1"));
    two.del(&other).ok();
    unchanged(flavour, &before, "at the end");
}

fn a_changed_hook_goes_with_the_last_pod(flavour: Flavour) {
    let _outside = outside_machine();
    let before = traces_of(flavour);
    let pod = TestPod::new("one");
    for (action, rest) in [("-R", "-p tcp -j PODWIRE-PODS"), ("-R", "-j RETURN"), ("-R", ""), ("-I", "-j PODWIRE-PODS")]
    {
        pod.add(&by_iptables()).ok();
        let place = ["-t", "nat", action, "POSTROUTING", "1", "-m", "comment", "--comment", "podwire-masq"];
        flavour.iptables(&place.into_iter().chain(rest.split_whitespace()).collect::<Vec<_>>());
        assert_eq!(pod.del(&by_iptables()).ok().stderr, "", "{action} {rest}");
        unchanged(flavour, &before, &format!("{action} {rest}"));
    }
}

fn a_rule_of_others_keeps_the_chains_and_no_pods_rules(flavour: Flavour) {
    let _outside = outside_machine();
    let before = traces_of(flavour);
    let (one, two) = (TestPod::new("one"), TestPod::new("two"));
    let of_others = |action| flavour.iptables(&["-t", "nat", action, "POSTROUTING", "-p", "udp", "-j", "PODWIRE-PODS"]);
    one.add(&by_iptables()).ok();
    of_others("-A");
    let told = |family| format!("chains of masquerade stay in {family} rules of iptables");
    let stderr = one.del(&by_iptables()).ok().stderr;
    assert!(stderr.contains(&told("ip")) && stderr.contains(&told("ip6")), "{stderr}");
    let left = flavour.rules();
    assert!(!left.is_empty() && !left.iter().any(|rule| rule.contains("podnet one")), "{left:?}");
    // What stays serves whoever comes.
    let result = two.add(&by_iptables()).ok().json();
    two.check(&by_iptables(), &result).ok();
    of_others("-D");
    assert_eq!(two.del(&by_iptables()).ok().stderr, "");
    unchanged(flavour, &before, "when nothing of others leads there any more");
}

/// The chain of all pods goes with the next pod of whatever network; one of a network nobody else would look for.
fn a_rule_of_others_keeps_only_the_chain_that_it_leads_to(flavour: Flavour) {
    let _outside = outside_machine();
    let before = traces_of(flavour);
    let pools = json!({ "type": "podwire-ipam", "podCIDR": ["10.245.1.0/24", "fd00:245::/64"] });
    let other = with(by_iptables(), &json!({ "name": "other", "ipam": pools }));
    let (one, two) = (TestPod::new("one"), TestPod::new("two"));
    for (chain, next) in [("PODWIRE-PODS", &other), ("PODWIRE-MASQ-podnet", &by_iptables())] {
        let of_others = |action| flavour.iptables(&["-t", "nat", action, "POSTROUTING", "-p", "udp", "-j", chain]);
        one.add(&by_iptables()).ok();
        of_others("-A");
        let stderr = one.del(&by_iptables()).ok().stderr;
        assert!(stderr.contains("the next DEL or GC of network podnet tries again"), "{stderr}");
        let left = flavour.rules();
        assert!(!left.iter().any(|rule| rule.contains("podnet one")), "{left:?}");
        let is_there = left.iter().any(|rule| rule.contains("PODWIRE-MASQ-podnet"));
        assert_eq!(is_there, chain == "PODWIRE-MASQ-podnet", "{left:?}");
        // As long as it stands: a DEL again, a pod of the network by nf_tables, and GC.
        one.del(&by_iptables()).ok();
        two.add(&dual_stack()).ok();
        two.del(&dual_stack()).ok();
        gc(&json!([])).ok();
        of_others("-D");
        two.add(next).ok();
        assert_eq!(two.del(next).ok().stderr, "");
        unchanged(flavour, &before, chain);
    }
}

fn a_pods_own_rules_go_where_nothing_can_be_listed(flavour: Flavour) {
    let _outside = outside_machine();
    let before = traces_of(flavour);
    let pod = TestPod::new("one");
    let of_others = |action| flavour.iptables(&["-t", "nat", action, "POSTROUTING", "-p", "udp", "-j", "PODWIRE-PODS"]);
    pod.add(&by_iptables()).ok();
    of_others("-A");
    let multi =
        ["/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi"][usize::from(flavour == Flavour::Legacy)];
    let program = std::fs::read(multi).unwrap();
    for folder in ["/usr/sbin", "/usr/local/sbin"] {
        text("mount", &["-t", "tmpfs", "none", folder]);
    }
    std::fs::write(multi, &program).unwrap();
    std::fs::set_permissions(multi, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["iptables-restore", "ip6tables-restore"] {
        std::os::unix::fs::symlink(multi, format!("/usr/sbin/{name}")).unwrap();
    }
    let answer = pod.del(&by_iptables());
    text("umount", &["/usr/local/sbin"]);
    text("umount", &["/usr/sbin"]);
    let stderr = answer.ok().stderr;
    assert!(stderr.contains("chains of masquerade stay"), "{stderr}");
    assert!(!flavour.rules().iter().any(|rule| rule.contains("podnet one")), "{:?}", flavour.rules());
    of_others("-D");
    gc(&json!([])).ok();
    unchanged(flavour, &before, "when nothing of others leads there any more");
}

/// What there is, in the flavour too that `nft` does not show.
fn traces_of(flavour: Flavour) -> (crate::common::Traces, Vec<String>) {
    // Forwarding stays on once the first pod needed it, and with it come routes of the kernel's own.
    let first = TestPod::new("first-of-all");
    let pools = json!({ "type": "podwire-ipam", "podCIDR": ["10.250.0.0/24", "fd00:250::/64"] });
    let elsewhere = with(by_iptables(), &json!({ "name": "elsewhere", "ipam": pools }));
    first.add(&elsewhere).ok();
    first.del(&elsewhere).ok();
    kernel::netns::remove_named(&first.path).unwrap();
    (traces(), flavour.rules())
}

fn unchanged(flavour: Flavour, (before, rules): &(crate::common::Traces, Vec<String>), context: &str) {
    assert_eq!(&flavour.rules(), rules, "{context}");
    before.unchanged(context);
}
