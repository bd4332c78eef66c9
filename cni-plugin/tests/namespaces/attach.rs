//! A pod's life, by packets and by `ip` and `nft`.

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, run, shown, text, traces, with};
use kernel::netns::NetNs;
use serde_json::{Value, json};

#[test]
fn pods_and_node_reach_each_other() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let node = NetNs::current().unwrap();
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        let ips_one = addresses(&one.add(&dual_stack()).ok().json());
        let ips_two = addresses(&two.add(&dual_stack()).ok().json());
        for family in 0..2 {
            let (first, second) = (ips_one[family], ips_two[family]);
            assert_eq!(exchange(&two.netns, &one.netns, second).unwrap().ip(), first, "pod to pod");
            assert_eq!(exchange(&node, &one.netns, node_addresses[family]).unwrap().ip(), first, "pod to node");
            assert_eq!(exchange(&one.netns, &node, first).unwrap().ip(), node_addresses[family], "node to pod");
        }
    });
}

#[test]
fn a_pod_is_wired_as_the_result_says() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/one");
        assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
        assert_eq!(result["ips"][1]["address"], "fd00:10:244:1::2/128");
        assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
        assert_eq!(result["ips"][1]["gateway"], "fe80::1");

        let link = &shown("ip", &["-j", "-d", "link", "show", "dev", host])[0];
        assert_eq!(link["ifalias"], "podwire podnet one eth0");
        assert_eq!(link["address"], result["interfaces"][0]["mac"]);
        assert_eq!(link["linkinfo"]["info_kind"], "veth");
        let eth0 = &shown("ip", &["-n", "one", "-j", "address", "show", "dev", "eth0"])[0];
        assert_eq!(eth0["address"], result["interfaces"][1]["mac"]);
        let global: Vec<&Value> =
            eth0["addr_info"].as_array().unwrap().iter().filter(|address| address["scope"] == "global").collect();
        assert_eq!(global.len(), 2);
        assert_eq!((&global[0]["local"], &global[0]["prefixlen"]), (&json!("10.244.1.2"), &json!(32)));
        assert_eq!((&global[1]["local"], &global[1]["prefixlen"]), (&json!("fd00:10:244:1::2"), &json!(128)));

        let default = &shown("ip", &["-n", "one", "-j", "route", "show", "default"])[0];
        assert_eq!((&default["gateway"], &default["flags"]), (&json!("169.254.1.1"), &json!(["onlink"])));
        let to_pod = &shown("ip", &["-j", "route", "show", "proto", "112"])[0];
        assert_eq!((&to_pod["dst"], &to_pod["dev"]), (&json!("10.244.1.2"), &json!(host)));
        let neighbours = shown("ip", &["-j", "neighbour", "show", "dev", host, "nud", "permanent"]);
        assert_eq!(neighbours.as_array().unwrap().len(), 2, "{neighbours}");
    });
}

#[test]
fn del_leaves_nothing_whatever_it_is_told() {
    sandbox::private_host(|| {
        let before = traces();
        for without in [&[][..], &["CNI_NETNS"], &["namespace"]] {
            let pod = TestPod::new("one");
            pod.add(&dual_stack()).ok();
            assert_ne!(traces(), before);
            if without == ["namespace"] {
                kernel::netns::remove_named(&pod.path).unwrap();
            }
            let mut env = pod.env("DEL");
            env.retain(|(name, _)| !without.contains(name));
            run(&env, &dual_stack()).ok();
            before.unchanged(format!("without {without:?}"));
            run(&env, &dual_stack()).ok();
            drop(kernel::netns::remove_named(&pod.path));
        }
    });
}

#[test]
fn del_of_what_was_never_added_succeeds() {
    sandbox::private_host(|| {
        let before = traces();
        let answer = TestPod::new("one").del(&dual_stack()).ok();
        assert_eq!(answer.stdout, "");
        before.unchanged("at the end");
    });
}

#[test]
fn a_route_left_by_somebody_else_is_replaced() {
    sandbox::private_host(|| {
        node_addresses();
        text("ip", &["route", "add", "10.244.1.2/32", "dev", "uplink"]);
        let pod = TestPod::new("one");
        let ips = addresses(&pod.add(&dual_stack()).ok().json());
        exchange(&pod.netns, &NetNs::current().unwrap(), ips[0]).unwrap();
    });
}

#[test]
fn an_add_finds_and_clears_what_a_killed_one_left() {
    sandbox::private_host(|| {
        node_addresses();
        let first = TestPod::new("one");
        first.add(&dual_stack()).ok();
        // The sandbox died and its successor has the same id: no DEL came in between.
        kernel::netns::remove_named(&first.path).unwrap();
        let second = TestPod::new("one");
        let ips = addresses(&second.add(&dual_stack()).ok().json());
        exchange(&second.netns, &NetNs::current().unwrap(), ips[0]).unwrap();
        assert_eq!(crate::common::leases().len(), 1);
    });
}

#[test]
fn check_passes_and_names_every_difference() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        assert_eq!(pod.check(&dual_stack(), &result).ok().stdout, "");
        let host = result["interfaces"][0]["name"].as_str().unwrap();

        let spoil = |program: &str, arguments: &[&str], expected: &str| {
            text(program, arguments);
            let answer = pod.check(&dual_stack(), &result);
            let (code, _) = answer.error();
            assert_eq!(code, 110);
            let details = answer.json()["details"].as_str().unwrap().to_owned();
            assert!(details.contains(expected), "{arguments:?}: no {expected:?} in {details}");
        };
        let rp_filter = format!("net.ipv4.conf.{host}.rp_filter=0");
        let neighbour = "ip neighbour replace 10.244.1.2 lladdr";
        spoil("ip", &["route", "del", "10.244.1.2"], "`ip route replace 10.244.1.2/32 dev");
        spoil("ip", &["neighbour", "del", "10.244.1.2", "dev", host], neighbour);
        spoil("ip", &["-n", "one", "route", "del", "default"], "`ip -n POD route replace default via 169.254.1.1");
        spoil(
            "ip",
            &["-n", "one", "address", "del", "10.244.1.2/32", "dev", "eth0"],
            "`ip -n POD address add 10.244.1.2/32",
        );
        spoil("sysctl", &["-qw", &rp_filter], "rp_filter=1`, found 0");
        spoil(
            "nft",
            &["delete", "element", "ip", "podwire-masq-podnet", "pods", "{ 10.244.1.2 }"],
            "`nft add element ip podwire-masq-podnet pods",
        );
        spoil(
            "nft",
            &["flush", "chain", "ip6", "podwire-masq-podnet", "outside"],
            "expected `table ip6 podwire-masq-podnet",
        );
        spoil("ip", &["link", "set", "dev", host, "alias", ""], "found no alias");
        spoil("ip", &["link", "set", "dev", host, "alias", "uplink of rack 7"], "found alias \"uplink of rack 7\"");
        text("ip", &["link", "set", "dev", host, "alias", "podwire podnet one eth0"]);
        spoil("ip", &["link", "del", host], "`ip link add");
    });
}

#[test]
fn gc_removes_the_stale_and_keeps_the_valid() {
    sandbox::private_host(|| {
        let (kept, stale) = (TestPod::new("kept"), TestPod::new("stale"));
        let result = kept.add(&dual_stack()).ok().json();
        let with_one = traces();
        stale.add(&dual_stack()).ok();
        // Another network's attachment is none of this network's business.
        let other_network = with(
            dual_stack(),
            &json!({ "name": "other", "ipam": { "type": "podwire-ipam", "podCIDR": "10.99.0.0/24" } }),
        );
        let gc = |valid: Value| {
            let config = with(dual_stack(), &json!({ "cni.dev/valid-attachments": valid }));
            run(&[("CNI_COMMAND", "GC".into()), ("CNI_PATH", "/usr/lib/cni".into())], &config)
        };
        gc(json!([{ "containerID": "kept", "ifname": "eth0" }])).ok();
        with_one.unchanged("at the end");
        kept.check(&dual_stack(), &result).ok();

        let other = TestPod::new("other");
        other.add(&other_network).ok();
        gc(json!([])).ok();
        assert_eq!(crate::common::leases().len(), 1, "only the other network's");
        assert!(text("ip", &["-d", "link"]).contains("podwire other other eth0"));
        assert!(!text("ip", &["-d", "link"]).contains("podwire podnet"));
    });
}

#[test]
fn status_tells_whether_an_add_would_be_served() {
    sandbox::private_host(|| {
        let status =
            |config: &Value| run(&[("CNI_COMMAND", "STATUS".into()), ("CNI_PATH", "/usr/lib/cni".into())], config);
        assert_eq!(status(&dual_stack()).ok().stdout, "");
        let tiny = with(dual_stack(), &json!({ "ipam": { "type": "podwire-ipam", "podCIDR": "10.244.1.0/32" } }));
        TestPod::new("one").add(&tiny).ok();
        assert_eq!(status(&tiny).error().0, 50);
    });
}
