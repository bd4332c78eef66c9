//! Addresses that no pod can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::problem::Problem;
use crate::span::Span;

/// First address, prefix length, and why not.
const V4: [(Ipv4Addr, u8, &str); 4] = [
    (Ipv4Addr::UNSPECIFIED, 32, "which stands for any address"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "which every host keeps to itself (loopback)"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "which is link-local and holds the pods' gateway 169.254.1.1"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "which is multicast"),
];
const V6: [(Ipv6Addr, u8, &str); 5] = [
    (Ipv6Addr::UNSPECIFIED, 128, "which stands for any address"),
    (Ipv6Addr::LOCALHOST, 128, "which every host keeps to itself (loopback)"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "which stands for IPv4 addresses"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "which is link-local and holds the pods' gateway fe80::1"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "which is multicast"),
];

/// What keeps a subnet from being a pool, be it only a part of it: narrower ranges would hide that the subnet is
/// routed as a whole.
pub(super) fn not_for_pods(subnet: IpNetwork) -> Option<Problem> {
    let v4 = V4.into_iter().map(|(first, prefix, why)| (IpAddr::V4(first), prefix, why));
    let v6 = V6.into_iter().map(|(first, prefix, why)| (IpAddr::V6(first), prefix, why));
    v4.chain(v6)
        .filter_map(|(first, prefix, why)| Some((IpNetwork::new(first, prefix).ok()?, why)))
        .find(|(reserved, _)| Span::of(*reserved).overlaps(Span::of(subnet)))
        .map(|(reserved, why)| Problem::NotForPods(reserved, why))
}
