//! What a pod's annotations do, by the eyes of other tools.

use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, shown, text, traces, with};

fn annotated(annotations: &Value) -> Value {
    let runtime = json!({ "io.kubernetes.cri.pod-annotations": annotations });
    let allowed = json!(["net.ipv4.conf.IFNAME.arp_*"]);
    with(dual_stack(), &json!({ "mtu": 1500, "allowedSysctls": allowed, "runtimeConfig": runtime }))
}

#[test]
fn a_pod_has_what_its_annotations_say() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let first = TestPod::new("first");
        first.add(&dual_stack()).ok();
        first.del(&dual_stack()).ok();
        let before = traces();
        let config = annotated(&json!({
            "podwire/mac": "02:00:00:00:00:77",
            "podwire/mtu": "1400",
            "podwire/ips": "10.244.1.77, fd00:10:244:1::77",
            "podwire/sysctl": "net.ipv4.conf.IFNAME.arp_filter=1",
            "kubernetes.io/ingress-bandwidth": "80M",
            "kubernetes.io/egress-bandwidth": "0.04G",
            "example.org/whatever": "nobody's business"
        }));
        let pod = TestPod::new("one");
        let result = pod.add(&config).ok().json();
        let own: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(own, ["10.244.1.77", "fd00:10:244:1::77"]);
        let inside = &shown("ip", &["-n", "one", "-j", "link", "show", "eth0"])[0];
        assert_eq!((&inside["address"], &inside["mtu"]), (&json!("02:00:00:00:00:77"), &json!(1400)));
        let setting = text("ip", &["netns", "exec", "one", "sysctl", "-n", "net.ipv4.conf.eth0.arp_filter"]);
        assert_eq!(setting.trim(), "1");
        let host = result["interfaces"][0]["name"].as_str().unwrap();
        assert_eq!(shown("tc", &["-j", "qdisc", "show", "dev", host])[0]["options"]["rate"], json!(10_000_000));
        let in_pod = text("ip", &["netns", "exec", "one", "tc", "-j", "qdisc", "show", "dev", "eth0"]);
        assert_eq!(serde_json::from_str::<Value>(&in_pod).unwrap()[0]["options"]["rate"], json!(5_000_000));
        for (own, of_node) in addresses(&result).into_iter().zip(node_addresses) {
            let node = kernel::netns::NetNs::current().unwrap();
            exchange(&pod.netns, &node, own).unwrap();
            exchange(&node, &pod.netns, of_node).unwrap();
        }
        pod.check(&config, &result).ok();
        pod.del(&config).ok();
        before.unchanged("at the end");
    });
}

#[test]
fn wishes_that_cannot_be_granted_are_refused_by_their_place() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        for (name, value, why) in [
            ("podwire/mac", json!("01:00:00:00:00:01"), "is a group's address"),
            ("podwire/mtu", json!("20"), "must be 0, or 68 to 65535 bytes"),
            ("podwire/mtu", json!(1400), "is not a string"),
            ("podwire/sysctl", json!("net.ipv4.conf.IFNAME.rp_filter=0"), "\"allowedSysctls\""),
            ("podwire/sysctl", json!("kernel.hostname=x"), "must be a setting of the pod's interface"),
            ("podwire/ips", json!("nonsense"), "is not an IP address"),
            ("kubernetes.io/egress-bandwidth", json!("fast"), "must be bits per second, 1k to 1P"),
        ] {
            let (code, msg) = pod.add(&annotated(&json!({ name: value }))).error();
            assert!(code == 7 && msg.contains(name) && msg.contains(why), "{name}={value}: {code} {msg}");
            before.unchanged_but_the_ledger(name);
        }
    });
}
