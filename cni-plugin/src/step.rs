//! The steps of a plan, and how they print: in the words of `ip(8)`, `sysctl(8)` and `nft(8)`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::Route;
use ipam::marks::ROUTE_PROTOCOL;
use ipnetwork::IpNetwork;
use macaddr::MacAddr6;

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
        value: &'static str,
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
    /// An address of the pod.
    Address {
        /// On which link.
        link: String,
        /// /32 or /128.
        address: IpNetwork,
    },
    /// A permanent neighbour entry.
    Neighbour {
        /// In whose namespace.
        place: Place,
        /// On which link.
        link: String,
        /// Whose.
        address: IpAddr,
        /// Where.
        mac: MacAddr6,
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
    /// The pod's address joins those that are masqueraded.
    Masquerade {
        /// The network's table.
        table: String,
        /// Whose packets.
        address: IpAddr,
        /// The element's comment.
        owner: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Veth { host, host_mac, pod, pod_mac, mtu, alias, netns } => {
                let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
                write!(
                    f,
                    "ip link add {host} address {} alias \"{alias}\"{mtu} up type veth peer name {pod} address {}{mtu} netns {}",
                    lower(*host_mac),
                    lower(*pod_mac),
                    netns.display()
                )
            }
            Self::Sysctl { place, key, value } => {
                let exec = if *place == Place::Pod { "ip netns exec POD " } else { "" };
                write!(f, "{exec}sysctl -w {key}={value}")
            }
            Self::Up { place, link } => write!(f, "{} link set {link} up", ip(*place)),
            Self::Carrier { place, link } => write!(f, "{} link show dev {link} # until LOWER_UP", ip(*place)),
            Self::Address { link, address } => {
                let nodad = if address.is_ipv6() { " nodad" } else { "" };
                write!(f, "{} address add {address} dev {link}{nodad}", ip(Place::Pod))
            }
            Self::Neighbour { place, link, address, mac } => {
                write!(f, "{} neighbour replace {address} lladdr {} dev {link} nud permanent", ip(*place), lower(*mac))
            }
            Self::Route { place, link, route, source } => {
                write!(f, "{} route replace {}", ip(*place), destination(route.dst))?;
                write_route(f, route, link, *source)
            }
            Self::Masquerade { table, address, owner } => {
                let family = if address.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "nft add element {family} {table} pods {{ {address} comment \"{owner}\" }}")
            }
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
