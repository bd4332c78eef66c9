//! Routes to and from `struct rtmsg` and its attributes.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use ipnetwork::IpNetwork;

use super::route::{MAIN_TABLE, Resolved, Route, SCOPE_UNIVERSE};

/// The message that adds or deletes a route.
pub(super) fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match route.dst {
        IpNetwork::V4(_) => AddressFamily::Inet,
        IpNetwork::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.kind = RouteType::Unicast;
    message.header.protocol = route.protocol.into();
    let scope = match route.dst {
        IpNetwork::V4(_) => route.scope.unwrap_or_else(|| route.default_scope()),
        IpNetwork::V6(_) => SCOPE_UNIVERSE,
    };
    message.header.scope = scope.into();
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    set_table(&mut message, route.table.unwrap_or(MAIN_TABLE));
    if route.dst.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    message.attributes.push(RouteAttribute::Oif(route.oif));
    message.attributes.extend(route.gateway.map(|gateway| next_hop(route.dst, gateway)));
    message.attributes.extend(route.prefsrc.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    let metrics: Vec<_> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// The header has room for table numbers below 256 only.
pub(super) fn set_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(small) => message.header.table = small,
        Err(_) => {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(table));
        }
    }
}

fn next_hop(dst: IpNetwork, gateway: IpAddr) -> RouteAttribute {
    match (dst, gateway) {
        (IpNetwork::V4(_), IpAddr::V6(address)) => RouteAttribute::Via(RouteVia::Inet6(address)),
        // The kernel has no IPv6 route over an IPv4 next hop, and says so when it is asked.
        (IpNetwork::V6(_), IpAddr::V4(address)) => RouteAttribute::Via(RouteVia::Inet(address)),
        (_, gateway) => RouteAttribute::Gateway(gateway.into()),
    }
}

/// The route in a message; `None` for other types than unicast, and for several next hops.
pub(super) fn route_in(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = unspecified(header.address_family)?;
    let mut oif = None;
    let mut route = Route::new(IpNetwork::from(destination), 0, header.protocol.into());
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    route.scope = Some(header.scope.into());
    route.table = Some(header.table.into());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => route.prefsrc = ip(address),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, metrics),
            _ => {}
        }
    }
    route.oif = oif?;
    route.dst = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(route.canonical())
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => {}
        }
    }
}

/// The answer to "how would a packet go"; `None` for unreachable and the like.
pub(super) fn resolved_in(message: &RouteMessage) -> Option<Resolved> {
    if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let mut resolved = Resolved { oif: 0, prefsrc: None, gateway: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => resolved.oif = *index,
            RouteAttribute::PrefSource(address) => resolved.prefsrc = ip(address),
            RouteAttribute::Gateway(address) => resolved.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => resolved.gateway = Some((*address).into()),
            RouteAttribute::Metrics(metrics) => {
                resolved.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (resolved.oif != 0).then_some(resolved)
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(std::net::Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
