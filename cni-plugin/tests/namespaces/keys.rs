//! What keys of the config and wishes for one pod do, seen by other tools and by packets.

use std::net::IpAddr;

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, run, shown, text, traces, with};

fn plain(changes: &Value) -> Value {
    with(with(dual_stack(), &json!({ "ipMasq": false })), changes)
}

fn of_pod(pod: &TestPod, arguments: &[&str]) -> Value {
    shown("ip", &[&["-n", &pod.id, "-j", "-d"][..], arguments].concat())
}

fn host_link(result: &Value) -> String {
    result["interfaces"][0]["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_prefix_names_the_link_and_need_not_be_known_later() {
    sandbox::private_host(|| {
        node_addresses();
        let node = NetNs::current().unwrap();
        let before = traces();
        for later in [plain(&json!({})), plain(&json!({ "hostInterfacePrefix": "other" }))] {
            let pod = TestPod::new("one");
            let config = plain(&json!({ "hostInterfacePrefix": "cali" }));
            let result = pod.add(&config).ok().json();
            let link = host_link(&result);
            assert!(link.starts_with("cali") && link.len() == 15, "{link}");
            for address in addresses(&result) {
                exchange(&pod.netns, &node, address).unwrap();
            }
            pod.check(&config, &result).ok();
            pod.check(&later, &result).ok();
            // The name is taken: another attachment's ADD cannot have it, and this one's second is refused.
            let (code, msg) = pod.add(&config).error();
            assert!(code == 4 && msg.contains("eth0"), "{msg}");
            run(&pod.env("DEL").into_iter().filter(|(name, _)| *name != "CNI_NETNS").collect::<Vec<_>>(), &later).ok();
            before.unchanged(&later);
            kernel::netns::remove_named(&pod.path).unwrap();
        }
    });
}

/// GC knows whose a pair is by the hardware address of the node's end, whatever it is called.
#[test]
fn a_valid_link_stays_whose_alias_somebody_took() {
    sandbox::private_host(|| {
        node_addresses();
        let pod = TestPod::new("one");
        let config = plain(&json!({ "hostInterfacePrefix": "cali" }));
        let result = pod.add(&config).ok().json();
        text("ip", &["link", "set", "dev", &host_link(&result), "alias", ""]);
        for later in [config.clone(), plain(&json!({}))] {
            let valid = json!([{ "containerID": "one", "ifname": "eth0" }]);
            let env = [("CNI_COMMAND", "GC".to_owned()), ("CNI_PATH", "/usr/lib/cni".to_owned())];
            run(&env, &with(later, &json!({ "cni.dev/valid-attachments": valid }))).ok();
            exchange(&pod.netns, &NetNs::current().unwrap(), addresses(&result)[0]).unwrap();
        }
        let env = [("CNI_COMMAND", "GC".to_owned()), ("CNI_PATH", "/usr/lib/cni".to_owned())];
        run(&env, &with(config, &json!({ "cni.dev/valid-attachments": [] }))).ok();
        assert!(!text("ip", &["link"]).contains("cali"));
    });
}

#[test]
fn a_link_that_somebody_renamed_is_found_by_its_alias() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        let result = pod.add(&plain(&json!({}))).ok().json();
        text("ip", &["link", "set", &host_link(&result), "name", "renamed0"]);
        pod.del(&plain(&json!({}))).ok();
        before.unchanged("after DEL");
    });
}

#[test]
fn a_wished_hardware_address_is_the_pods() {
    sandbox::private_host(|| {
        node_addresses();
        let node = NetNs::current().unwrap();
        let wishes = [
            (json!({ "runtimeConfig": { "mac": "02:00:00:00:00:01" } }), "", "02:00:00:00:00:01"),
            (json!({ "args": { "cni": { "mac": "02:00:00:00:00:02" } } }), "", "02:00:00:00:00:02"),
            (json!({}), "MAC=02:00:00:00:00:03;IgnoreUnknown=1", "02:00:00:00:00:03"),
            (
                json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": { "podwire/mac": "02:00:00:00:00:04" } } }),
                "",
                "02:00:00:00:00:04",
            ),
        ];
        for (number, (changes, args, expected)) in wishes.into_iter().enumerate() {
            let pod = TestPod::new(&format!("pod{number}"));
            let config = plain(&changes);
            let call = |command, config: &Value| {
                run(&[pod.env(command), vec![("CNI_ARGS", args.to_owned())]].concat(), config).ok()
            };
            let result = call("ADD", &config).json();
            assert_eq!(result["interfaces"][1]["mac"], expected);
            assert_eq!(of_pod(&pod, &["link", "show", "eth0"])[0]["address"], expected);
            for address in addresses(&result) {
                exchange(&pod.netns, &node, address).unwrap();
            }
            call("CHECK", &with(config.clone(), &json!({ "prevResult": result })));
        }
    });
}

#[test]
fn the_nodes_own_hardware_address_is_refused() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        let result = pod.add(&plain(&json!({}))).ok().json();
        pod.del(&plain(&json!({}))).ok();
        let config = plain(&json!({ "runtimeConfig": { "mac": result["interfaces"][0]["mac"] } }));
        let (code, msg) = pod.add(&config).error();
        assert!(code == 7 && msg.contains("is that of the node's end"), "{msg}");
        before.unchanged("after the refusal");
    });
}

#[test]
fn settings_routes_and_mtu_are_those_of_the_config() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let config = plain(&json!({
            "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv6/neigh/IFNAME/base_reachable_time_ms": "31000" },
            "runtimeConfig": { "io.kubernetes.cri.pod-annotations": { "podwire/mtu": "1380" } },
            "ipam": { "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00:10:244:1::/64"], "routes": [
                { "dst": "0.0.0.0/0", "mtu": 1300, "advmss": 1200, "priority": 50 },
                { "dst": "10.9.0.0/16", "table": 77 },
                { "dst": "fd00:9::/32", "priority": 60 },
            ] },
        }));
        let result = pod.add(&config).ok().json();
        for (key, value) in
            [("net.ipv4.conf.eth0.arp_filter", "1"), ("net.ipv6.neigh.eth0.base_reachable_time_ms", "31000")]
        {
            assert_eq!(text("ip", &["netns", "exec", &pod.id, "sysctl", "-n", key]).trim(), value, "{key}");
        }
        assert_eq!(of_pod(&pod, &["link", "show", "eth0"])[0]["mtu"], 1380);
        assert_eq!(shown("ip", &["-j", "link", "show", &host_link(&result)])[0]["mtu"], 1380);
        let default = &of_pod(&pod, &["route", "show", "default"])[0];
        assert_eq!((&default["metric"], &default["metrics"]), (&json!(50), &json!([{ "mtu": 1300, "advmss": 1200 }])));
        assert_eq!(of_pod(&pod, &["route", "show", "table", "77"])[0]["dst"], "10.9.0.0/16");
        assert_eq!(of_pod(&pod, &["-6", "route", "show", "fd00:9::/32"])[0]["metric"], 60);
        let rules = of_pod(&pod, &["rule", "show"]);
        assert!(rules.as_array().unwrap().iter().any(|rule| rule["src"] == "10.244.1.2" && rule["table"] == "77"));
        pod.check(&config, &result).ok();
        text("ip", &["netns", "exec", &pod.id, "sysctl", "-w", "net.ipv4.conf.eth0.arp_filter=0"]);
        let (code, _) = pod.check(&config, &result).error();
        assert_eq!(code, 110);
        pod.del(&config).ok();
    });
}

#[test]
fn a_gateway_of_the_range_is_the_node() {
    sandbox::private_host(|| {
        let node = NetNs::current().unwrap();
        let config = plain(&json!({ "gateway": "range" }));
        let before = traces();
        let pods = ["one", "two"].map(TestPod::new);
        for pod in &pods {
            let result = pod.add(&config).ok().json();
            assert_eq!(result["ips"][0]["gateway"], "10.244.1.1");
            for ip in result["ips"].as_array().unwrap() {
                let gateway: IpAddr = ip["gateway"].as_str().unwrap().parse().unwrap();
                exchange(&node, &pod.netns, gateway).unwrap();
            }
            pod.check(&config, &result).ok();
        }
        // The gateway's address is on both links; it stays where it is used.
        pods[0].del(&config).ok();
        exchange(&node, &pods[1].netns, "10.244.1.1".parse().unwrap()).unwrap();
        pods[1].del(&config).ok();
        before.unchanged("both are gone");
    });
}
