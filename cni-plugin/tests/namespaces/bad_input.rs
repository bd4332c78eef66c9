//! What is refused, with which code and in which words, and that nothing is left of it.

use crate::common::{TestPod, dual_stack, run, run_bytes, traces, with};
use crate::layer2::layer2;
use serde_json::{Value, json};

fn ipam(ipam: &Value) -> Value {
    with(dual_stack(), &json!({ "ipam": ipam }))
}

/// A link with less than 1280 bytes has no IPv6 (RFC 8200, section 5).
#[test]
fn an_mtu_that_is_too_small_for_ipv6() {
    sandbox::private_host(|| {
        let annotations = json!({ "io.kubernetes.cri.pod-annotations": { "podwire/mtu": "1000" } });
        let key = "runtimeConfig[\"io.kubernetes.cri.pod-annotations\"][\"podwire/mtu\"]=1000";
        let cases = [
            (json!({ "mtu": 1279 }), "mtu=1279: the pod has fd00:10:244:1::2, and IPv6 needs 1280 bytes".to_owned()),
            (json!({ "mtu": 1500, "runtimeConfig": annotations }), format!("{key}: the pod has fd00:10:244:1::")),
        ];
        let cases = cases.map(|(keys, msg)| (with(dual_stack(), &keys), format!("invalid network config: {msg}")));
        refused(&cases.each_ref().map(|(config, msg)| (config.clone(), 7, msg.as_str())));
    });
}

/// `static` gives what it is told to.
#[test]
fn addresses_that_no_pod_can_have() {
    sandbox::private_host(|| {
        let of_static = |addresses: &[&str]| {
            let addresses: Vec<Value> = addresses.iter().map(|address| json!({ "address": address })).collect();
            with(ipam(&json!({ "type": "static", "addresses": addresses })), &json!({ "cniVersion": "1.0.0" }))
        };
        let cases = [
            (of_static(&["0.0.0.0/0"]), "the IPAM plugin gave 0.0.0.0/0, which a pod cannot have: it is no address of"),
            (
                of_static(&["10.244.1.5/24", "127.0.0.5/8"]),
                "127.0.0.5/8, which a pod cannot have: it is of the loopback",
            ),
            (of_static(&["224.0.0.5/24"]), "224.0.0.5/24, which a pod cannot have: it is a group's"),
            (of_static(&["255.255.255.255/32"]), "255.255.255.255/32, which a pod cannot have: it is a group's"),
            (of_static(&["ff02::5/64"]), "ff02::5/64, which a pod cannot have: it is a group's"),
            (of_static(&["169.254.1.1/32"]), "169.254.1.1/32, which a pod cannot have: it is the gateway's"),
            (of_static(&["10.1.1.5/24", "10.1.1.5/32"]), "10.1.1.5/32, which a pod cannot have: it is there twice"),
        ];
        refused(&cases.map(|(config, msg)| (config, 111, msg)));
    });
}

#[test]
fn bad_configs() {
    sandbox::private_host(|| {
        let cases = [
            (json!({ "device": "netkit" }), 7, "invalid network config: device=\"netkit\": podwire makes veth pairs: "),
            (json!({ "device": "tun" }), 7, "invalid network config: device=\"tun\": must be \"veth\""),
            (json!({ "ipam": { "type": "nosuch" } }), 7, "invalid network config: ipam.type=\"nosuch\": "),
            (json!({ "ipam": { "type": "../x" } }), 7, "invalid network config: ipam.type=\"../x\": "),
            (
                json!({ "ipam": { "type": "podwire" } }),
                7,
                "invalid network config: ipam.type=\"podwire\": is this main plugin",
            ),
            (
                json!({ "type": "renamed", "ipam": { "type": "renamed" } }),
                7,
                "invalid network config: ipam.type=\"renamed\": is this main plugin",
            ),
            (json!({ "mtu": 60 }), 7, "invalid network config: mtu=60: must be 0, or 68 to 65535 bytes"),
            (json!({ "mtu": "big" }), 7, "invalid network config: mtu=\"big\": "),
            (
                json!({ "ipMasqBackend": "ipvs" }),
                7,
                "invalid network config: ipMasqBackend=\"ipvs\": must be one of \"nftables\", \"iptables\"",
            ),
            (
                json!({ "nonMasqueradeCIDRs": ["10.0.0.0/8", "ten"] }),
                7,
                "invalid network config: nonMasqueradeCIDRs[1]=\"ten\": is not a CIDR",
            ),
            (
                json!({ "nonMasqueradeCIDRs": ["10.1.0.0/8"] }),
                7,
                "invalid network config: nonMasqueradeCIDRs[0]=\"10.1.0.0/8\": has host bits set; the network is 10.0.0.0/8",
            ),
            (json!({ "vlan": 100 }), 2, "unsupported field: vlan=100: "),
            (json!({ "portIsolation": true }), 2, "unsupported field: portIsolation=true: "),
            (json!({ "ipam": { "type": "dhcp" } }), 2, "unsupported field: ipam.type=\"dhcp\": "),
            (
                json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "01" } }),
                7,
                "sysctl net/ipv4/conf/eth0/arp_filter=\"01\": the kernel makes \"1\" of it",
            ),
            (
                json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": ["podwire/mac"] } }),
                7,
                "runtimeConfig[\"io.kubernetes.cri.pod-annotations\"]=Array [String(\"podwire/mac\")]: is not an object",
            ),
            (json!({ "name": "a b" }), 7, "name=\"a b\""),
            (json!({ "cniVersion": "9.9.9" }), 1, "cniVersion=\"9.9.9\" is not supported"),
        ];
        refused(cases.map(|(changes, code, msg)| (with(dual_stack(), &changes), code, msg)).as_ref());
    });
}

/// Without `ipam.type` nobody gives addresses: whatever needs one is more likely a mistake than a wish.
#[test]
fn what_needs_an_address_without_ipam() {
    sandbox::private_host(|| {
        let needs = "needs an address, and without \"ipam\" the pod gets none";
        let of_runtime = |key: &str, value: Value| json!({ "runtimeConfig": { key: value } });
        let cases = [
            (json!({ "ipMasq": true }), 7, format!("ipMasq=true: {needs}")),
            (json!({ "snatSource": "192.0.2.7" }), 7, format!("snatSource=\"192.0.2.7\": {needs}")),
            (json!({ "gateway": "range" }), 7, format!("gateway=\"range\": {needs}")),
            (of_runtime("ips", json!(["10.9.0.1"])), 7, format!("runtimeConfig.ips=[\"10.9.0.1\"]: {needs}")),
            (of_runtime("IPRanges", json!([[]])), 7, format!("runtimeConfig.ipRanges=[[]]: {needs}")),
            (json!({ "args": { "cni": { "ips": ["10.9.0.1"] } } }), 7, format!("args.cni.ips=[\"10.9.0.1\"]: {needs}")),
            (
                json!({ "ipam": { "type": "", "podCIDR": "10.9.0.0/24" } }),
                7,
                "ipam.podCIDR=\"10.9.0.0/24\": means nothing while ipam.type is missing".to_owned(),
            ),
            (
                json!({ "ipam": { "routes": [{ "dst": "0.0.0.0/0" }] } }),
                7,
                "ipam.routes=[{\"dst\":\"0.0.0.0/0\"}]: means nothing while ipam.type is missing".to_owned(),
            ),
            (json!({ "IPAM": { "type": "x" } }), 7, "IPAM={\"type\":\"x\"}: is to be written \"ipam\"".to_owned()),
            (json!({ "cniVersion": "0.2.0" }), 1, "cniVersion=\"0.2.0\" has no results without an address".to_owned()),
        ];
        let cases = cases.each_ref().map(|(changes, code, msg)| (with(layer2(), changes), *code, msg.as_str()));
        refused(&cases);
        // What makes no difference is not refused.
        let harmless = json!({ "ipMasq": false, "snatSource": null, "gateway": "link-local", "nonMasqueradeCIDRs": ["10.0.0.0/8"],
                               "ipam": { "type": "", "routes": [] }, "runtimeConfig": { "ips": null } });
        let pod = TestPod::new("two");
        pod.add(&with(layer2(), &harmless)).ok();
        pod.del(&layer2()).ok();
    });
}

#[test]
fn bad_pools() {
    sandbox::private_host(|| {
        let own = |mut keys: Value| {
            keys["type"] = json!("podwire-ipam");
            ipam(&keys)
        };
        refused(&[
            (own(json!({ "podCIDR": "10.244.1.0/33" })), 7, "ipam.podCIDR=\"10.244.1.0/33\""),
            (own(json!({ "subnet": "10.244.1.0/24", "gateway": "10.9.9.9" })), 7, "ipam.gateway=\"10.9.9.9\""),
            (
                own(json!({ "ranges": [[{ "subnet": "10.244.0.0/16" }], [{ "subnet": "10.244.1.0/24" }]] })),
                7,
                "ipam.ranges",
            ),
        ]);
    });
}

#[test]
fn bad_routes() {
    sandbox::private_host(|| {
        let routes =
            |routes: Value| ipam(&json!({ "type": "podwire-ipam", "podCIDR": "10.244.1.0/24", "routes": routes }));
        let by = |changes: &Value| with(json!({ "dst": "10.8.0.0/16" }), changes);
        refused(&[
            (routes(json!([by(&json!({ "scope": 253 }))])), 2, "unsupported route: dst=10.8.0.0/16, scope=253: "),
            (
                routes(json!([by(&json!({ "gw": "10.244.1.1" })), by(&json!({ "gw": "10.244.1.2", "mtu": 1400 }))])),
                7,
                "invalid network config: routes: dst=10.8.0.0/16: there are two, which differ in mtu, ",
            ),
        ]);
    });
}

/// Each config is refused with this code and a message that begins with, or contains, these words.
fn refused(cases: &[(Value, u64, &str)]) {
    let pod = TestPod::new("one");
    let before = traces();
    for (config, code, words) in cases {
        let (found, msg) = pod.add(config).error();
        assert!(found == *code && msg.contains(words), "{config}: expected {code} {words:?}, found {found} {msg:?}");
        before.unchanged(format!("{config}"));
    }
}

#[test]
fn bad_environments() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        std::fs::write("/run/plain", "").unwrap();
        let before = traces();
        let cases = [
            (&[("CNI_NETNS", "/run/netns/nosuch")][..], "CNI_NETNS=\"/run/netns/nosuch\""),
            (&[("CNI_NETNS", "/run/plain")], "CNI_NETNS=\"/run/plain\""),
            (&[("CNI_NETNS", "/proc/self/ns/mnt")], "CNI_NETNS=\"/proc/self/ns/mnt\""),
            (&[("CNI_NETNS", "/proc/self/ns/net")], "is the node's own network namespace"),
            (&[("CNI_IFNAME", "sixteen-letters-")], "CNI_IFNAME=\"sixteen-letters-\""),
            (&[("CNI_IFNAME", "lo")], "CNI_IFNAME=\"lo\" is taken"),
            (&[("CNI_IFNAME", "eth%d")], "CNI_IFNAME=\"eth%d\""),
            (&[("CNI_IFNAME", "all")], "CNI_IFNAME=\"all\""),
            (&[("CNI_IFNAME", "a\"b")], "CNI_IFNAME=\"a\\\"b\""),
            (&[("CNI_CONTAINERID", "../etc")], "CNI_CONTAINERID=\"../etc\""),
            (&[("CNI_CONTAINERID", ""), ("CNI_IFNAME", ""), ("CNI_NETNS", "")], "CNI_CONTAINERID"),
        ];
        for (changes, words) in cases {
            let mut env = pod.env("ADD");
            for (name, value) in &mut env {
                if let Some((_, other)) = changes.iter().find(|(changed, _)| changed == name) {
                    *value = (*other).to_owned();
                }
            }
            let answer = run(&env, &dual_stack());
            let (code, msg) = answer.error();
            assert!(code == 4 && msg.contains(words), "{changes:?}: {code} {msg:?}");
            for (name, value) in changes.iter().filter(|(_, value)| value.is_empty()) {
                assert!(msg.contains(name), "{name}={value:?} is not named in {msg:?}");
            }
            before.unchanged(format!("{changes:?}"));
        }
    });
}

#[test]
fn broken_json() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        for bytes in [&b"{"[..], b"", b"[]", b"\xff"] {
            assert_eq!(run_bytes(&pod.env("ADD"), bytes).error().0, 6, "{bytes:?}");
        }
    });
}

#[test]
fn an_exhausted_pool_says_so_and_leaves_nothing() {
    sandbox::private_host(|| {
        let tiny = ipam(&json!({ "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00::1/128"] }));
        TestPod::new("one").add(&tiny).ok();
        let before = traces();
        let (code, msg) = TestPod::new("two").add(&tiny).error();
        assert_eq!(code, 100, "{msg}");
        before.unchanged("not even the address of the other family");
    });
}

#[test]
fn an_owner_that_the_kernel_cannot_keep_is_refused() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let mut env = pod.env("ADD");
        // "podnet", the id and "eth0" with two spaces: as long as the kernel keeps them, and one longer.
        for (id_length, refused) in [(234, false), (235, true)] {
            env[0].1 = "ADD".to_owned();
            env[1].1 = "c".repeat(id_length);
            let answer = run(&env, &dual_stack());
            if refused {
                let (code, msg) = answer.error();
                assert_eq!(code, 7, "{msg}");
            } else {
                answer.ok();
            }
            env[0].1 = "DEL".to_owned();
            run(&env, &dual_stack()).ok();
        }
    });
}

#[test]
fn a_config_that_no_add_would_take_is_deleted_and_collected() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        for ipam_type in ["podwire", "", "dhcp"] {
            let config = ipam(&json!({ "type": ipam_type }));
            pod.del(&config).ok();
            let gc = with(config, &json!({ "cni.dev/valid-attachments": [] }));
            run(&[("CNI_COMMAND", "GC".into()), ("CNI_PATH", "/usr/lib/cni".into())], &gc).ok();
        }
    });
}

#[test]
fn a_strangers_link_of_our_name_is_named_and_left() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let host = pod.add(&dual_stack()).ok().json()["interfaces"][0]["name"].as_str().unwrap().to_owned();
        pod.del(&dual_stack()).ok();
        crate::common::text("ip", &["link", "add", &host, "type", "veth", "peer", "name", "other"]);
        crate::common::text("ip", &["link", "set", "dev", &host, "alias", "uplink of rack 7"]);
        let before = traces();
        let (code, msg) = pod.add(&dual_stack()).error();
        assert!(code == 5 && msg.contains(&host), "{code} {msg}");
        pod.del(&dual_stack()).ok();
        before.unchanged("at the end");
    });
}
