//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::Rtnl;
use super::route_message::{message, resolved_in, route_in, set_table};
use crate::error::{Error, Result};

/// `inet` or `inet6` of ip(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Inet } else { Self::Inet6 }
    }
}

/// A unicast route with one next hop. `None` is the kernel's or ip(8)'s default, as told at each field;
/// a route that was read has `None` wherever it has the default, so that routes can be compared: see
/// [`Route::canonical`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The destination; host bits count for nothing.
    pub dst: IpNetwork,
    /// The next hop; may be of the other family (RFC 5549) if `dst` is IPv4.
    pub gateway: Option<IpAddr>,
    /// Index of the interface it leads out of.
    pub oif: u32,
    /// Take `gateway` to be on the link even if no route says so.
    pub onlink: bool,
    /// The source address that the host itself prefers for it.
    pub prefsrc: Option<IpAddr>,
    /// Who made it (rtnetlink(7), rtm_protocol).
    pub protocol: u8,
    /// As in rtnetlink(7), 0 universe, 253 link, 254 host. Default: universe with a gateway, link
    /// without. IPv6 has none: ignored.
    pub scope: Option<u8>,
    /// Smaller wins. Default: 0 for IPv4, 1024 for IPv6.
    pub metric: Option<u32>,
    /// Path MTU in bytes. Default: the interface's.
    pub mtu: Option<u32>,
    /// TCP MSS to advertise, in bytes. Default: from the MTU.
    pub advmss: Option<u32>,
    /// Routing table number. Default: main (254).
    pub table: Option<u32>,
}

/// The main table (rtnetlink(7)).
pub(super) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// `IP6_RT_PRIO_USER`, include/uapi/linux/ipv6_route.h.
pub(super) const IPV6_METRIC: u32 = 1024;
pub(super) const SCOPE_UNIVERSE: u8 = 0;
pub(super) const SCOPE_LINK: u8 = 253;

impl Route {
    /// A route without gateway, everything else by default.
    #[must_use]
    pub fn new(dst: IpNetwork, oif: u32, protocol: u8) -> Self {
        Self {
            dst,
            gateway: None,
            oif,
            onlink: false,
            prefsrc: None,
            protocol,
            scope: None,
            metric: None,
            mtu: None,
            advmss: None,
            table: None,
        }
    }

    /// The same route as [`Rtnl::routes`] shows it: no host bits, `None` for every default.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let dst = IpNetwork::new(self.dst.network(), self.dst.prefix()).unwrap_or(self.dst);
        let (default_metric, default_scope) = match dst {
            IpNetwork::V4(_) => (0, self.default_scope()),
            IpNetwork::V6(_) => (IPV6_METRIC, SCOPE_UNIVERSE),
        };
        Self {
            dst,
            scope: self.scope.filter(|&scope| dst.is_ipv4() && scope != default_scope),
            // For IPv6 zero asks for the default, too.
            metric: self.metric.filter(|&metric| metric != 0 && metric != default_metric),
            table: self.table.filter(|&table| table != 0 && table != MAIN_TABLE),
            ..self.clone()
        }
    }

    /// The rule of ip(8).
    pub(super) fn default_scope(&self) -> u8 {
        if self.gateway.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK }
    }
}

/// As ip(8) writes it, with the interface's index in the place of its name.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dst.prefix() {
            0 => f.write_str("default")?,
            _ => write!(f, "{}", self.dst)?,
        }
        if let Some(gateway) = self.gateway {
            let family = if gateway.is_ipv4() == self.dst.is_ipv4() { "" } else { "inet6 " };
            write!(f, " via {family}{gateway}")?;
        }
        write!(f, " dev {} proto {}", self.oif, self.protocol)?;
        if self.onlink {
            f.write_str(" onlink")?;
        }
        if let Some(prefsrc) = self.prefsrc {
            write!(f, " src {prefsrc}")?;
        }
        let scope = self.scope.map(u32::from);
        let numbers = [
            ("scope", scope),
            ("metric", self.metric),
            ("mtu", self.mtu),
            ("advmss", self.advmss),
            ("table", self.table),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// Which routes to read; the kernel leaves out the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Only this family; both if `None`.
    pub family: Option<Family>,
    /// Only out of the interface with this index.
    pub oif: Option<u32>,
    /// Only by this maker.
    pub protocol: Option<u8>,
    /// Only in this table; all tables if `None`.
    pub table: Option<u32>,
}

impl RouteFilter {
    fn takes(&self, route: &Route) -> bool {
        let table = route.table.unwrap_or(MAIN_TABLE);
        self.oif.is_none_or(|oif| oif == route.oif)
            && self.protocol.is_none_or(|protocol| protocol == route.protocol)
            && self.table.is_none_or(|wanted| wanted == table)
    }
}

/// How the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// Index of the interface; that of `lo` if the address is the host's own.
    pub oif: u32,
    /// The source address it would choose.
    pub prefsrc: Option<IpAddr>,
    /// The next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Path MTU in bytes, if the route has one of its own or one was learned. Default: the interface's.
    pub mtu: Option<u32>,
}

/// No route; "unreachable", "prohibit" and "blackhole" routes; and a kernel without that family (ipv6.disable=1).
const NO_ROUTE: [Errno; 6] =
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT];

impl Rtnl {
    /// Adds a route, in the place of one with the same destination, metric and table, whoever made that.
    ///
    /// # Errors
    /// [`Error::ReplaceRoute`].
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        self.change(RouteNetlinkMessage::NewRoute(message(route)), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|source| Error::ReplaceRoute { route: route.to_string(), source })
    }

    /// Deletes exactly this route: all fields count. `Ok(false)` if there is none, or its interface is gone.
    ///
    /// # Errors
    /// [`Error::DeleteRoute`].
    pub fn delete_route(&self, route: &Route) -> Result<bool> {
        match self.change(RouteNetlinkMessage::DelRoute(message(route)), 0) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::ESRCH, Errno::ENODEV]) => Ok(false),
            Err(source) => Err(Error::DeleteRoute { route: route.to_string(), source }),
        }
    }

    /// Unicast routes with one next hop; none if the interface or the table is not there.
    ///
    /// # Errors
    /// [`Error::ListRoutes`].
    pub fn routes(&self, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [Family::Inet, Family::Inet6] {
            if filter.family.is_none_or(|wanted| wanted == family) {
                routes.extend(self.routes_of(family, filter)?);
            }
        }
        Ok(routes)
    }

    fn routes_of(&self, family: Family, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut request = RouteMessage::default();
        request.header.address_family = match family {
            Family::Inet => AddressFamily::Inet,
            Family::Inet6 => AddressFamily::Inet6,
        };
        request.header.kind = RouteType::Unicast;
        if let Some(protocol) = filter.protocol {
            request.header.protocol = protocol.into();
        }
        if let Some(table) = filter.table {
            set_table(&mut request, table);
        }
        request.attributes.extend(filter.oif.map(RouteAttribute::Oif));
        let objects = match self.list_routes(request) {
            // The filter names an interface, or a table, that does not exist.
            Err(failure) if failure.is(&[Errno::ENODEV, Errno::ENOENT]) => Vec::new(),
            result => result.map_err(Error::ListRoutes)?,
        };
        let route = |object| match object {
            RouteNetlinkMessage::NewRoute(message) => route_in(&message).filter(|route| filter.takes(route)),
            _ => None,
        };
        Ok(objects.into_iter().filter_map(route).collect())
    }

    /// How a packet to `destination` would go, local addresses included; `None` if it would not.
    ///
    /// # Errors
    /// [`Error::LookUpRoute`].
    pub fn route_to(&self, destination: IpAddr) -> Result<Option<Resolved>> {
        let any = match destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        if destination == any {
            return Ok(None);
        }
        let mut request = RouteMessage::default();
        request.header.address_family = match destination {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        request.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        request.attributes = vec![RouteAttribute::Destination(destination.into())];
        match self.get(RouteNetlinkMessage::GetRoute(request)) {
            Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(resolved_in(&message)),
            Ok(_) => Ok(None),
            Err(failure) if failure.is(&NO_ROUTE) => Ok(None),
            Err(source) => Err(Error::LookUpRoute { destination, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel booted with ipv6.disable=1 answers questions about IPv6 routes as this one does for a family that it
    /// was not built with: nobody has registered for them.
    #[test]
    fn a_family_that_the_kernel_lacks_has_no_routes() {
        sandbox::private_host(|| {
            let mut request = RouteMessage::default();
            request.header.address_family = AddressFamily::Decnet;
            request.header.destination_prefix_length = 16;
            let failure = Rtnl::open().unwrap().get(RouteNetlinkMessage::GetRoute(request)).unwrap_err();
            assert!(failure.is(&NO_ROUTE), "{failure}");
        });
    }
}
