//! Real packets: who is reached by which address and port, and whom the pod sees.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use crate::common::backend::Backend;
use crate::common::net::{self, Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, forward, from, lan, pod};
use crate::common::plugin::Attachment;
use serde_json::json;

on_each_backend!(
    tcp_and_udp_reach_the_pod_by_both_families_and_see_the_client,
    one_protocol_is_not_the_other,
    the_node_reaches_the_pod_by_its_own_addresses,
    the_node_reaches_the_pod_by_the_ipv6_loopback,
    host_ip_is_honoured,
    a_loopback_host_ip_is_for_the_node_alone,
    an_exact_mapping_wins_over_a_wildcard_one_whichever_came_first,
    a_pod_reaches_itself_and_others_through_the_node,
    without_snat_clients_are_served_and_no_source_is_replaced,
);

const REFUSED: net::Answer = Err(ErrorKind::ConnectionRefused);

fn tcp_and_udp_reach_the_pod_by_both_families_and_see_the_client(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
    ]);
    assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
    Attachment::new(&pod, &ports).on(backend).add().ok();
    for node in NODE_V4 {
        assert_eq!(lan.tcp(node, 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.udp(node, 8080), from("pod2", NEIGHBOUR_V4));
    }
    for node in NODE_V6 {
        assert_eq!(lan.tcp(node, 8080), from("pod2", NEIGHBOUR_V6));
        assert_eq!(lan.udp(node, 8080), from("pod2", NEIGHBOUR_V6));
    }
    // The pod's port is not the node's.
    assert_eq!(lan.tcp(NODE_V4[0], 80), REFUSED);
}

fn one_protocol_is_not_the_other(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "udp" }]))
        .on(backend)
        .add()
        .ok();
    assert_eq!(lan.udp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
}

fn the_node_reaches_the_pod_by_its_own_addresses(backend: Backend) {
    forward();
    let (_lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
    ]);
    Attachment::new(&pod, &ports).on(backend).add().ok();
    for ask in [net::tcp::<IpAddr>, net::udp::<IpAddr>] {
        assert_eq!(ask(NODE_V4[0].into(), 8080), from("pod2", NODE_V4[0]));
        assert_eq!(ask(NODE_V6[1].into(), 8080), from("pod2", NODE_V6[1]));
        // 127.0.0.1 is nowhere outside: the pod sees the address that leads to it.
        assert_eq!(ask(Ipv4Addr::LOCALHOST.into(), 8080), from("pod2", NODE_V4[0]));
        assert_eq!(ask(Ipv4Addr::new(127, 1, 2, 3).into(), 8080), from("pod2", NODE_V4[0]));
    }
}

fn the_node_reaches_the_pod_by_the_ipv6_loopback(backend: Backend) {
    forward();
    let (_lan, pod, limited) = (lan(), pod(2), pod(3));
    pod.serve(80);
    limited.serve(80);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
    ]);
    let attachment = Attachment::new(&pod, &ports).on(backend);
    attachment.add().ok();
    let only = json!([{ "hostPort": 8081, "containerPort": 80, "hostIP": "::1" }]);
    Attachment::new(&limited, &only).on(backend).add().ok();
    let loopback = std::net::Ipv6Addr::LOCALHOST;
    let reached = |(name, seen): (String, IpAddr)| (name, NODE_V6.iter().any(|node| seen == *node));
    // The pod sees an address of the node: it could not answer ::1.
    assert_eq!(net::tcp(loopback, 8080).map(reached), Ok(("pod2".to_owned(), true)));
    assert_eq!(net::udp(loopback, 8080).map(reached), Ok(("pod2".to_owned(), true)));
    assert_eq!(net::tcp(loopback, 8081).map(reached), Ok(("pod3".to_owned(), true)));
    assert_eq!(net::tcp(NODE_V6[0], 8081), REFUSED);
    // What listens there itself is still there.
    net::serve("node", 22);
    assert_eq!(net::tcp(loopback, 22), from("node", loopback));
    attachment.check().ok();
    // The interface stays, as that of a bridge would: the way back does not.
    attachment.del().ok();
    assert_eq!(net::tcp(loopback, 8080), REFUSED);
    let ways = |link: &str| {
        let routes =
            sandbox::command("ip").args(["-6", "route", "show", "table", "local", "dev", link]).output().unwrap();
        String::from_utf8(routes.stdout).unwrap().lines().filter(|line| line.contains("local ::1 ")).count()
    };
    assert_eq!((ways(&pod.link), ways(&limited.link)), (0, 1));
}

fn host_ip_is_honoured(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "hostIP": NODE_V4[1] },
        { "hostPort": 8080, "containerPort": 80, "hostIP": NODE_V6[1] },
        { "hostPort": 9090, "containerPort": 80, "hostIP": "0.0.0.0" },
        { "hostPort": 9091, "containerPort": 80, "hostIP": "::" },
    ]);
    Attachment::new(&pod, &ports).on(backend).add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
    assert_eq!(lan.tcp(NODE_V4[1], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 8080), REFUSED);
    assert_eq!(lan.tcp(NODE_V6[1], 8080), from("pod2", NEIGHBOUR_V6));
    assert_eq!(lan.tcp(NODE_V4[0], 9090), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 9090), REFUSED);
    assert_eq!(lan.tcp(NODE_V4[0], 9091), REFUSED);
    assert_eq!(lan.tcp(NODE_V6[0], 9091), from("pod2", NEIGHBOUR_V6));
}

fn a_loopback_host_ip_is_for_the_node_alone(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1" }]))
        .on(backend)
        .add()
        .ok();
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080), from("pod2", NODE_V4[0]));
    assert_eq!(net::tcp(NODE_V4[0], 8080), REFUSED);
    assert_eq!(lan.tcp(NODE_V4[0], 8080), REFUSED);
}

fn an_exact_mapping_wins_over_a_wildcard_one_whichever_came_first(backend: Backend) {
    forward();
    let lan = lan();
    let (exact, wildcard) = (pod(2), pod(3));
    exact.serve(80);
    wildcard.serve(80);
    let one = Attachment::new(
        &exact,
        &json!([
            { "hostPort": 8080, "containerPort": 80, "hostIP": NODE_V4[0] },
            { "hostPort": 8080, "containerPort": 80, "hostIP": NODE_V6[0] },
        ]),
    )
    .on(backend);
    let all = Attachment::new(&wildcard, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    for order in [[&one, &all], [&all, &one]] {
        order.iter().for_each(|attachment| drop(attachment.add().ok()));
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V4[1], 8080), from("pod3", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V6[0], 8080), from("pod2", NEIGHBOUR_V6));
        assert_eq!(lan.tcp(NODE_V6[1], 8080), from("pod3", NEIGHBOUR_V6));
        one.del().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
        all.del().ok();
    }
}

fn a_pod_reaches_itself_and_others_through_the_node(backend: Backend) {
    forward();
    let _lan = lan();
    let (server, client) = (pod(2), pod(3));
    server.serve(80);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
    ]);
    Attachment::new(&server, &ports).on(backend).add().ok();
    for ask in [Host::tcp, Host::udp] as [fn(&Host, IpAddr, u16) -> net::Answer; 2] {
        // Itself it sees by an address of the node: otherwise the answer would never come by.
        assert_eq!(ask(&server, NODE_V4[0].into(), 8080), from("pod2", NODE_V4[0]));
        let (name, seen) = ask(&server, NODE_V6[0].into(), 8080).unwrap();
        assert!(name == "pod2" && NODE_V6.iter().any(|node| seen == *node), "{name} saw {seen}");
        assert_eq!(ask(&client, NODE_V4[0].into(), 8080), from("pod2", client.v4));
        assert_eq!(ask(&client, NODE_V6[0].into(), 8080), from("pod2", client.v6));
    }
}

fn without_snat_clients_are_served_and_no_source_is_replaced(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    attachment.with("snat", json!(false)).add().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(net::tcp(NODE_V4[0], 8080), from("pod2", NODE_V4[0]));
    let key = format!("net/ipv4/conf/{}/route_localnet", pod.link);
    assert_eq!(kernel::sysctl::get(&key).unwrap(), "0");
}
