//! What host ports must not touch, and whom they must not let in.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::common::backend::Backend;
use crate::common::net::{self, Host, NEIGHBOUR_V4, NODE_V4, NODE_V6, PATIENCE, forward, from, lan, pod};
use crate::common::plugin::{Attachment, nft};
use kernel::sysctl;
use serde_json::json;

on_each_backend!(
    neighbours_cannot_use_what_lets_the_node_reach_pods_by_127_0_0_1,
    neighbours_cannot_use_what_lets_the_node_reach_pods_by_the_ipv6_loopback,
    forwarded_traffic_to_the_same_port_goes_where_it_was_sent,
    other_ports_of_the_node_stay_its_own,
    what_others_translate_on_the_loopback_keeps_its_source,
    a_client_behind_a_pod_address_is_not_hidden,
);

/// A neighbour sends to, or claims to come from, 127.0.0.0/8 of the node, which listens on every address. Then it
/// sends an honest datagram, which comes last: so what is missing was dropped.
fn received(neighbour: &Host, node: Ipv4Addr) -> Vec<String> {
    let service = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 10250)).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let send = |source: Ipv4Addr, target: Ipv4Addr, text: &str| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.send_to(text.as_bytes(), (target, 10250)).unwrap();
    };
    let all = || {
        send(Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, "to 127.0.0.1");
        send(Ipv4Addr::new(127, 0, 0, 2), node, "from 127.0.0.2");
        send(Ipv4Addr::UNSPECIFIED, node, "honest");
    };
    neighbour.netns.run(|| sandbox::on_one_processor(all)).unwrap();
    let mut texts = Vec::new();
    let mut buffer = [0; 64];
    while texts.last().is_none_or(|text| text != "honest") {
        let length = service.recv(&mut buffer).unwrap();
        texts.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    texts
}

/// Makes a namespace send to 127.0.0.0/8, and from there, by its `eth0`: root in a pod can.
fn disguise(host: &Host, gateway: IpAddr) {
    host.sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    let moved = host.netns.run(|| {
        let ip = |arguments: &[&str]| sandbox::command("ip").args(arguments).status().unwrap().success();
        // The address 127.0.0.2 stays usable, and nothing else of the network is local any more.
        ip(&["address", "add", "127.0.0.2/32", "dev", "lo"])
            && ip(&["address", "delete", "127.0.0.1/8", "dev", "lo"])
            && ip(&["route", "add", "127.0.0.1/32", "via", &gateway.to_string(), "dev", "eth0", "onlink"])
    });
    assert!(moved.unwrap());
}

fn neighbours_cannot_use_what_lets_the_node_reach_pods_by_127_0_0_1(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    disguise(&pod, Ipv4Addr::new(169, 254, 1, 1).into());
    disguise(&lan, NODE_V4[0].into());
    // The kernel itself keeps them out of an interface until route_localnet is set there.
    assert_eq!(received(&pod, NODE_V4[0]), ["honest"]);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080), from("pod2", NODE_V4[0]));
    assert_eq!(received(&pod, NODE_V4[0]), ["honest"]);
    sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", lan.link), "1").unwrap();
    assert_eq!(received(&lan, NODE_V4[0]), ["honest"]);
    // Without the guard they would have come in: so it is the guard that the assertions above are about.
    if backend == Backend::Nftables {
        nft(&["flush", "chain", "ip", "podwire-hostport", "guard"]);
    } else {
        let flushed = sandbox::command(backend.iptables()).args(["-t", "raw", "-F", "PODWIRE-GUARD"]).status();
        assert!(flushed.unwrap().success());
    }
    assert_eq!(received(&pod, NODE_V4[0]), ["to 127.0.0.1", "from 127.0.0.2", "honest"]);
    assert_eq!(received(&lan, NODE_V4[0]), ["to 127.0.0.1", "from 127.0.0.2", "honest"]);
}

fn neighbours_cannot_use_what_lets_the_node_reach_pods_by_the_ipv6_loopback(backend: Backend) {
    forward();
    let (_lan, pod) = (lan(), pod(2));
    pod.serve(80);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    let loopback = Ipv6Addr::LOCALHOST;
    assert_eq!(net::tcp(loopback, 8080).map(|(name, _)| name), Ok("pod2".to_owned()));
    // Root in a pod sends to ::1 by eth0, and from there; the node sees both come in.
    nft(&["add", "table", "netdev", "seen"]);
    let ingress = "{ type filter hook ingress device to-pod2 priority 0; }";
    nft(&["add", "chain", "netdev", "seen", "ingress", ingress]);
    for end in ["daddr", "saddr"] {
        nft(&["add", "rule", "netdev", "seen", "ingress", "ip6", end, "::1", "counter"]);
    }
    let service = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 10250)).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let send = |source: Ipv6Addr, target: Ipv6Addr, text: &str| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.send_to(text.as_bytes(), (target, 10250)).unwrap();
    };
    let all = || {
        send(loopback, NODE_V6[0], "from ::1");
        let ip = |arguments: &str| sandbox::command("ip").args(arguments.split(' ')).status().unwrap().success();
        let moved =
            ip("-6 route delete local ::1 dev lo table local") && ip("-6 route add ::1 via fe80::1 dev eth0 onlink");
        send(pod.v6, loopback, "to ::1");
        send(pod.v6, NODE_V6[0], "honest");
        moved
    };
    assert!(pod.netns.run(|| sandbox::on_one_processor(all)).unwrap());
    let mut buffer = [0; 64];
    let length = service.recv(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]), Ok("honest"));
    let seen = nft(&["list", "table", "netdev", "seen"]);
    assert_eq!(seen.matches("packets 1 ").count(), 2, "{seen}");
}

fn forwarded_traffic_to_the_same_port_goes_where_it_was_sent(backend: Backend) {
    forward();
    let lan = lan();
    let (mapped, other) = (pod(2), pod(3));
    mapped.serve(80);
    other.serve(8080);
    Attachment::new(&mapped, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(other.v4, 8080), from("pod3", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(other.v6, 8080), from("pod3", lan.v6));
    assert_eq!(mapped.tcp(other.v4, 8080), from("pod3", mapped.v4));
    assert_eq!(mapped.udp(other.v6, 8080), from("pod3", mapped.v6));
    assert_eq!(net::tcp(other.v4, 8080).map(|(name, _)| name), Ok("pod3".to_owned()));
    // What listens on the neighbour is not the node's either.
    lan.serve(8080);
    assert_eq!(mapped.tcp(lan.v4, 8080), from("lan", mapped.v4));
    assert_eq!(net::tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]));
}

fn other_ports_of_the_node_stay_its_own(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    net::serve("node", 22);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 22), from("node", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 22), from("node", lan.v6));
    assert_eq!(lan.udp(NODE_V4[0], 22), from("node", NEIGHBOUR_V4));
    assert_eq!(pod.tcp(NODE_V4[0], 22), from("node", pod.v4));
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 22), from("node", Ipv4Addr::LOCALHOST));
    assert_eq!(lan.tcp(NODE_V6[0], 80), Err(ErrorKind::ConnectionRefused));
}

fn what_others_translate_on_the_loopback_keeps_its_source(backend: Backend) {
    forward();
    let (_lan, pod) = (lan(), pod(2));
    net::serve("node", 22);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    nft(&["add", "table", "ip", "others"]);
    nft(&["add", "chain", "ip", "others", "output", "{ type nat hook output priority -90; }"]);
    nft(&["add", "rule", "ip", "others", "output", "tcp", "dport", "2222", "dnat", "to", "127.0.0.1:22"]);
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 2222), from("node", Ipv4Addr::LOCALHOST));
}

fn a_client_behind_a_pod_address_is_not_hidden(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    let peer = UdpSocket::bind(SocketAddr::from((NODE_V6[0], 5353))).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    lan.serve(80);
    // What the pod itself begins leaves with its own address: host ports masquerade nothing else.
    assert_eq!(pod.tcp(lan.v4, 80), from("lan", pod.v4));
    pod.netns.run(|| UdpSocket::bind((pod.v6, 0)).unwrap().send_to(b"?", (NODE_V6[0], 5353)).unwrap()).unwrap();
    assert_eq!(peer.recv_from(&mut [0; 8]).unwrap().1.ip(), IpAddr::from(pod.v6));
}
