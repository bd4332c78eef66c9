//! The cluster in ip(8)'s own language: what stands here is what is run. Pure.

use std::net::IpAddr;

/// The most nodes that have a place in these addresses.
pub const MOST: u8 = 9;

/// What every cable of the wire takes, in bytes: less than a veth's default, so that a wrong MTU is seen.
pub const MTU: u16 = 1400;

/// The machine beside the nodes, which has no route to pods.
pub const CLIENT: [&str; 2] = ["192.168.50.1/24", "fd50::1/64"];

/// The host port of each node's pod, and the port in the pod.
pub const PORTS: (u16, u16) = (8086, 80);

/// The pods of all nodes together.
pub const CLUSTER: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// A node's own addresses on the wire.
#[must_use]
pub fn node(number: u8) -> [String; 2] {
    [format!("192.168.50.{}/24", 10 + number), format!("fd50::{}/64", 10 + number)]
}

/// The range that a node's pods get their addresses from.
#[must_use]
pub fn pod_cidr(number: u8) -> [String; 2] {
    [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
}

/// In the client's namespace: a bridge as switch, with the client's own addresses, and a cable to each node. `nodes` are
/// threads in the nodes' namespaces.
#[must_use]
pub fn wire(nodes: &[i32]) -> Vec<String> {
    let mut lines = vec![format!("link add wire mtu {MTU} type bridge stp_state 0 mcast_snooping 0")];
    for (number, thread) in (1..).zip(nodes) {
        lines.push(format!("link add node{number} mtu {MTU} type veth peer name uplink mtu {MTU} netns {thread}"));
        lines.push(format!("link set node{number} master wire"));
        lines.push(format!("link set node{number} up"));
    }
    lines.extend(CLIENT.map(|address| add_address(address, "wire")));
    lines.push("link set wire up".to_owned());
    lines
}

/// In a node's namespace: its addresses, and a route to each other node's pods.
#[must_use]
pub fn uplink(number: u8, nodes: u8) -> Vec<String> {
    let mut lines: Vec<String> = node(number).iter().map(|address| add_address(address, "uplink")).collect();
    lines.push("link set uplink up".to_owned());
    for other in (1..=nodes).filter(|other| *other != number) {
        for (cidr, via) in pod_cidr(other).iter().zip(node(other)) {
            lines.push(format!("route add {cidr} via {}", bare(&via)));
        }
    }
    lines.extend(CLIENT.map(|client| format!("route add default via {}", bare(client))));
    lines
}

/// An address without its prefix length.
#[must_use]
pub fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// Addresses without their prefix lengths.
#[must_use]
pub fn addresses<T: AsRef<str>>(of: &[T]) -> Vec<IpAddr> {
    of.iter().filter_map(|text| bare(text.as_ref()).parse().ok()).collect()
}

/// Nobody else is on the wire: duplicate address detection would only be waited for.
fn add_address(address: &str, ifname: &str) -> String {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    format!("address add {address} dev {ifname}{nodad}")
}
