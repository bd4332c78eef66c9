//! The reference's chained plugins behind this one, as a runtime runs them: ADD in order, CHECK, DEL in reverse.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{
    Answer, DEADLINE, TestPod, addresses, dual_stack, exchange, finish, node_addresses, text, traces, with,
};

/// A chain of `podwire` and one plugin behind it. The reference's plugins of Debian speak 1.0.0 at most.
struct Chain {
    first: Value,
    second: Value,
    args: &'static str,
}

impl Chain {
    fn new(first: &Value, second: &Value, args: &'static str) -> Self {
        let common = json!({ "cniVersion": "1.0.0", "name": "podnet" });
        let first = with(with(dual_stack(), &with(common.clone(), &json!({ "ipMasq": false }))), first);
        Self { first, second: with(common, second), args }
    }

    fn call(&self, pod: &TestPod, command: &str, config: &Value, prev_result: Option<&Value>) -> Answer {
        let program = match config["type"].as_str().unwrap() {
            "podwire" => env!("CARGO_BIN_EXE_podwire").to_owned(),
            reference => format!("/usr/lib/cni/{reference}"),
        };
        let mut config = config.clone();
        if let Some(result) = prev_result {
            config["prevResult"] = result.clone();
        }
        let mut plugin = sandbox::command(&program);
        plugin.envs(pod.env(command)).env("CNI_ARGS", self.args);
        finish(plugin, config.to_string().as_bytes()).ok()
    }

    fn add(&self, pod: &TestPod) -> Value {
        let result = self.call(pod, "ADD", &self.first, None).json();
        self.call(pod, "ADD", &self.second, Some(&result)).json()
    }

    fn check(&self, pod: &TestPod, result: &Value) {
        for config in [&self.first, &self.second] {
            self.call(pod, "CHECK", config, Some(result));
        }
    }

    fn del(&self, pod: &TestPod, result: &Value) {
        for config in [&self.second, &self.first] {
            self.call(pod, "DEL", config, Some(result));
        }
    }
}

fn mac_in(pod: &TestPod) -> String {
    let shown = text("ip", &["-n", &pod.id, "-j", "link", "show", "eth0"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

/// Both ways, both families.
fn talk(pod: &TestPod, own: &[IpAddr], node_addresses: [IpAddr; 2]) {
    let node = NetNs::current().unwrap();
    for (own, of_node) in own.iter().zip(node_addresses) {
        exchange(&pod.netns, &node, *own).unwrap_or_else(|error| panic!("to {own}: {error}"));
        exchange(&node, &pod.netns, of_node).unwrap_or_else(|error| panic!("to {of_node}: {error}"));
    }
}

/// What a plugin in front made stays in the result, before what this one makes, and is none of its business later.
#[test]
fn what_an_earlier_plugin_made_stays_in_the_result() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let before = traces();
        let pod = TestPod::new("one");
        let earlier = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "net0", "mac": "02:00:00:00:00:01", "sandbox": pod.path }],
            "ips": [{ "address": "192.0.2.5/24", "interface": 0 }],
            "routes": [{ "dst": "203.0.113.0/24" }, { "dst": "198.51.100.0/24", "gw": "192.0.2.1" }],
        });
        let config = with(dual_stack(), &json!({ "ipMasq": false, "prevResult": earlier }));
        let result = pod.add(&config).ok().json();
        let count = |key: &str| result[key].as_array().unwrap().len();
        assert_eq!((count("interfaces"), count("ips"), count("routes")), (3, 3, 4), "{result}");
        assert_eq!(result["interfaces"][0], earlier["interfaces"][0]);
        assert_eq!((&result["ips"][0]["address"], &result["ips"][1]["interface"]), (&json!("192.0.2.5/24"), &json!(2)));
        talk(&pod, &addresses(&result)[1..], node_addresses);
        pod.check(&config, &result).ok();
        pod.del(&config).ok();
        before.unchanged("after DEL");
    });
}

#[test]
fn tuning_sets_what_it_likes() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let before = traces();
        let tuning = json!({ "type": "tuning", "mtu": 1300, "sysctl": { "net.core.somaxconn": "500" } });
        let chain = Chain::new(&json!({}), &tuning, "");
        let pod = TestPod::new("one");
        let result = chain.add(&pod);
        talk(&pod, &addresses(&result), node_addresses);
        chain.check(&pod, &result);
        chain.del(&pod, &result);
        before.unchanged("after DEL");
    });
}

#[test]
fn a_hardware_address_that_both_are_told_is_the_same() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let mac = "02:00:00:00:00:77";
        let told = json!({ "capabilities": { "mac": true }, "runtimeConfig": { "mac": mac } });
        let places = [
            (told.clone(), with(told, &json!({ "type": "tuning" })), "IgnoreUnknown=1"),
            (json!({}), json!({ "type": "tuning" }), "IgnoreUnknown=1;MAC=02:00:00:00:00:77"),
        ];
        for (number, (first, second, args)) in places.into_iter().enumerate() {
            let chain = Chain::new(&first, &second, args);
            let pod = TestPod::new(&format!("pod{number}"));
            let result = chain.add(&pod);
            assert_eq!(mac_in(&pod), mac);
            talk(&pod, &addresses(&result), node_addresses);
            chain.check(&pod, &result);
            chain.del(&pod, &result);
        }
    });
}

#[test]
fn a_hardware_address_that_changes_later_is_followed() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let before = traces();
        let free = json!({ "antiSpoofing": "addresses" });
        let chain = Chain::new(&free, &json!({ "type": "tuning", "mac": "02:00:00:00:00:78" }), "");
        let pod = TestPod::new("one");
        let result = chain.add(&pod);
        assert_eq!(mac_in(&pod), "02:00:00:00:00:78");
        talk(&pod, &addresses(&result), node_addresses);
        chain.check(&pod, &result);
        // And once more, in the middle of its life.
        text("ip", &["-n", "one", "link", "set", "eth0", "address", "02:00:00:00:00:79"]);
        talk(&pod, &addresses(&result), node_addresses);
        chain.call(&pod, "CHECK", &chain.first, Some(&result));
        chain.del(&pod, &result);
        before.unchanged("after DEL");
    });
}

#[test]
fn a_hardware_address_that_changes_where_it_must_not_is_found() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let config = with(dual_stack(), &json!({ "ipMasq": false }));
        let result = pod.add(&config).ok().json();
        text("ip", &["-n", "one", "link", "set", "eth0", "address", "02:00:00:00:00:79"]);
        let checked = pod.check(&config, &result);
        let details = checked.json()["details"].to_string();
        assert!(checked.error().0 == 110 && details.contains("neighbour replace 10.244.1.2"), "{details}");
    });
}

#[test]
fn bandwidth_shapes_on_the_node() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let before = traces();
        let rates = json!({ "type": "bandwidth", "ingressRate": 80_000_000, "ingressBurst": 8_000_000,
                            "egressRate": 80_000_000, "egressBurst": 8_000_000 });
        let chain = Chain::new(&json!({}), &rates, "");
        let pod = TestPod::new("one");
        let result = chain.add(&pod);
        let link = result["interfaces"][0]["name"].as_str().unwrap();
        assert!(text("tc", &["qdisc", "show", "dev", link]).contains("tbf"));
        talk(&pod, &addresses(&result), node_addresses);
        chain.check(&pod, &result);
        chain.del(&pod, &result);
        before.unchanged("after DEL");
    });
}

#[test]
fn firewall_lets_pods_through_a_closed_node() {
    sandbox::private_host(|| {
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        for program in ["iptables", "ip6tables"] {
            text(program, &["-P", "FORWARD", "DROP"]);
        }
        let chain = Chain::new(&json!({}), &json!({ "type": "firewall", "backend": "iptables" }), "");
        let results = [chain.add(&one), chain.add(&two)];
        for address in addresses(&results[1]) {
            exchange(&two.netns, &one.netns, address).unwrap_or_else(|error| panic!("to {address}: {error}"));
        }
        for (pod, result) in [&one, &two].into_iter().zip(&results) {
            chain.check(pod, result);
            chain.del(pod, result);
        }
    });
}

#[test]
fn portmap_leads_to_the_pod() {
    sandbox::private_host(|| {
        let [node_address, _] = node_addresses();
        let outside = kernel::netns::create_named("/run/netns/outside").unwrap();
        for arguments in [
            "link set wire netns outside",
            "-n outside address add 192.168.50.9/24 dev wire",
            "-n outside link set wire up",
        ] {
            text("ip", &arguments.split(' ').collect::<Vec<_>>());
        }
        let mapping = json!([{ "hostPort": 8086, "containerPort": 80, "protocol": "tcp" }]);
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true,
                              "runtimeConfig": { "portMappings": mapping } });
        let chain = Chain::new(&json!({}), &portmap, "");
        let pod = TestPod::new("one");
        let result = chain.add(&pod);
        let listener = pod.netns.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut accepted, _) = listener.accept().unwrap();
                std::io::Write::write_all(&mut accepted, b"hello").unwrap();
            }
        });
        // From the outside, and from the pod itself by way of the node.
        for client in [&outside, &pod.netns] {
            let target = SocketAddr::new(node_address, 8086);
            let mut stream = client.run(|| TcpStream::connect_timeout(&target, DEADLINE)).unwrap().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "hello");
        }
        serving.join().unwrap();
        // CHECK of the reference's 1.1.1 itself fails: it looks for its IPv4 rules among those of IPv6.
        chain.call(&pod, "CHECK", &chain.first, Some(&result));
        chain.del(&pod, &result);
    });
}
