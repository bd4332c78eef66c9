//! The stage in ip(8)'s own language, and nft(8)'s: what stands here is what is run. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The node's addresses: the first is the one it speaks with.
pub const NODE: [&str; 4] = ["192.168.50.1/24", "192.168.50.3/24", "fd50::1/64", "fd50::3/64"];
/// A machine on the node's network, outside the cluster.
pub const CLIENT: [&str; 2] = ["192.168.50.2/24", "fd50::2/64"];
/// The router that node and client send everything else to. It knows no route to pods.
pub const ROUTER: [&str; 2] = ["192.168.50.254/24", "fd50::254/64"];
/// Services beyond the router: they answer whoever they know a way back to.
pub const OUTSIDE: [&str; 2] = ["198.51.100.1/32", "2001:db8:51::1/128"];

/// Port of the node's own service, the kubelet's.
pub const NODE_PORT: u16 = 10250;
/// Port of the services outside.
pub const OUTSIDE_PORT: u16 = 80;

/// In the namespace `wire`: a bridge as switch, and a cable to each machine. `node` is any process in the
/// node's namespace.
#[must_use]
pub fn wire(node: u32) -> Vec<String> {
    let mut lines =
        vec!["link add wire type bridge stp_state 0 mcast_snooping 0".to_owned(), "link set wire up".to_owned()];
    for (machine, ifname, netns) in [
        ("node", "uplink", node.to_string()),
        ("client", "eth0", "client".to_owned()),
        ("router", "eth0", "router".to_owned()),
    ] {
        lines.push(format!("link add {machine} type veth peer name {ifname} netns {netns}"));
        lines.push(format!("link set {machine} master wire"));
        lines.push(format!("link set {machine} up"));
    }
    lines
}

/// In the node's namespace.
#[must_use]
pub fn node() -> Vec<String> {
    let mut lines = interface("uplink", &NODE);
    lines.extend(default_routes());
    lines
}

/// In the namespace `client`.
#[must_use]
pub fn client() -> Vec<String> {
    let mut lines = interface("eth0", &CLIENT);
    lines.extend(default_routes());
    lines
}

/// In the namespace `router`. It has no default route: what it cannot place it refuses.
#[must_use]
pub fn router() -> Vec<String> {
    let mut lines = interface("eth0", &ROUTER);
    lines.extend(OUTSIDE.iter().map(|address| add_address(address, "lo")));
    lines
}

/// The router's rule set, in nft(8)'s language. The kernel itself would refuse what it has no route for as well, but
/// no more than once a second for each sender, and that cannot be set in a namespace.
#[must_use]
pub fn router_rules() -> String {
    let table = |family: &str, reject: &str| {
        format!(
            "table {family} unroutable {{\n\tchain prerouting {{\n\
             \t\ttype filter hook prerouting priority 0;\n\
             \t\tfib daddr oif missing fib daddr type != {{ local, multicast, broadcast, anycast }} reject with {reject}\n\
             \t}}\n}}\n"
        )
    };
    table("ip", "icmp type net-unreachable") + &table("ip6", "icmpv6 type no-route")
}

/// In a pod's namespace, before the first plugin runs: what the `loopback` plugin does.
#[must_use]
pub fn pod() -> Vec<String> {
    vec!["link set lo up".to_owned()]
}

/// The addresses without their prefix lengths.
#[must_use]
pub fn addresses(of: &[&str]) -> Vec<IpAddr> {
    of.iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

fn interface(ifname: &str, of: &[&str]) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned(), format!("link set {ifname} up")];
    let (v6, v4): (Vec<&str>, Vec<&str>) = of.iter().partition(|address| address.contains(':'));
    // The kernel speaks with the IPv4 address that came first, but with the IPv6 address that came last.
    lines.extend(v4.iter().chain(v6.iter().rev()).map(|address| add_address(address, ifname)));
    lines
}

/// Nobody else is on the wire: duplicate address detection would only be waited for.
fn add_address(address: &str, ifname: &str) -> String {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    format!("address add {address} dev {ifname}{nodad}")
}

fn default_routes() -> Vec<String> {
    addresses(&ROUTER).iter().map(|router| format!("route add {} via {router}", any(router))).collect()
}

fn any(of: &IpAddr) -> String {
    match of {
        IpAddr::V4(_) => format!("{}/0", Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => format!("{}/0", Ipv6Addr::UNSPECIFIED),
    }
}
