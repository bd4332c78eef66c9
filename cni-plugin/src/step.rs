//! The steps of a plan, and how they print: in the words of `ip(8)`, `sysctl(8)` and `nft(8)`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::Route;
use ipam::marks::ROUTE_PROTOCOL;
use ipnetwork::IpNetwork;
use macaddr::MacAddr6;

use crate::config::Rate;
use crate::masquerade::iptables::Member;
use crate::ruleset::Placed;

/// The turn of the rules that are made inside a pod: before the main table's, 32766, and after whatever else the pod may
/// have, as long as that is below.
pub const RULE_PRIORITY: u32 = 31_120;

/// On which side of the veth pair a step takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The node's namespace.
    Host,
    /// The pod's namespace.
    Pod,
}

/// One change. Carried out in order; each can be told to be in force or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Both ends of the pair, the peer made inside the pod.
    Veth {
        /// Name of the host end.
        host: String,
        /// Its hardware address.
        host_mac: MacAddr6,
        /// Name of the pod's end.
        pod: String,
        /// Its hardware address.
        pod_mac: MacAddr6,
        /// In bytes; `None` leaves the kernel's default.
        mtu: Option<u32>,
        /// Whether the host end does ARP.
        arp: bool,
        /// Who owns the pair.
        alias: String,
        /// The pod's namespace.
        netns: PathBuf,
    },
    /// A kernel setting, by its path below /proc/sys.
    Sysctl {
        /// In whose namespace.
        place: Place,
        /// For example `net/ipv4/ip_forward`.
        key: String,
        /// What it is set to.
        value: String,
    },
    /// IPv6 addresses of a link of the pod outlive its going down, as those of IPv4 do. A convenience: where settings cannot be
    /// written, the pod does without it.
    KeepAddresses {
        /// Which.
        link: String,
    },
    /// The pod's end of a pair without addresses says whose it is, for a DEL that finds the other end gone.
    Alias {
        /// Which.
        link: String,
        /// Whose: not as on the node's end, as the pod may be a node itself.
        owner: String,
    },
    /// The host end gets the name that the config wants. It is made under another one, by which an ADD that was
    /// killed in between is found.
    Rename {
        /// What it is made as.
        from: String,
        /// What it is to be called.
        to: String,
    },
    /// A link is brought up.
    Up {
        /// In whose namespace.
        place: Place,
        /// Which.
        link: String,
    },
    /// A link that is up is waited for until its carrier is: until then it drops what is sent by it
    /// (net/core/link_watch.c).
    Carrier {
        /// In whose namespace.
        place: Place,
        /// Which.
        link: String,
    },
    /// An address.
    Address {
        /// In whose namespace.
        place: Place,
        /// On which link.
        link: String,
        /// /32 or /128.
        address: IpNetwork,
    },
    /// A neighbour entry.
    Neighbour {
        /// In whose namespace.
        place: Place,
        /// On which link.
        link: String,
        /// Whose.
        address: IpAddr,
        /// Where.
        mac: MacAddr6,
        /// Whether it stays as it is. Otherwise it is right for now, and then as the neighbour says.
        permanent: bool,
    },
    /// A route, replacing one to the same destination.
    Route {
        /// In whose namespace.
        place: Place,
        /// By which link.
        link: String,
        /// Destination, next hop and metrics.
        route: Route,
        /// Preferred source address.
        source: Option<IpAddr>,
    },
    /// Packets from an address of the pod are routed by a table of their own.
    Rule {
        /// The source address.
        from: IpAddr,
        /// The table.
        table: u32,
    },
    /// A link sends no faster than this.
    Shape {
        /// In whose namespace.
        place: Place,
        /// Which.
        link: String,
        /// How fast.
        rate: Rate,
    },
    /// An address of the pod is masqueraded by iptables.
    Masquerade(Member),
    /// Something about the pod joins a set of nf_tables.
    Element(Placed),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Veth { host, host_mac, pod, pod_mac, mtu, arp, alias, netns } => {
                let arp = if *arp { "" } else { " arp off" };
                let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
                write!(
                    f,
                    "ip link add {host} address {} alias \"{alias}\"{mtu}{arp} up type veth peer name {pod} address {}{mtu} netns {}",
                    lower(*host_mac),
                    lower(*pod_mac),
                    netns.display()
                )
            }
            Self::Alias { link, owner } => write!(f, "{} link set {link} alias \"{owner}\"", ip(Place::Pod)),
            Self::Sysctl { place, key, value } => {
                let exec = if *place == Place::Pod { "ip netns exec POD " } else { "" };
                write!(f, "{exec}sysctl -w {key}={value}")
            }
            Self::KeepAddresses { link } => {
                write!(f, "ip netns exec POD sysctl -w {}=1 # if it can be", keep_addresses(link))
            }
            Self::Up { place, link } => write!(f, "{} link set {link} up", ip(*place)),
            Self::Carrier { place, link } => write!(f, "{} link show dev {link} # until LOWER_UP", ip(*place)),
            Self::Rename { from, to } => write!(f, "ip link set {from} name {to}"),
            Self::Address { place, link, address } => {
                let nodad = if address.is_ipv6() { " nodad" } else { "" };
                let scope = if *place == Place::Host && address.is_ipv4() { " scope host" } else { "" };
                write!(f, "{} address add {address} dev {link}{scope}{nodad}", ip(*place))
            }
            Self::Neighbour { place, link, address, mac, permanent } => {
                let state = if *permanent { "permanent" } else { "reachable" };
                write!(f, "{} neighbour replace {address} lladdr {} dev {link} nud {state}", ip(*place), lower(*mac))
            }
            Self::Route { place, link, route, source } => {
                write!(f, "{} route replace {}", ip(*place), destination(route.dst))?;
                write_route(f, route, link, *source)
            }
            Self::Rule { from, table } => {
                let six = if from.is_ipv6() { " -6" } else { "" };
                write!(
                    f,
                    "{}{six} rule add from {from} lookup {table} priority {RULE_PRIORITY} proto {ROUTE_PROTOCOL}",
                    ip(Place::Pod)
                )
            }
            Self::Shape { place, link, rate: Rate { rate, burst, limit } } => {
                let exec = if *place == Place::Pod { "ip netns exec POD " } else { "" };
                write!(
                    f,
                    "{exec}tc qdisc replace dev {link} root handle 1: tbf rate {rate}bps burst {burst}b limit {limit}b"
                )
            }
            Self::Masquerade(member) => write!(f, "{member}"),
            Self::Element(placed) => write!(f, "nft {placed}"),
        }
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, route: &Route, link: &str, source: Option<IpAddr>) -> fmt::Result {
    if let Some(gateway) = route.gw {
        write!(f, " via {gateway}")?;
    }
    write!(f, " dev {link}")?;
    if let Some(source) = source {
        write!(f, " src {source}")?;
    }
    for (name, value) in [
        ("mtu", route.mtu),
        ("advmss", route.advmss),
        ("metric", route.priority),
        ("table", route.table),
        ("scope", route.scope.map(u32::from)),
    ] {
        if let Some(value) = value {
            write!(f, " {name} {value}")?;
        }
    }
    if route.gw.is_some() {
        f.write_str(" onlink")?;
    }
    write!(f, " proto {ROUTE_PROTOCOL}")
}

/// The setting behind [`Step::KeepAddresses`], by its path below /proc/sys (Documentation/networking/ip-sysctl.rst).
#[must_use]
pub fn keep_addresses(link: &str) -> String {
    format!("net/ipv6/conf/{link}/keep_addr_on_down")
}

fn ip(place: Place) -> &'static str {
    match place {
        Place::Host => "ip",
        Place::Pod => "ip -n POD",
    }
}

/// The usual spelling of a hardware address: lower case.
#[must_use]
pub fn lower(mac: MacAddr6) -> String {
    mac.to_string().to_ascii_lowercase()
}

fn destination(network: IpNetwork) -> String {
    if network.prefix() == 0 { "default".to_owned() } else { network.to_string() }
}
