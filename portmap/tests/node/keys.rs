//! What the static keys do to packets, and to one another: on each backend.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::backend::Backend;
use crate::common::net::{self, Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, forward, from, lan, pod};
use crate::common::plugin::{Attachment, feed};
use kernel::sysctl;
use serde_json::{Value, json};

on_each_backend!(
    masq_all_hides_every_client_and_only_of_host_ports,
    conditions_hold_for_their_network_only,
    conditions_can_be_in_either_language,
    one_port_can_be_mapped_under_conditions_that_exclude_each_other,
    localhost_can_be_switched_off,
    a_mark_changes_nothing_for_packets,
    several_host_ips_protocols_and_ports_lead_to_several_pods,
    what_another_backend_left_is_removed,
    a_port_that_is_held_in_another_backend_is_held,
    conditions_share_no_port_across_backends,
);

on_iptables!(a_mark_chain_that_is_not_there_is_named_and_nothing_is_left,);

const REFUSED: net::Answer = Err(ErrorKind::ConnectionRefused);

fn mapping(host_port: u16) -> Value {
    json!([{ "hostPort": host_port, "containerPort": 80 }])
}

fn name(answer: net::Answer) -> Result<String, ErrorKind> {
    answer.map(|(name, _)| name)
}

fn masq_all_hides_every_client_and_only_of_host_ports(backend: Backend) {
    forward();
    let (lan, hidden, open) = (lan(), pod(2), pod(3));
    hidden.serve(80);
    open.serve(80);
    Attachment::new(&hidden, &mapping(8080)).with("masqAll", json!(true)).on(backend).add().ok();
    let second = Attachment::new(&open, &mapping(8081)).with("name", json!("second")).on(backend);
    second.add().ok();
    let (v4, v6): (IpAddr, IpAddr) = (NODE_V4[0].into(), NODE_V6[0].into());
    for client in [&lan, &open] {
        for node in [v4, v6] {
            let (name, seen) = client.tcp(node, 8080).unwrap();
            let own = if node == v4 { NODE_V4.map(IpAddr::from) } else { NODE_V6.map(IpAddr::from) };
            assert!(name == "pod2" && own.contains(&seen), "{name} saw {seen}");
        }
    }
    assert_eq!(name(net::tcp(Ipv4Addr::LOCALHOST, 8080)), Ok("pod2".to_owned()));
    assert_eq!(name(hidden.tcp(v4, 8080)), Ok("pod2".to_owned()));
    // Another network's clients are seen, and so are those who come by no host port.
    assert_eq!(lan.tcp(v4, 8081), from("pod3", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(hidden.v4, 80), from("pod2", NEIGHBOUR_V4));
    assert_eq!(open.tcp(hidden.v6, 80), from("pod2", open.v6));
}

fn conditions_hold_for_their_network_only(backend: Backend) {
    forward();
    let (lan, limited, open) = (lan(), pod(2), pod(3));
    limited.serve(80);
    open.serve(80);
    let limited_too = |attachment: Attachment| {
        let attachment = attachment.with("conditionsV4", json!(["-s", "10.88.0.0/16"]));
        attachment.with("conditionsV6", json!(["-s", "fd88::/64", "!", "-d", NODE_V6[1].to_string()])).on(backend)
    };
    let first = limited_too(Attachment::new(&limited, &mapping(8080)));
    let second = Attachment::new(&open, &mapping(8081)).with("name", json!("second")).on(backend);
    let check = || {
        assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
        assert_eq!(lan.tcp(NODE_V6[0], 8080), REFUSED);
        assert_eq!(open.tcp(NODE_V4[0], 8080), from("pod2", open.v4));
        assert_eq!(open.tcp(NODE_V6[0], 8080), from("pod2", open.v6));
        assert_eq!(open.tcp(NODE_V6[1], 8080), REFUSED);
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod3", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V6[0], 8081), from("pod3", NEIGHBOUR_V6));
    };
    // Whichever network comes last, and stays last.
    first.add().ok();
    second.add().ok();
    check();
    first.del().ok();
    assert_eq!(open.tcp(NODE_V4[0], 8080), REFUSED);
    first.add().ok();
    check();
    first.check().ok();
    second.check().ok();
    // The port is held within its network.
    let third = limited_too(Attachment::new(&open, &mapping(8080)));
    assert_eq!(third.add().failed().0, crate::common::plugin::HELD);
    first.del().ok();
    second.del().ok();
    assert!(!backend.rules().contains("odwire") && !backend.rules().contains("PODWIRE"), "{}", backend.rules());
}

fn conditions_can_be_in_either_language(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    for (words, in_by_lan) in [
        (json!(["-i", "to-lan"]), true),
        (json!(["!", "-i", "to-l+"]), false),
        (json!(["iifname", "to-lan"]), true),
        (json!(["iifname != \"to-lan\""]), false),
        (json!(["ip", "saddr", "!=", "192.0.2.0/24"]), false),
        (json!(["ip saddr 192.0.2.0/25 ip daddr 192.0.2.1"]), true),
        (json!(["!", "--src", "192.0.2.9"]), false),
    ] {
        let attachment = Attachment::new(&pod, &mapping(8080)).with("conditionsV4", words.clone()).on(backend);
        attachment.add().ok();
        let expected = if in_by_lan { from("pod2", NEIGHBOUR_V4) } else { REFUSED };
        assert_eq!(lan.tcp(NODE_V4[0], 8080), expected, "{words}");
        attachment.check().ok();
        attachment.del().ok();
    }
}

fn one_port_can_be_mapped_under_conditions_that_exclude_each_other(backend: Backend) {
    forward();
    let (lan, inner, outer, rest) = (lan(), pod(2), pod(3), pod(4));
    [&inner, &outer, &rest].iter().for_each(|pod| pod.serve(80));
    let under = |pod: &Host, network: &str, words: Value| {
        let ports = json!([{ "hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0" }]);
        let attachment = Attachment::new(pod, &ports).with("name", json!(network));
        attachment.with("conditionsV4", words).on(backend)
    };
    let first = under(&outer, "outside", json!(["-i", "to-lan"]));
    let second = under(&inner, "inside", json!(["-s", "10.88.0.0/16"]));
    let third = under(&rest, "rest", json!([]));
    for order in [[&first, &second, &third], [&third, &second, &first]] {
        order.iter().for_each(|attachment| drop(attachment.add().ok()));
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
        assert_eq!(rest.tcp(NODE_V4[0], 8080), from("pod2", rest.v4));
        assert_eq!(net::tcp(NODE_V4[0], 8080), from("pod4", NODE_V4[0]));
        order.iter().for_each(|attachment| drop(attachment.del().ok()));
    }
}

fn localhost_can_be_switched_off(backend: Backend) {
    forward();
    let (lan, off, on) = (lan(), pod(2), pod(3));
    off.serve(80);
    on.serve(80);
    Attachment::new(&off, &mapping(8080)).with("localhost", json!(false)).on(backend).add().ok();
    Attachment::new(&on, &mapping(8081)).with("name", json!("second")).on(backend).add().ok();
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080), REFUSED);
    assert_eq!(net::tcp(Ipv6Addr::LOCALHOST, 8080), REFUSED);
    assert_eq!(name(net::tcp(Ipv6Addr::LOCALHOST, 8081)), Ok("pod3".to_owned()));
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(net::tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]));
    assert_eq!(name(off.tcp(NODE_V4[0], 8080)), Ok("pod2".to_owned()));
    assert_eq!(name(net::tcp(Ipv4Addr::LOCALHOST, 8081)), Ok("pod3".to_owned()));
    let localnet = |pod: &Host| sysctl::get(&format!("net/ipv4/conf/{}/route_localnet", pod.link)).unwrap();
    assert_eq!((localnet(&off).as_str(), localnet(&on).as_str()), ("0", "112"));
}

fn a_mark_changes_nothing_for_packets(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    // A chain of somebody else's, who masquerades what it marks.
    for program in ["iptables", "ip6tables"] {
        let restore = format!("{program}{}-restore", &backend.iptables()["iptables".len()..]);
        feed(
            &restore,
            &["--noflush"],
            "*nat\n:THEIR-MARK - [0:0]\n-A THEIR-MARK -j MARK --set-xmark 0x4000/0x4000\n\
             -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\nCOMMIT\n",
        );
    }
    let keys = [("markMasqBit", json!(13)), ("markMasqBit", json!(5)), ("externalSetMarkChain", json!("THEIR-MARK"))];
    for (key, value) in keys {
        if backend == Backend::Nftables && key == "externalSetMarkChain" {
            continue;
        }
        let attachment = Attachment::new(&pod, &mapping(8080)).with(key, value.clone()).on(backend);
        attachment.add().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4), "{key}={value}");
        assert_eq!(pod.tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]), "{key}={value}");
        assert_eq!(name(pod.tcp(NODE_V6[0], 8080)), Ok("pod2".to_owned()), "{key}={value}");
        assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080), from("pod2", NODE_V4[0]), "{key}={value}");
        assert_eq!(name(net::tcp(Ipv6Addr::LOCALHOST, 8080)), Ok("pod2".to_owned()), "{key}={value}");
        attachment.check().ok();
        let attachment = attachment.with("masqAll", json!(true));
        attachment.add().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]), "masqAll, {key}={value}");
        attachment.check().ok();
        attachment.del().ok();
        assert!(!backend.rules().contains("PODWIRE"), "{}", backend.rules());
    }
}

/// Also where it is there in IPv4 alone, whose rules are written first.
fn a_mark_chain_that_is_not_there_is_named_and_nothing_is_left(backend: Backend) {
    let attachment = Attachment::new(&pod(2), &mapping(8080)).on(backend).with("externalSetMarkChain", json!("THEIRS"));
    let expected = "failed to change the rules of host ports, which lead to externalSetMarkChain=\"THEIRS\": it must be there in \
                    table nat, in each family that is mapped";
    let refused = || {
        let (code, msg, details) = attachment.add().failed();
        assert_eq!((code, msg.as_str()), (5, expected));
        assert!(details.contains("tables-restore failed"), "{details}");
        assert_eq!(backend.rules(), "");
        assert!(!std::fs::exists("/run/podwire/portmap").unwrap());
    };
    refused();
    for (program, is_enough) in [("iptables", false), ("ip6tables", true)] {
        let restore = format!("{program}{}-restore", &backend.iptables()["iptables".len()..]);
        feed(&restore, &["--noflush"], "*nat\n:THEIRS - [0:0]\nCOMMIT\n");
        if is_enough {
            attachment.add().ok();
        } else {
            refused();
        }
    }
    attachment.check().ok();
}

fn several_host_ips_protocols_and_ports_lead_to_several_pods(backend: Backend) {
    forward();
    let (lan, one, two, three) = (lan(), pod(2), pod(3), pod(4));
    for pod in [&one, &two, &three] {
        (80..83).for_each(|port| pod.serve(port));
    }
    let port = |host_ip: IpAddr, protocol: &str, host: u16, container: u16| json!({ "hostIP": host_ip, "protocol": protocol, "hostPort": host, "containerPort": container });
    // One port: by address and by protocol. Three ports: a range, as runtimes write it out.
    let (a, b): (IpAddr, IpAddr) = (NODE_V4[0].into(), NODE_V4[1].into());
    let (c, d): (IpAddr, IpAddr) = (NODE_V6[0].into(), NODE_V6[1].into());
    let of = |first: IpAddr, second: IpAddr| {
        let mut ports = vec![port(first, "tcp", 53, 80), port(second, "tcp", 53, 80)];
        for address in [first, second] {
            ports.extend((0..3).map(|n| port(address, "udp", 7000 + n, 80 + n)));
            ports.extend((0..3).map(|n| port(address, "tcp", 7100 + n, 80 + n)));
        }
        json!(ports)
    };
    Attachment::new(&one, &of(a, c)).on(backend).add().ok();
    let other = Attachment::new(&two, &of(b, d)).on(backend);
    other.add().ok();
    let udp = Attachment::new(&three, &json!([port(a, "udp", 53, 81), port(c, "udp", 53, 81)]));
    udp.on(backend).add().ok();
    for (address, pod) in [(a, "pod2"), (c, "pod2"), (b, "pod3"), (d, "pod3")] {
        assert_eq!(name(lan.tcp(address, 53)), Ok(pod.to_owned()), "{address}");
    }
    for address in [a, c] {
        assert_eq!(name(lan.udp(address, 53)), Ok("pod4".to_owned()), "{address}");
    }
    for n in 0..3 {
        for (address, pod) in [(a, "pod2"), (c, "pod2"), (b, "pod3"), (d, "pod3")] {
            assert_eq!(name(lan.udp(address, 7000 + n)), Ok(pod.to_owned()), "{address} {n}");
            assert_eq!(name(lan.tcp(address, 7100 + n)), Ok(pod.to_owned()), "{address} {n}");
        }
    }
    assert_eq!(lan.tcp(a, 7000), REFUSED);
    other.check().ok();
    other.del().ok();
    assert_eq!(lan.tcp(b, 53), REFUSED);
    assert_eq!(name(lan.tcp(a, 53)), Ok("pod2".to_owned()));
}

/// Networks of one node may use different backends.
fn a_port_that_is_held_in_another_backend_is_held(backend: Backend) {
    forward();
    let (lan, one, two) = (lan(), pod(2), pod(3));
    one.serve(80);
    two.serve(80);
    let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
    let first = Attachment::new(&one, &mapping(8080)).on(other);
    first.add().ok();
    let second = Attachment::new(&two, &mapping(8080)).with("name", json!("second")).on(backend);
    let (code, msg, _) = second.add().failed();
    assert_eq!(code, crate::common::plugin::HELD);
    assert!(msg.contains("container pod2 (eth0) of network podnet"), "{msg}");
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    // What is its own, from before its config changed, moves with it.
    let first = first.on(backend);
    first.add().ok();
    assert!(!other.rules().contains("pod2"), "{}", other.rules());
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 8080), from("pod2", NEIGHBOUR_V6));
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080), from("pod2", NODE_V4[0]));
    first.check().ok();
    first.del().ok();
    second.add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
}

/// Of two backends it is chance which one packets meet first, so conditions do not tell mappings apart there.
fn conditions_share_no_port_across_backends(backend: Backend) {
    let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
    let own = Attachment::new(&pod(2), &mapping(8080)).on(other);
    own.add().ok();
    let limited = Attachment::new(&pod(3), &mapping(8080)).with("name", json!("limited"));
    let limited = limited.with("conditionsV4", json!(["-s", "192.0.2.0/24"]));
    let limited = limited.with("conditionsV6", json!(["-s", "2001:db8::/64"])).on(other);
    limited.add().ok();
    let (code, msg, _) = own.on(backend).add().failed();
    assert_eq!(code, crate::common::plugin::HELD);
    assert!(msg.contains("container pod3 (eth0) of network limited"), "{msg}");
    limited.check().ok();
}

#[test]
fn a_port_that_is_held_in_another_flavour_is_held() {
    sandbox::private_host(|| {
        forward();
        let (lan, one, two) = (lan(), pod(2), pod(3));
        one.serve(80);
        two.serve(80);
        let [first, second] = [&one, &two].map(|pod| Attachment::new(pod, &mapping(8080)).on(Backend::IptablesNft));
        first.add().ok();
        // The administrator chooses the other one.
        let chosen = Backend::IptablesLegacy.prepared();
        let (code, msg, _) = second.add().failed();
        assert_eq!(code, crate::common::plugin::HELD);
        assert!(msg.contains("container pod2 (eth0) of network podnet"), "{msg}");
        assert_eq!((chosen.rules().as_str(), name(lan.tcp(NODE_V4[0], 8080))), ("", Ok("pod2".to_owned())));
        // What it has under another port moves along as well.
        Attachment::new(&one, &mapping(8081)).on(chosen).add().ok();
        assert_eq!(Backend::IptablesNft.rules(), "");
        second.add().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod2", NEIGHBOUR_V4));
    });
}

#[test]
fn what_was_mapped_under_other_conditions_is_replaced() {
    sandbox::private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let before = Attachment::new(&pod, &mapping(8080)).with("conditionsV4", json!(["-s", "192.0.2.0/24"]));
        before.add().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        let after = Attachment::new(&pod, &mapping(8081));
        after.add().ok();
        after.check().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod2", NEIGHBOUR_V4));
        after.del().ok();
        assert!(!Backend::Nftables.rules().contains("odwire"), "{}", Backend::Nftables.rules());
    });
}

/// The config, or what the node has, may have changed between ADD and DEL.
fn what_another_backend_left_is_removed(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let attachment = Attachment::new(&pod, &mapping(8080)).on(backend);
    attachment.add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
    // DEL is told nothing; GC neither.
    attachment.on(other).del().ok();
    assert!(!backend.rules().contains("odwire") && !backend.rules().contains("PODWIRE"), "{}", backend.rules());
    Attachment::new(&pod, &mapping(8080)).on(backend).add().ok();
    crate::common::plugin::gc("podnet", &[]).ok();
    assert!(!backend.rules().contains("odwire") && !backend.rules().contains("PODWIRE"), "{}", backend.rules());
    // An ADD without host ports ends an earlier one, wherever it was.
    Attachment::new(&pod, &mapping(8080)).on(backend).add().ok();
    Attachment::new(&pod, &json!([])).on(other).add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
}
