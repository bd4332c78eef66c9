//! Taking over from the reference portmap: what Debian's leaves, and what its newer nftables backend leaves.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;

use crate::common::backend::Backend;
use crate::common::net::{Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, PATIENCE, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, by_hand, feed, nft, ruleset, run};
use sandbox::private_host;
use serde_json::{Value, json};

/// ADD by the reference plugin.
pub fn reference_add(pod: &Host, mappings: &Value) {
    reference_add_with(pod, &pod.name, mappings, &json!({}));
}

/// The same for a container of that id, with these keys of the config besides.
fn reference_add_with(pod: &Host, id: &str, mappings: &Value, keys: &Value) {
    let mut config = Attachment::new(pod, mappings).with("cniVersion", json!("1.0.0")).with("type", json!("portmap"));
    for (key, value) in keys.as_object().unwrap() {
        config = config.with(key, value.clone());
    }
    config.config["prevResult"]["cniVersion"] = json!("1.0.0");
    let netns = format!("/run/netns/{}", pod.name);
    let container = [("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", &netns)];
    let output = run(sandbox::command("/usr/lib/cni/portmap"), "ADD", &container, &config.config.to_string());
    Answer::of(&output).ok();
}

/// libcni's entry of an attachment.
pub fn remember(pod: &Host) {
    fs::create_dir_all("/var/lib/cni/results").unwrap();
    let entry = json!({
        "kind": "cniCacheV1", "containerId": pod.name, "ifName": "eth0", "networkName": "podnet",
        "netns": format!("/run/netns/{}", pod.name),
        "result": { "cniVersion": "1.0.0", "interfaces": [{ "name": pod.link }], "ips": [] },
        "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", format!("web-{}", pod.name)]],
    });
    fs::write(format!("/var/lib/cni/results/podnet-{}-eth0", pod.name), entry.to_string()).unwrap();
}

/// What both iptables have in table nat.
fn iptables() -> String {
    let list = |program: &str| {
        let output = sandbox::command(program).args(["-t", "nat", "-S"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    list("iptables") + &list("ip6tables")
}

fn mappings() -> Value {
    json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 53, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1" },
        { "hostPort": 99, "containerPort": 99, "protocol": "sctp" },
    ])
}

#[track_caller]
fn all_reach(lan: &Host, name: &str) {
    assert_eq!(lan.tcp(NODE_V4[1], 8080), from(name, NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 8080), from(name, NEIGHBOUR_V6));
    assert_eq!(lan.udp(NODE_V4[0], 53), from(name, NEIGHBOUR_V4));
}

#[test]
fn what_debians_portmap_left_is_adopted_and_cleaned() {
    private_host(|| {
        forward();
        let (lan, living, dead) = (lan(), pod(2), pod(3));
        living.serve(80);
        let before = iptables();
        reference_add(&living, &mappings());
        reference_add(&dead, &json!([{ "hostPort": 9090, "containerPort": 80, "protocol": "tcp" }]));
        remember(&living);
        remember(&dead);
        dead.die();
        all_reach(&lan, "pod2");
        let planned = by_hand("adopt --dry-run");
        assert_eq!(planned.0, 0, "{planned:?}");
        assert!(!ruleset().contains("podwire"), "{}", ruleset());
        let (code, stdout, stderr) = by_hand("adopt");
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        assert_eq!(stdout, planned.1);
        assert!(stdout.contains("podnet pod2 eth0: adopted 0.0.0.0:8080/tcp -> 10.88.0.2:80, "), "{stdout}");
        assert!(stdout.contains("podnet pod3 eth0: removed, as its pod is gone ("), "{stdout}");
        // Nothing of the reference plugin is left, in either family.
        assert_eq!(iptables(), before);
        all_reach(&lan, "pod2");
        assert!(!ruleset().contains("9090"), "{}", ruleset());
        let listed = by_hand("list -o json").1;
        assert!(listed.contains("\"podName\": \"web-pod2\""), "{listed}");
        // It is like any other mapping of ours from now on.
        nft(&["flush", "ruleset"]);
        assert_eq!(by_hand("reconcile").0, 0);
        all_reach(&lan, "pod2");
        assert_eq!(by_hand("adopt"), (0, String::new(), "the reference portmap has no mappings here\n".to_owned()));
        Attachment::new(&living, &json!([])).del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn connections_outlive_the_adoption() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        let listener = pod.netns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap()).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4];
            while stream.read_exact(&mut buffer).is_ok() {
                stream.write_all(&buffer).unwrap();
            }
        });
        reference_add(&pod, &json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]));
        let mut stream =
            lan.netns.run(|| TcpStream::connect_timeout(&(NODE_V4[0], 8080).into(), PATIENCE)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut speak = || {
            let mut buffer = [0; 4];
            stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut buffer)).unwrap();
        };
        speak();
        // Without libcni's entry the interface is taken for eth0.
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 0, "{stdout}");
        assert!(!ruleset().contains("CNI-"), "{}", ruleset());
        speak();
    });
}

#[test]
fn what_cannot_be_adopted_stays_and_is_told() {
    private_host(|| {
        forward();
        let (lan, first, second) = (lan(), pod(2), pod(3));
        first.serve(80);
        second.serve(80);
        // Ours had the port first; the reference plugin asks nobody.
        Attachment::new(&first, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        reference_add(&second, &json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]));
        let third = pod(4);
        third.serve(80);
        reference_add(&third, &json!([{ "hostPort": 9090, "containerPort": 80, "protocol": "tcp" }]));
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 1, "{stdout}");
        assert!(
            stdout.contains(
                "podnet pod3 eth0: left as it is: host port 8080/tcp on every IPv4 address is held by container pod2"
            ),
            "{stdout}"
        );
        let left = iptables();
        assert!(left.contains("8080") && !left.contains("9090"), "{left}");
        let listed = by_hand("list").1;
        assert!(listed.contains("10.88.0.2:80") && listed.contains("10.88.0.4:80"), "{listed}");
        assert_eq!(lan.tcp(NODE_V4[0], 9090), from("pod4", NEIGHBOUR_V4));
    });
}

#[test]
fn a_namespace_that_is_not_seen_is_no_death() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        reference_add(&pod, &mappings());
        remember(&pod);
        // As where the runtime mounts them in a namespace of its own.
        let path = "/var/lib/cni/results/podnet-pod2-eth0";
        let entry = fs::read_to_string(path).unwrap().replace("/run/netns/", "/run/elsewhere/");
        fs::write(path, entry).unwrap();
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 0, "{stdout}");
        assert!(stdout.contains("podnet pod2 eth0: adopted 0.0.0.0:8080/tcp"), "{stdout}");
        all_reach(&lan, "pod2");
    });
}

#[test]
fn nobody_is_let_in_whom_the_reference_plugin_kept_out() {
    private_host(|| {
        let [first, second, third] = [2, 3, 4].map(pod);
        let port = |number: u16| json!([{ "hostPort": number, "containerPort": 80, "protocol": "tcp" }]);
        reference_add_with(&first, "pod2", &port(8080), &json!({ "conditionsV4": ["-s", "10.0.0.0/8"] }));
        reference_add_with(&second, "pod3", &port(8081), &json!({ "snat": false }));
        reference_add(&third, &port(8082));
        // As a newer version does with `masqAll`: a mark for whoever it is.
        let listed = iptables();
        let chain = listed.lines().find(|line| line.contains("--to-destination 10.88.0.4:80")).unwrap();
        let chain = chain.split(' ').nth(1).unwrap();
        let rule = format!("-I {chain} 1 -p tcp -m tcp --dport 8082 -j CNI-HOSTPORT-SETMARK");
        feed("iptables-restore", &["--noflush"], &format!("*nat\n{rule}\nCOMMIT\n"));
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 1, "{stdout}");
        assert!(
            stdout.contains("podnet pod2 eth0: left as it is: the rule `CNI-HOSTPORT-DNAT -s 10.0.0.0/8 "),
            "{stdout}"
        );
        let left = iptables();
        assert!(left.contains("8080") && !left.contains("8081") && !left.contains("8082"), "{left}");
        let record = |id: &str| {
            let text = fs::read_to_string(format!("/run/podwire/portmap/podnet:{id}:eth0")).unwrap();
            let record: Value = serde_json::from_str(&text).unwrap();
            [record["config"]["snat"].as_bool().unwrap(), record["config"]["masqAll"].as_bool().unwrap()]
        };
        assert_eq!((record("pod3"), record("pod4")), ([false, false], [true, true]));
        assert!(!ruleset().contains("podnet pod2"), "{}", ruleset());
    });
}

#[test]
fn a_container_on_two_networks_keeps_the_ports_of_both() {
    private_host(|| {
        forward();
        let (lan, one, other) = (lan(), pod(2), pod(3));
        one.serve(80);
        other.serve(80);
        let port = |number: u16| json!([{ "hostPort": number, "containerPort": 80, "protocol": "tcp" }]);
        reference_add(&one, &port(8080));
        reference_add_with(&other, "pod2", &port(8081), &json!({ "name": "othernet" }));
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 0, "{stdout}");
        assert!(!iptables().contains("CNI-"), "{}", iptables());
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod3", NEIGHBOUR_V4));
    });
}

on_each_backend!(what_a_later_add_asked_for_is_not_replaced_by_what_is_older,);

/// A container that was started again, with another address, after the conflist was changed.
fn what_a_later_add_asked_for_is_not_replaced_by_what_is_older(backend: Backend) {
    forward();
    let (lan, old, new) = (lan(), pod(2), pod(3));
    old.serve(80);
    new.serve(80);
    reference_add(&old, &mappings());
    let again = Attachment::new(&new, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    let again = Attachment { container: "pod2".to_owned(), ..again };
    again.add().ok();
    let before = backend.rules();
    let record = fs::read_to_string("/run/podwire/portmap/podnet:pod2:eth0").unwrap();
    let (code, stdout, _) = by_hand("adopt");
    assert_eq!(code, 0, "{stdout}");
    let shown = "podnet pod2 eth0: removed, as a later ADD came to podwire-portmap: 0.0.0.0:8080/tcp -> 10.88.0.2:80, ";
    assert!(stdout.contains(shown), "{stdout}");
    // Only the reference plugin's rules have gone.
    assert!(!iptables().contains("CNI-"), "{}", iptables());
    let ours = |rules: &str| rules.lines().filter(|line| !line.contains("CNI-")).collect::<Vec<_>>().join("\n");
    if backend != Backend::Nftables {
        assert_eq!(ours(&backend.rules()), ours(&before));
    }
    assert_eq!(fs::read_to_string("/run/podwire/portmap/podnet:pod2:eth0").unwrap(), record);
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 8080), from("pod3", NEIGHBOUR_V6));
    again.check().ok();
}

/// As version 1.9 writes it: one rule for each mapping, its comment the container id.
const NFTABLES: &str = r#"
table ip cni_hostport {
    comment "CNI portmap plugin"
    chain hostports {
        tcp dport 8080 dnat to 10.88.0.2:80 comment "pod2"
    }
    chain hostip_hostports {
        ip daddr 192.0.2.1 udp dport 53 dnat to 10.88.0.2:80 comment "pod2"
    }
    chain hostports_all { jump hostip_hostports; jump hostports; }
    chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump hostports_all; }
    chain output { type nat hook output priority -100; fib daddr type local jump hostports_all; }
    chain masquerading { type nat hook postrouting priority srcnat; ip saddr 10.88.0.2 ip daddr 10.88.0.2 masquerade comment "pod2"; }
}
table ip6 cni_hostport {
    chain hostports {
        tcp dport 8080 dnat to [fd88::2]:80 comment "pod2"
    }
    chain hostip_hostports { }
    chain masquerading { type nat hook postrouting priority srcnat; ip6 saddr fd88::2 ip6 daddr fd88::2 masquerade comment "pod2"; }
    chain hostports_all { jump hostip_hostports; jump hostports; }
    chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump hostports_all; }
}
"#;

#[test]
fn what_its_nftables_backend_left_is_adopted_and_cleaned() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        fs::write("/run/reference.nft", NFTABLES).unwrap();
        nft(&["-f", "/run/reference.nft"]);
        all_reach(&lan, "pod2");
        // Its rules do not tell the network.
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 1, "{stdout}");
        assert!(
            stdout.contains("container pod2: left as it is: nothing tells which network container pod2 is on"),
            "{stdout}"
        );
        assert!(ruleset().contains("cni_hostport"));
        remember(&pod);
        let (code, stdout, _) = by_hand("adopt -o json");
        assert_eq!(code, 0, "{stdout}");
        let document: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(document["items"][0]["attachment"], "podnet pod2 eth0");
        assert_eq!(document["items"][0]["mappings"].as_array().unwrap().len(), 3);
        assert!(!ruleset().contains("cni_hostport"), "{}", ruleset());
        all_reach(&lan, "pod2");
    });
}

/// `masqAll`: without it a pod that has no way back to its clients would be cut off.
#[test]
fn clients_that_its_nftables_backend_masquerades_stay_so() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        load(
            &NFTABLES
                .replace("ip saddr 10.88.0.2 ", "ip saddr 0.0.0.0/0 ")
                .replace("ip6 saddr fd88::2 ", "ip6 saddr ::/0 "),
        );
        remember(&pod);
        // As older versions of libcni keep it.
        fs::create_dir("/var/lib/cni/cache").unwrap();
        fs::rename("/var/lib/cni/results", "/var/lib/cni/cache/results").unwrap();
        let check = || {
            assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]));
            let (name, seen) = lan.tcp(NODE_V6[0], 8080).unwrap();
            assert!(name == "pod2" && NODE_V6.iter().any(|node| seen == *node), "{name} saw {seen}");
        };
        check();
        assert_eq!(by_hand("adopt").0, 0);
        assert!(!ruleset().contains("cni_hostport"), "{}", ruleset());
        check();
    });
}

/// As its source has it since: conditions stand before the jumps, for all mappings of the table.
fn limited(conditions: &str, of_hairpin: &str) -> String {
    format!(
        "table ip cni_hostport {{
            chain hostports {{
                tcp dport 8080 dnat to 10.88.0.2:80 comment \"pod2\"
                tcp dport 8081 dnat to 10.88.0.3:80 comment \"pod2\"
            }}
            chain hostip_hostports {{ }}
            chain prerouting {{
                type nat hook prerouting priority dstnat
                {conditions} jump hostip_hostports
                {conditions} jump hostports
            }}
            chain masquerading {{ type nat hook postrouting priority srcnat; {of_hairpin} }}
        }}"
    )
}

fn load(text: &str) {
    fs::write("/run/reference.nft", text).unwrap();
    nft(&["-f", "/run/reference.nft"]);
}

#[test]
fn nobody_is_let_in_whom_its_nftables_backend_kept_out() {
    private_host(|| {
        let pod = pod(2);
        remember(&pod);
        for conditions in ["ip saddr 10.0.0.0/8", "iifname \"eth9\"", "meta mark 7"] {
            load(&limited(conditions, ""));
            let before = ruleset();
            let (code, stdout, _) = by_hand("adopt");
            assert_eq!(code, 1, "{stdout}");
            assert!(
                stdout.contains("podnet pod2 eth0: left as it is: the rule `ip cni_hostport prerouting`"),
                "{stdout}"
            );
            assert_eq!(ruleset(), before);
            nft(&["delete", "table", "ip", "cni_hostport"]);
        }
    });
}

#[test]
fn a_container_on_two_networks_of_its_nftables_backend_keeps_the_ports_of_both() {
    private_host(|| {
        forward();
        let (lan, one, other) = (lan(), pod(2), pod(3));
        one.serve(80);
        other.serve(80);
        let hairpin = "ip saddr 10.88.0.2 ip daddr 10.88.0.2 masquerade comment \"pod2\";";
        load(&limited("", hairpin));
        // What tells nothing of addresses tells nothing apart.
        remember(&one);
        let second = "/var/lib/cni/results/othernet-pod2-eth1";
        let entry = |network: &str, ifname: &str, address: Option<&str>| {
            let text = fs::read_to_string("/var/lib/cni/results/podnet-pod2-eth0").unwrap();
            let mut entry: Value = serde_json::from_str(&text).unwrap();
            entry["networkName"] = json!(network);
            entry["ifName"] = json!(ifname);
            entry["result"]["ips"] = address.map_or_else(|| json!([]), |address| json!([{ "address": address }]));
            entry.to_string()
        };
        fs::write(second, entry("othernet", "eth1", None)).unwrap();
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 1, "{stdout}");
        assert!(ruleset().contains("cni_hostport") && !ruleset().contains("podwire"), "{}", ruleset());
        fs::write(second, entry("othernet", "eth1", Some("10.88.0.3/32"))).unwrap();
        fs::write("/var/lib/cni/results/podnet-pod2-eth0", entry("podnet", "eth0", Some("10.88.0.2/32"))).unwrap();
        let (code, stdout, _) = by_hand("adopt");
        assert_eq!(code, 0, "{stdout}");
        assert!(!ruleset().contains("cni_hostport"), "{}", ruleset());
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod3", NEIGHBOUR_V4));
        let snat = |name: &str| {
            let text = fs::read_to_string(format!("/run/podwire/portmap/{name}")).unwrap();
            let record: Value = serde_json::from_str(&text).unwrap();
            record["config"]["snat"].as_bool().unwrap()
        };
        assert!(snat("podnet:pod2:eth0"));
    });
}

#[test]
fn rules_of_the_reference_plugin_for_the_same_port_are_shown() {
    private_host(|| {
        forward();
        let (lan, old, new) = (lan(), pod(2), pod(3));
        old.serve(80);
        new.serve(80);
        reference_add(&old, &json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]));
        Attachment::new(&new, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        // The table that was made last comes first.
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
        let (code, stdout, _) = by_hand("trace 192.0.2.1:8080");
        assert_eq!(code, 0, "{stdout}");
        assert!(
            stdout.contains(
                "the reference portmap has rules for the same port: 0.0.0.0:8080/tcp -> 10.88.0.2:80 of container pod2"
            ),
            "{stdout}"
        );
        assert!(stdout.contains("-> if packets go there: podwire-portmap adopt"), "{stdout}");
    });
}
