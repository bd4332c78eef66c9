//! The routes inside a pod, and the rules that lead to those outside the main table. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::Route;
use ipnetwork::IpNetwork;
use nft_model::Family;

/// The gateway that every pod sees. No interface has these addresses: the pod's neighbour entry is
/// permanent, so nothing ever asks who they are.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// As [`GATEWAY_V4`], link-local by RFC 4291.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// `RT_TABLE_MAIN`, and 0, which stands for it (include/uapi/linux/rtnetlink.h).
const MAIN_TABLES: [u32; 2] = [0, 254];

/// A default route that the pod has by another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherDefault {
    /// Of which packets.
    pub family: Family,
    /// By which link.
    pub link: String,
    /// Its next hop.
    pub gateway: Option<IpAddr>,
    /// The addresses of that link and family.
    pub addresses: Vec<IpAddr>,
}

/// The link-local gateway of an address's family.
#[must_use]
pub fn gateway_for(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { IpAddr::V4(GATEWAY_V4) } else { IpAddr::V6(GATEWAY_V6) }
}

/// Every next hop is the link's only neighbour, whatever gateway the IPAM plugin named: of several addresses of a family
/// the first one's gateway serves, and several routes to one destination, between which the traffic would be shared (ECMP),
/// are one. A family without routes gets a default route, and one with routes but no default at least reaches its own
/// subnet, as on a shared segment.
///
/// Where another network gave the pod its default route before, that one stays (spec 0.4.0, "IP Allocation"): this
/// network's goes to a table of its own, for packets from this network's addresses, so that answers leave by the link
/// that the question came by. See [`others`] for the other way.
#[must_use]
pub fn of_pod(
    addresses: &[IpNetwork],
    wanted: &[Route],
    others: &[OtherDefault],
    own_table: u32,
    gateway_of: impl Fn(&IpNetwork) -> IpAddr,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for address in addresses {
        let first = addresses.iter().find(|first| first.is_ipv4() == address.is_ipv4()).unwrap_or(address);
        let gateway = Some(gateway_of(first));
        let mut asked: Vec<Route> = wanted
            .iter()
            .filter(|route| route.dst.is_ipv4() == address.is_ipv4())
            .map(|route| Route { gw: gateway, ..route.clone() })
            .collect();
        if asked.is_empty() {
            asked.push(plain_route(default_network(address.ip()), gateway));
        }
        if others.iter().any(|other| other.family == Family::of_network(*address)) {
            asked.iter_mut().filter(|route| is_main_default(route)).for_each(|route| route.table = Some(own_table));
        }
        let is_subnet = address.prefix() != max_prefix(address.ip());
        let subnet = plain_route(network_of(address), gateway);
        if is_subnet && !asked.iter().any(|route| is_main_default(route) || same_place(route, &subnet)) {
            push_new(&mut routes, subnet);
        }
        asked.into_iter().for_each(|route| push_new(&mut routes, route));
    }
    routes
}

/// What keeps answers from another network's addresses on that network's link, now that the main table sends packets to
/// this network's subnet by this one: its default route once more, in a table for packets from those addresses.
#[must_use]
pub fn others(others: &[OtherDefault], table: u32) -> Vec<(&str, Route, Vec<IpAddr>)> {
    let route = |other: &OtherDefault| {
        let any = match other.family {
            Family::Ip => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Family::Ip6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Route { table: Some(table), ..plain_route(default_network(any), other.gateway) }
    };
    others.iter().map(|other| (other.link.as_str(), route(other), other.addresses.clone())).collect()
}

/// `from ADDRESS lookup TABLE`, for each address and each table but the main one that has a route of its family: a table
/// that no rule leads to is never asked.
pub fn rules<'a>(addresses: &'a [IpNetwork], routes: &'a [Route]) -> impl Iterator<Item = (IpAddr, u32)> + 'a {
    addresses.iter().flat_map(move |address| {
        let mut tables: Vec<u32> =
            routes.iter().filter(|route| route.dst.is_ipv4() == address.is_ipv4()).filter_map(own_table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables.into_iter().map(|table| (address.ip(), table))
    })
}

fn is_main_default(route: &Route) -> bool {
    route.dst.prefix() == 0 && own_table(route).is_none()
}

/// The table of a route that is not in the main one.
#[must_use]
pub fn own_table(route: &Route) -> Option<u32> {
    route.table.filter(|table| !MAIN_TABLES.contains(table))
}

fn push_new(routes: &mut Vec<Route>, route: Route) {
    if !routes.iter().any(|other| same_place(other, &route)) {
        routes.push(route);
    }
}

/// Whether the kernel has room for one of them only: the later one would replace the earlier.
fn same_place(one: &Route, other: &Route) -> bool {
    place(one) == place(other)
}

/// Destination, table and metric, with what stands for the default: 0 for IPv4, `IP6_RT_PRIO_USER` (1024,
/// include/uapi/linux/ipv6_route.h) for IPv6, which 0 stands for too.
fn place(route: &Route) -> (IpNetwork, Option<u32>, u32) {
    let default = if route.dst.is_ipv4() { 0 } else { 1024 };
    let metric = route.priority.filter(|metric| *metric != 0).unwrap_or(default);
    (network_of(&route.dst), own_table(route), metric)
}

/// Two routes of which the kernel takes only one, and that say different things of it: the destination of the first.
#[must_use]
pub fn contradiction(wanted: &[Route]) -> Option<IpNetwork> {
    let metric = |value: Option<u32>| value.filter(|value| *value != 0);
    // IPv6 has no scopes.
    let scope = |route: &Route| route.scope.filter(|_| route.dst.is_ipv4()).unwrap_or_default();
    let said = |route: &Route| (metric(route.mtu), metric(route.advmss), scope(route));
    let contradicts = |one: &&Route| wanted.iter().any(|other| same_place(one, other) && said(one) != said(other));
    wanted.iter().find(contradicts).map(|route| route.dst)
}

/// A route that says nothing but where to.
#[must_use]
pub fn plain_route(dst: IpNetwork, gw: Option<IpAddr>) -> Route {
    Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
}

fn max_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address alone: /32 or /128.
#[must_use]
pub fn host_prefix(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

fn network_of(address: &IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(*address)
}

fn default_network(address: IpAddr) -> IpNetwork {
    let unspecified: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNetwork::new(unspecified, 0).unwrap_or_else(|_| IpNetwork::from(unspecified))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn via(address: &str, wanted: &[Route], has_default: &[Family]) -> Vec<(String, Option<u32>)> {
        let other = |family: &Family| OtherDefault {
            family: *family,
            link: "eth0".to_owned(),
            gateway: None,
            addresses: Vec::new(),
        };
        let others: Vec<OtherDefault> = has_default.iter().map(other).collect();
        let routes = of_pod(&[net(address)], wanted, &others, OWN, |address| gateway_for(address.ip()));
        assert!(routes.iter().all(|route| route.gw.is_some()), "{routes:?}");
        routes.into_iter().map(|route| (route.dst.to_string(), route.table)).collect()
    }

    fn plain(dst: &str) -> Route {
        plain_route(net(dst), None)
    }

    fn found(routes: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
        routes.iter().map(|(dst, table)| ((*dst).to_owned(), *table)).collect()
    }

    #[test]
    fn a_family_without_routes_gets_a_default_route() {
        assert_eq!(via("10.1.0.2/24", &[], &[]), found(&[("0.0.0.0/0", None)]));
        assert_eq!(via("fd00::2/64", &[plain("10.0.0.0/8")], &[]), found(&[("::/0", None)]));
    }

    #[test]
    fn without_a_default_the_own_subnet_is_reached() {
        let wanted = [plain("10.9.0.0/16")];
        assert_eq!(via("10.1.0.2/24", &wanted, &[]), found(&[("10.1.0.0/24", None), ("10.9.0.0/16", None)]));
        assert_eq!(via("10.1.0.2/32", &wanted, &[]), found(&[("10.9.0.0/16", None)]));
    }

    #[test]
    fn another_networks_default_route_stays() {
        let expected = found(&[("10.1.0.0/24", None), ("0.0.0.0/0", Some(OWN))]);
        assert_eq!(via("10.1.0.2/24", &[], &[Family::Ip]), expected);
        assert_eq!(via("10.1.0.2/24", &[plain("0.0.0.0/0")], &[Family::Ip]), expected);
        assert_eq!(via("10.1.0.2/24", &[], &[Family::Ip6]), found(&[("0.0.0.0/0", None)]));
        // What another table is to have is not the main table's business.
        let elsewhere = [Route { table: Some(9), ..plain("0.0.0.0/0") }];
        assert_eq!(via("10.1.0.2/32", &elsewhere, &[Family::Ip]), found(&[("0.0.0.0/0", Some(9))]));
    }

    #[test]
    fn routes_to_one_destination_are_one() {
        let by = |dst: &str, gw: &str| plain_route(net(dst), Some(gw.parse().unwrap()));
        let four = [by("10.8.0.0/16", "10.1.0.1"), by("10.8.0.9/16", "10.1.0.3")];
        assert_eq!(via("10.1.0.2/32", &four, &[]), found(&[("10.8.0.0/16", None)]));
        assert_eq!(contradiction(&four), None);
        let six = [by("fd08::/16", "fd00::1"), Route { priority: Some(1024), ..by("fd08::/16", "fd00::3") }];
        assert_eq!(via("fd00::2/128", &six, &[]), found(&[("fd08::/16", None)]));
        let apart = [by("10.8.0.0/16", "10.1.0.1"), Route { priority: Some(5), ..by("10.8.0.0/16", "10.1.0.3") }];
        assert_eq!(via("10.1.0.2/32", &apart, &[]), found(&[("10.8.0.0/16", None), ("10.8.0.0/16", None)]));
        // What the own subnet's route is like may be said.
        let own = [Route { mtu: Some(1300), ..plain("10.1.0.0/24") }];
        assert_eq!(via("10.1.0.2/24", &own, &[]), found(&[("10.1.0.0/24", None)]));
    }

    #[test]
    fn routes_that_contradict_each_other_are_found() {
        let plain = plain("10.8.0.0/16");
        let narrow = Route { mtu: Some(1300), ..plain.clone() };
        let elsewhere = Route { table: Some(9), ..narrow.clone() };
        let in_main = Route { table: Some(254), scope: Some(0), ..plain.clone() };
        assert_eq!(contradiction(&[plain.clone(), elsewhere, in_main]), None);
        assert_eq!(contradiction(&[plain.clone(), narrow]), Some(plain.dst));
        let unset = Route { mtu: Some(0), ..plain.clone() };
        assert_eq!(contradiction(&[plain, unset]), None);
        let six = Route { scope: Some(200), ..self::plain("fd08::/16") };
        assert_eq!(contradiction(&[self::plain("fd08::/16"), six]), None);
    }

    #[test]
    fn addresses_of_a_family_share_the_first_ones_gateway() {
        let addresses = [net("10.1.0.2/24"), net("10.2.0.2/24")];
        let wanted = [plain("10.9.0.0/16")];
        let routes = of_pod(&addresses, &wanted, &[], OWN, IpNetwork::network);
        let shown: Vec<_> = routes.iter().map(|route| (route.dst.to_string(), route.gw.unwrap().to_string())).collect();
        let gateway = "10.1.0.0".to_owned();
        let expected = ["10.1.0.0/24", "10.9.0.0/16", "10.2.0.0/24"].map(|dst| (dst.to_owned(), gateway.clone()));
        assert_eq!(shown, expected);
        // A CHECK finds the same in what the ADD answered.
        let again = of_pod(&addresses, &routes, &[], OWN, IpNetwork::network);
        assert_eq!(again.len(), routes.len());
        assert!(again.iter().all(|route| routes.contains(route)), "{again:?}");
    }

    #[test]
    fn every_table_is_led_to() {
        let table = |dst, table| Route { table: Some(table), ..plain(dst) };
        let routes = [table("0.0.0.0/0", 9), table("10.0.0.0/8", 9), table("::/0", 8), table("10.0.0.0/8", 254)];
        let addresses = [net("10.1.0.2/24"), net("fd00::2/64")];
        let expected = [("10.1.0.2".parse().unwrap(), 9), ("fd00::2".parse().unwrap(), 8)];
        assert_eq!(rules(&addresses, &routes).collect::<Vec<_>>(), expected);
    }
}
