//! Attachments without IPAM: links that carry what their two ends make of them, and of which the node takes nothing.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{
    Answer, DEADLINE, TestPod, addresses, dual_stack, exchange, finish, leases, node_addresses, run, shown, text,
    traces, until, until_usable, with,
};
use crate::frames::{Claim, Wire, udp};
use crate::hostile::{dropped, mac};
use crate::masquerade::outside_machine;

/// The whole config; the network is that of the other tests.
pub fn layer2() -> Value {
    json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire" })
}

/// What a runtime makes of the list among the examples.
fn example() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/conflists/20-podwire-layer2.conflist");
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1);
    with(list["plugins"][0].clone(), &json!({ "cniVersion": list["cniVersion"], "name": list["name"] }))
}

/// The same, beside another network.
fn wire() -> Value {
    with(layer2(), &json!({ "name": "wire" }))
}

fn ip(words: &str) -> String {
    text("ip", &words.split(' ').collect::<Vec<_>>())
}

fn set(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{key}"), value).unwrap();
}

/// For what is not to come at all, and would have by now.
const SOON: Duration = Duration::from_millis(100);

fn host_link(result: &Value) -> &str {
    result["interfaces"][0]["name"].as_str().unwrap()
}

fn call(pod: &TestPod, command: &str, ifname: &str, config: &Value) -> Answer {
    let mut env = pod.env(command);
    env.retain(|(name, _)| *name != "CNI_IFNAME");
    env.push(("CNI_IFNAME", ifname.to_owned()));
    run(&env, config)
}

/// Two pods whose links are ports of a bridge, with addresses of their own choice.
struct Bridged {
    pods: [TestPod; 2],
    results: [Value; 2],
}

const CHOSEN: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]];

impl Bridged {
    fn new(config: &Value) -> Self {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        let pods = ["one", "two"].map(TestPod::new);
        let results = pods.each_ref().map(|pod| pod.add(config).ok().json());
        for ((pod, result), [v4, v6]) in pods.iter().zip(&results).zip(CHOSEN) {
            ip(&format!("link set {} master br0", host_link(result)));
            ip(&format!("-n {} address add {v4}/24 dev eth0", pod.id));
            ip(&format!("-n {} address add {v6}/64 dev eth0 nodad", pod.id));
        }
        Self { pods, results }
    }

    /// Both ways, both families.
    fn talk(&self) {
        let [one, two] = &self.pods;
        for (asked, asking, chosen) in [(one, two, CHOSEN[0]), (two, one, CHOSEN[1])] {
            for to in chosen {
                let to: IpAddr = to.parse().unwrap();
                exchange(&asked.netns, &asking.netns, to).unwrap_or_else(|error| panic!("to {to}: {error}"));
            }
        }
    }
}

#[test]
fn pods_talk_over_a_bridge_by_addresses_they_gave_themselves() {
    sandbox::private_host(|| {
        outside_machine();
        ip("link set uplink mtu 1400");
        let before = traces();
        // Where bridged packets go through the rules of IPv4 and IPv6, they come by the bridge there, and not by the pod's link.
        for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
            if Path::new("/proc/sys").join(key).exists() {
                set(key, "1");
            }
        }
        let config = example();
        let bridged = Bridged::new(&config);
        bridged.talk();
        for (pod, result) in bridged.pods.iter().zip(&bridged.results) {
            let keys: Vec<&String> = result.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["cniVersion", "interfaces"], "{result}");
            for (end, namespace) in result["interfaces"].as_array().unwrap().iter().zip([None, Some(&pod.id)]) {
                let name = end["name"].as_str().unwrap();
                let inside: Vec<&str> = namespace.iter().flat_map(|id| ["-n", id]).collect();
                let link = &shown("ip", &[&inside[..], &["-j", "link", "show", "dev", name]].concat())[0];
                assert_eq!((&link["address"], &link["mtu"]), (&end["mac"], &json!(1400)));
            }
            pod.check(&config, result).ok();
        }
        assert_eq!(leases(), Vec::<String>::new());
        for pod in &bridged.pods {
            pod.del(&config).ok();
            pod.del(&config).ok();
        }
        ip("link delete br0");
        before.unchanged("at the end");
    });
}

/// A bridge can hold a pod to the hardware address that the result says: a port that is locked lets in what stands in the
/// bridge's table.
#[test]
fn a_locked_port_of_a_bridge_takes_the_pods_hardware_address_alone() {
    sandbox::private_host(|| {
        let bridged = Bridged::new(&layer2());
        let [one, two] = &bridged.pods;
        let [from_mac, to_mac] = bridged.results.each_ref().map(|result| mac(&result["interfaces"][1]["mac"]));
        let socket = two.netns.run(|| UdpSocket::bind("10.9.0.2:0")).unwrap().unwrap();
        let port = socket.local_addr().unwrap().port();
        let wire = Wire::of(&one.netns, "eth0");
        let honest = Claim { from_mac, to_mac, from: "10.9.0.1".parse().unwrap(), to: "10.9.0.2".parse().unwrap() };
        let other = Claim { from_mac: [2, 0, 0, 0, 0, 0x99], ..honest };
        let heard = || {
            let mut heard = Vec::new();
            // Frames may pass each other on their way through processors, unless they leave from the same one.
            sandbox::on_one_processor(|| {
                wire.send(&udp(&other, port, "another"));
                wire.send(&udp(&honest, port, "own"));
            });
            while heard.iter().filter(|text| *text == "own").count() < 3 {
                wire.send(&udp(&honest, port, "own"));
                heard.push(next(&socket, DEADLINE).unwrap());
            }
            heard.contains(&"another".to_owned())
        };
        assert!(heard(), "an open port takes any");
        let port_of_one = host_link(&bridged.results[0]);
        let own = bridged.results[0]["interfaces"][1]["mac"].as_str().unwrap();
        command(&format!("bridge link set dev {port_of_one} learning off locked on"));
        // What it learned while it was open.
        command(&format!("ip link set dev {port_of_one} type bridge_slave fdb_flush"));
        command(&format!("bridge fdb replace {own} dev {port_of_one} master static"));
        while next(&socket, SOON).is_some() {}
        assert!(!heard(), "a locked port takes one");
        bridged.talk();
    });
}

/// What comes next, if anything comes in time.
fn next(socket: &UdpSocket, patience: Duration) -> Option<String> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The other end in another pod: the link is theirs, and DEL takes it away from where it was made for.
#[test]
fn a_link_that_leads_into_another_namespace_ends_with_its_pod() {
    sandbox::private_host(|| {
        let before = traces();
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        let result = one.add(&layer2()).ok().json();
        let link = host_link(&result);
        ip(&format!("link set {link} netns two"));
        let differs = |what: &str| {
            let answer = one.check(&layer2(), &result);
            let details = answer.json()["details"].to_string();
            assert!(answer.error().0 == 110 && details.contains(what), "not {what:?}: {details}");
        };
        differs("the node's end down");
        ip(&format!("-n two link set {link} arp on up"));
        ip("-n one address add 10.9.0.1/24 dev eth0");
        ip(&format!("-n two address add 10.9.0.2/24 dev {link}"));
        exchange(&two.netns, &one.netns, "10.9.0.2".parse().unwrap()).unwrap();
        exchange(&one.netns, &two.netns, "10.9.0.1".parse().unwrap()).unwrap();
        one.check(&layer2(), &result).ok();
        text("ip", &["-n", "two", "link", "set", link, "alias", "somebody else's"]);
        differs("on the node");
        text("ip", &["-n", "two", "link", "set", link, "alias", "podwire podnet one eth0"]);
        one.check(&layer2(), &result).ok();
        one.del(&layer2()).ok();
        assert!(!ip("-n two link show").contains(link));
        before.unchanged("after DEL");
    });
}

#[test]
fn check_tells_that_a_link_has_lost_its_limit_by_being_moved() {
    sandbox::private_host(|| {
        let (one, _two) = (TestPod::new("one"), TestPod::new("two"));
        let rates = json!({ "ingressRate": 80_000_000, "ingressBurst": 0 });
        let config = with(layer2(), &json!({ "runtimeConfig": { "bandwidth": rates } }));
        let result = one.add(&config).ok().json();
        let link = host_link(&result);
        let limits = |words: &str| text("tc", &words.split(' ').collect::<Vec<_>>()).contains("tbf");
        assert!(limits(&format!("qdisc show dev {link}")));
        one.check(&config, &result).ok();
        ip(&format!("link set {link} netns two"));
        ip(&format!("-n two link set {link} up"));
        assert!(!limits(&format!("-n two qdisc show dev {link}")));
        let answer = one.check(&config, &result);
        let details = answer.json()["details"].to_string();
        assert!(answer.error().0 == 110 && details.contains("no token bucket"), "{details}");
        one.del(&config).ok();
    });
}

/// Whoever is at the other end may need another hardware address, and interfaces of other namespaces have the same numbers.
#[test]
fn a_link_that_was_moved_ends_whatever_its_hardware_address_and_its_number_are() {
    sandbox::private_host(|| {
        let before = traces();
        let [one, _two, three] = ["one", "two", "three"].map(TestPod::new);
        let result = one.add(&layer2()).ok().json();
        let (link, inside) = (host_link(&result), shown("ip", &["-n", "one", "-j", "link", "show", "dev", "eth0"]));
        let number = shown("ip", &["-j", "link", "show", "dev", link])[0]["ifindex"].clone();
        ip(&format!("link set {link} netns two"));
        ip("-n one link set eth0 address 02:00:00:00:00:99");
        ip(&format!(
            "link add other index {number} type veth peer name eth0 index {} netns three",
            inside[0]["ifindex"]
        ));
        text("ip", &["link", "set", "other", "alias", "podwire podnet three eth0"]);
        one.del(&layer2()).ok();
        assert!(!ip("-n one link show").contains("eth0") && !ip("-n two link show").contains(link));
        assert!(ip("link show").contains("other"));
        three.del(&layer2()).ok();
        before.unchanged("after both DELs");
    });
}

/// The administrator has numbered the node's end, and the node forwards. What a pod sends from whatever address, by frames
/// that need no ARP, is neither routed nor delivered, unless the guard is off.
#[test]
fn the_node_takes_nothing_from_a_link_without_addresses_unless_the_guard_is_off() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        set("net/ipv4/ip_forward", "1");
        set("net/ipv6/conf/all/forwarding", "1");
        let node = NetNs::current().unwrap();
        for mode in ["strict", "addresses", "off"] {
            let config = with(layer2(), &json!({ "antiSpoofing": mode }));
            let pod = TestPod::new(mode);
            let result = pod.add(&config).ok().json();
            let link = host_link(&result);
            ip(&format!("address add 10.9.0.1/24 dev {link}"));
            ip(&format!("address add fd09::1/64 dev {link} nodad"));
            until_usable("fd09::1");
            // Nothing but the guard stands in the way, and the pod's own kernel says nothing.
            for key in ["all", link] {
                set(&format!("net/ipv4/conf/{key}/rp_filter"), "0");
            }
            ip(&format!("netns exec {mode} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
            let (from_mac, to_mac) = (mac(&result["interfaces"][1]["mac"]), mac(&result["interfaces"][0]["mac"]));
            let wire = Wire::of(&pod.netns, "eth0");
            for (family, froms, tos) in [
                ("ip", ["10.9.0.2", "203.0.113.5"], ["10.9.0.1", "192.168.50.254"]),
                ("ip6", ["fd09::2", "2001:db8::5"], ["fd09::1", "fd50::fe"]),
            ] {
                for (to, at) in tos.into_iter().zip([&node, &outside]) {
                    let to: IpAddr = to.parse().unwrap();
                    let socket = at.run(|| UdpSocket::bind((to, 0))).unwrap().unwrap();
                    let port = socket.local_addr().unwrap().port();
                    let before = if mode == "off" { 0 } else { dropped(family) };
                    for from in froms {
                        let claim = Claim { from_mac, to_mac, from: from.parse().unwrap(), to };
                        wire.send(&udp(&claim, port, from));
                    }
                    if mode == "off" {
                        let heard = froms.map(|_| next(&socket, DEADLINE).unwrap_or_default());
                        assert!(froms.iter().all(|from| heard.contains(&(*from).to_owned())), "{to}: {heard:?}");
                    } else {
                        let two = || dropped(family) - before;
                        until(|| two() >= 2, || format!("{mode}: {} of 2 to {to} were dropped", two()));
                        assert_eq!((two(), next(&socket, SOON)), (2, None), "{mode}: {to}");
                    }
                }
            }
            // With the guard on, the node does not even say that it is there.
            let noarp = shown("ip", &["-j", "link", "show", "dev", link])[0]["flags"].to_string().contains("NOARP");
            assert_eq!(noarp, mode != "off");
            if mode == "off" {
                ip("-n off address add 10.9.0.2/24 dev eth0");
                exchange(&node, &pod.netns, "10.9.0.1".parse().unwrap()).unwrap();
            }
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
        }
    });
}

/// Beside a network with addresses, with all that such a link can have, in every version whose results can say it.
#[test]
fn a_pod_has_such_a_link_beside_its_network() {
    sandbox::private_host(|| {
        node_addresses();
        let first = TestPod::new("first");
        first.add(&dual_stack()).ok();
        first.del(&dual_stack()).ok();
        let before = traces();
        let node = NetNs::current().unwrap();
        for version in ["0.3.0", "0.4.0", "1.0.0", "1.1.0"] {
            let pod = TestPod::new(&format!("pod{}", version.replace('.', "")));
            let network = pod.add(&dual_stack()).ok().json();
            let rates =
                json!({ "ingressRate": 80_000_000, "ingressBurst": 0, "egressRate": 80_000_000, "egressBurst": 0 });
            let all = json!({
                "cniVersion": version, "mtu": 1300, "hostInterfacePrefix": "l2", "device": "veth", "ipam": {},
                "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" }, "dns": { "nameservers": ["10.9.0.53"] },
                "runtimeConfig": { "bandwidth": rates, "mac": "02:00:00:00:00:77" }
            });
            let config = with(wire(), &all);
            let alone = call(&pod, "ADD", "net1", &config).ok().json();
            assert!(host_link(&alone).starts_with("l2"), "{alone}");
            assert_eq!((&alone["interfaces"][1]["mac"], alone.get("ips")), (&json!("02:00:00:00:00:77"), None));
            assert_eq!(alone["dns"], json!({ "nameservers": ["10.9.0.53"] }));
            // What an earlier plugin of a chain made stays in front.
            let chained = with(config.clone(), &json!({ "prevResult": network }));
            let result = call(&pod, "ADD", "net2", &chained).ok().json();
            assert_eq!(addresses(&result), addresses(&network), "{result}");
            assert_eq!(result["interfaces"][3]["name"], "net2");
            if version >= "0.4.0" {
                for (ifname, result) in [("net1", &alone), ("net2", &result)] {
                    call(&pod, "CHECK", ifname, &with(config.clone(), &json!({ "prevResult": result }))).ok();
                }
            }
            for ifname in ["net1", "net2"] {
                call(&pod, "DEL", ifname, &config).ok();
            }
            exchange(&pod.netns, &node, addresses(&network)[0]).unwrap();
            pod.del(&dual_stack()).ok();
            before.unchanged(version);
        }
    });
}

#[test]
fn check_names_every_difference() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&layer2()).ok().json();
        let host = host_link(&result);
        // An address that a later plugin of the chain gave is none of this one's business.
        let ips = json!([{ "address": "10.9.0.1/24", "interface": 1 }]);
        pod.check(&layer2(), &with(result.clone(), &json!({ "ips": ips }))).ok();
        for (spoil, mend, expected) in [
            ("ip -n one link set eth0 down", "ip -n one link set eth0 up", "`ip -n POD link set eth0 up`"),
            (
                &format!("nft delete element ip6 podwire-guard links {{ {host} }}"),
                &format!("nft add element ip6 podwire-guard links {{ {host} comment \"podnet one eth0\" }}"),
                "`nft add element ip6 podwire-guard links",
            ),
            ("nft flush chain ip podwire-guard guard", "", "`table ip podwire-guard"),
            (&format!("ip link set {host} alias x"), "", "found alias \"x\""),
        ] {
            command(spoil);
            let answer = pod.check(&layer2(), &result);
            let document = answer.json();
            let details = document["details"].as_str().unwrap();
            assert!(answer.error().0 == 110 && details.contains(expected), "{spoil}: {details}");
            if !mend.is_empty() {
                command(mend);
                let checked = || pod.check(&layer2(), &result);
                until(|| checked().success, || format!("{mend}: {:?}", checked()));
            }
        }
    });
}

/// nft(8) joins its words again, and quotes in them are its own.
fn command(line: &str) {
    let (program, rest) = line.split_once(' ').unwrap();
    match program {
        "nft" => text(program, &[rest]),
        _ => text(program, &rest.split(' ').collect::<Vec<_>>()),
    };
}

#[test]
fn it_is_retried_collected_shown_and_ready() {
    sandbox::private_host(|| {
        let of_network = |command: &str, config: &Value| {
            run(&[("CNI_COMMAND", command.to_owned()), ("CNI_PATH", "/usr/lib/cni".to_owned())], config).ok();
        };
        let gc = |valid: Value| of_network("GC", &with(layer2(), &json!({ "cni.dev/valid-attachments": valid })));
        of_network("STATUS", &layer2());
        let before = traces();
        // The sandbox died, and its successor has the same id.
        let first = TestPod::new("one");
        first.add(&layer2()).ok();
        kernel::netns::remove_named(&first.path).unwrap();
        let second = TestPod::new("one");
        let result = second.add(&layer2()).ok().json();
        let kept = traces();
        TestPod::new("two").add(&layer2()).ok();
        gc(json!([{ "containerID": "one", "ifname": "eth0" }]));
        kept.unchanged("the valid one is kept");
        second.check(&layer2(), &result).ok();

        let by_hand = |arguments: &[&str]| {
            let mut podwire = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
            podwire.env_clear().args(arguments);
            finish(podwire, b"").ok()
        };
        let item = by_hand(&["inspect", "one", "-o", "json"]).json()["items"][0].clone();
        assert_eq!((&item["link"]["name"], &item["addresses"]), (&result["interfaces"][0]["name"], &json!([])));
        let drawing = by_hand(&["inspect", "one"]).stdout;
        assert!(drawing.contains("nothing gets there but by its link, at layer 2"), "{drawing}");

        gc(json!([]));
        before.unchanged("none is valid");
    });
}
