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
                { "dst": "10.7.0.0/16", "scope": 200 },
                { "dst": "fd00:9::/32", "priority": 60, "scope": 200 },
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
        // iproute2 calls 200 so. The pod's own address is wide enough for it.
        assert_eq!(of_pod(&pod, &["route", "show", "10.7.0.0/16"])[0]["scope"], "site");
        assert_eq!(of_pod(&pod, &["route", "get", "10.7.0.1"])[0]["prefsrc"], "10.244.1.2");
        // IPv6 has none.
        let six = &of_pod(&pod, &["-6", "route", "show", "fd00:9::/32"])[0];
        assert_eq!((&six["metric"], &six["scope"]), (&json!(60), &json!("global")));
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
fn the_mtu_is_that_of_the_route_to_the_outside() {
    sandbox::private_host(|| {
        node_addresses();
        text("ip", &["link", "set", "uplink", "mtu", "1480"]);
        let routes: [(&[&str], u32); 4] = [
            (&["-4", "route", "replace", "default", "via", "192.168.50.254"], 1480),
            (&["-4", "route", "replace", "default", "via", "192.168.50.254", "mtu", "1400"], 1400),
            (&["-6", "route", "replace", "default", "via", "fd50::254", "mtu", "1350"], 1350),
            // Narrower than IPv6 can be: the pod has it nevertheless.
            (&["-4", "route", "replace", "default", "via", "192.168.50.254", "mtu", "1000"], 1280),
        ];
        for (route, mtu) in routes {
            text("ip", route);
            for config in [plain(&json!({})), plain(&json!({ "mtu": 0 }))] {
                let pod = TestPod::new("one");
                let result = pod.add(&config).ok().json();
                assert_eq!(of_pod(&pod, &["link", "show", "eth0"])[0]["mtu"], mtu, "{route:?}");
                assert_eq!(shown("ip", &["-j", "link", "show", &host_link(&result)])[0]["mtu"], mtu, "{route:?}");
                pod.del(&config).ok();
                kernel::netns::remove_named(&pod.path).unwrap();
            }
        }
    });
}

/// A link that IPv6 cannot have (RFC 8200, section 5): a pod of IPv4 alone gets it, and one with both is told what is in the way.
#[test]
fn a_way_outside_that_is_too_narrow_for_ipv6_is_named() {
    sandbox::private_host(|| {
        node_addresses();
        text("ip", &["-4", "route", "replace", "default", "via", "192.168.50.254"]);
        text("ip", &["link", "set", "uplink", "mtu", "1000"]);
        let before = traces();
        let pod = TestPod::new("one");
        let (code, msg) = pod.add(&plain(&json!({}))).error();
        assert!(
            code == 7 && msg.contains("mtu (that of the route to the outside)=1000: the pod has fd00:"),
            "{code} {msg}"
        );
        before.unchanged_but_the_ledger("refused");
        let ipv4 = plain(&json!({ "ipam": { "type": "podwire-ipam", "podCIDR": "10.244.1.0/24" } }));
        pod.add(&ipv4).ok();
        assert_eq!(of_pod(&pod, &["link", "show", "eth0"])[0]["mtu"], 1000);
        pod.del(&ipv4).ok();
        pod.add(&plain(&json!({ "mtu": 1280 }))).ok();
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

/// Pools of a single address have no gateway, and `static` names one only if it is told: then the usual one serves.
#[test]
fn a_range_without_a_gateway_has_the_usual_one() {
    sandbox::private_host(|| {
        let node = NetNs::current().unwrap();
        node_addresses();
        let own = json!({ "type": "podwire-ipam", "podCIDR": ["10.244.1.5/32", "fd00:10:244:1::5/128"] });
        let addresses_of_static = json!([{ "address": "10.244.1.6/24" }, { "address": "fd00:10:244:1::6/64" }]);
        let others = json!({ "type": "static", "addresses": addresses_of_static });
        for (id, version, ipam) in [("own", "1.1.0", own), ("others", "1.0.0", others)] {
            let config = plain(&json!({ "cniVersion": version, "gateway": "range", "ipam": ipam }));
            let pod = TestPod::new(id);
            let result = pod.add(&config).ok().json();
            for (ip, gateway) in result["ips"].as_array().unwrap().iter().zip(["169.254.1.1", "fe80::1"]) {
                assert_eq!(ip["gateway"], gateway);
            }
            for address in addresses(&result) {
                exchange(&pod.netns, &node, address).unwrap();
            }
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
        }
    });
}

/// The reference appends the second (`RouteAddEcmp`). Here all gateways are the node, so the two are one way.
#[test]
fn routes_to_one_destination_are_one() {
    sandbox::private_host(|| {
        let nodes = node_addresses();
        let node = NetNs::current().unwrap();
        let routes = json!([
            { "dst": "192.168.50.0/24", "gw": "10.244.1.1" }, { "dst": "192.168.50.0/24", "gw": "10.244.1.9" },
            { "dst": "fd50::/64", "gw": "fd00:10:244:1::1" }, { "dst": "fd50::/64", "gw": "fd00:10:244:1::9" },
        ]);
        let ipam =
            json!({ "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00:10:244:1::/64"], "routes": routes });
        for (style, gateways) in
            [("link-local", ["169.254.1.1", "fe80::1"]), ("range", ["10.244.1.1", "fd00:10:244:1::1"])]
        {
            let pod = TestPod::new("one");
            let config = plain(&json!({ "gateway": style, "ipam": ipam }));
            let result = pod.add(&config).ok().json();
            for ((family, dst), gateway) in [("-4", "192.168.50.0/24"), ("-6", "fd50::/64")].into_iter().zip(gateways) {
                let shown = of_pod(&pod, &[family, "route", "show", dst]);
                assert_eq!((shown.as_array().unwrap().len(), &shown[0]["gateway"]), (1, &json!(gateway)), "{shown}");
                let told = result["routes"].as_array().unwrap().iter().filter(|route| route["dst"] == dst).count();
                assert_eq!(told, 1, "{result}");
            }
            for address in nodes {
                exchange(&node, &pod.netns, address).unwrap();
            }
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
            kernel::netns::remove_named(&pod.path).unwrap();
        }
    });
}

#[test]
fn two_addresses_of_a_family_lead_by_one_gateway() {
    sandbox::private_host(|| {
        let [to, _] = node_addresses();
        let node = NetNs::current().unwrap();
        let ranges = json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "10.244.2.0/24" }]]);
        let pod = TestPod::new("one");
        let config = plain(&json!({ "gateway": "range", "ipam": { "type": "podwire-ipam", "ranges": ranges } }));
        let result = pod.add(&config).ok().json();
        assert_eq!(addresses(&result).len(), 2);
        exchange(&node, &pod.netns, to).unwrap();
        for address in addresses(&result) {
            exchange(&pod.netns, &node, address).unwrap();
        }
        pod.check(&config, &result).ok();
    });
}
