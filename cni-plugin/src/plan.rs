//! What an ADD does to the kernel, as values. Pure: the plan is made from config, names and addresses;
//! `apply` carries it out and CHECK compares it with what is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use cni_spec::{Attachment, CniResult, Interface, IpConfig, Route};
use ipnetwork::IpNetwork;
use macaddr::MacAddr6;

use crate::Error;
use crate::config::Config;
use crate::names::{Names, masquerade_table};
use crate::step::{Place, Step, lower};

/// The gateway that every pod sees. No interface has these addresses: the pod's neighbour entry is
/// permanent, so nothing ever asks who they are.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// As [`GATEWAY_V4`], link-local by RFC 4291.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The gateway of an address's family.
#[must_use]
pub fn gateway_for(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { IpAddr::V4(GATEWAY_V4) } else { IpAddr::V6(GATEWAY_V6) }
}

/// What one pod is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Names and marks.
    pub names: Names,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// In bytes.
    pub mtu: Option<u32>,
    /// As the IPAM plugin gave them, with the pool's prefix length.
    pub addresses: Vec<IpNetwork>,
    /// As the IPAM plugin gave them.
    pub routes: Vec<Route>,
    /// The network's masquerade table, if it has one.
    pub masquerade_table: Option<String>,
}

impl Wiring {
    /// What is known before any address is: `mtu` in bytes, `None` to leave the kernel's default.
    ///
    /// # Errors
    /// [`Error::OwnerTooLong`].
    pub fn of(attachment: &Attachment, config: &Config, netns: &Path, mtu: Option<u32>) -> Result<Self, Error> {
        Ok(Self {
            names: Names::of(attachment)?,
            ifname: attachment.ifname.to_string(),
            netns: netns.to_owned(),
            mtu,
            addresses: Vec::new(),
            routes: Vec::new(),
            masquerade_table: config.masquerade.as_ref().map(|_| masquerade_table(&attachment.network)),
        })
    }

    /// With what an IPAM plugin gave.
    #[must_use]
    pub fn with_addresses(mut self, leased: &CniResult) -> Self {
        self.addresses = leased.ips.iter().map(|ip| ip.address).collect();
        self.routes.clone_from(&leased.routes);
        self
    }

    /// The first half: what needs no address, so that it can run while one is leased.
    #[must_use]
    pub fn link_steps(&self) -> Vec<Step> {
        vec![Step::Veth {
            host: self.names.host_link.clone(),
            host_mac: self.names.host_mac,
            pod: self.ifname.clone(),
            pod_mac: self.names.pod_mac,
            mtu: self.mtu,
            alias: self.names.alias.clone(),
            netns: self.netns.clone(),
        }]
    }

    /// The second half. The pod's side comes first: when the node learns the way, there is somebody to answer.
    #[must_use]
    pub fn address_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Up { place: Place::Pod, link: "lo".to_owned() }];
        if self.has_ipv6() {
            steps.push(sysctl(Place::Pod, format!("net/ipv6/conf/{}/disable_ipv6", self.ifname), "0"));
        }
        steps.push(Step::Up { place: Place::Pod, link: self.ifname.clone() });
        for address in &self.addresses {
            steps.push(self.neighbour(Place::Pod, gateway_for(address.ip())));
            steps.push(Step::Address { link: self.ifname.clone(), address: host_prefix(address.ip()) });
        }
        steps.extend(self.pod_routes().into_iter().map(|route| Step::Route {
            place: Place::Pod,
            link: self.ifname.clone(),
            source: self.source_for(&route),
            route,
        }));
        steps.extend(self.host_sysctls());
        for address in &self.addresses {
            steps.push(self.neighbour(Place::Host, address.ip()));
            steps.push(Step::Route {
                place: Place::Host,
                link: self.names.host_link.clone(),
                route: plain_route(host_prefix(address.ip()), None),
                source: None,
            });
        }
        steps.push(Step::Carrier { place: Place::Host, link: self.names.host_link.clone() });
        steps.push(Step::Carrier { place: Place::Pod, link: self.ifname.clone() });
        steps.extend(self.masquerade_table.iter().flat_map(|table| {
            self.addresses.iter().map(|address| Step::Masquerade {
                table: table.clone(),
                address: address.ip(),
                owner: self.names.owner.clone(),
            })
        }));
        steps
    }

    /// The routes inside the pod, as they are made and reported. Every next hop is the link's only neighbour,
    /// whatever gateway the IPAM plugin named; a family without routes gets a default route, and one with
    /// routes but no default at least reaches its own subnet, as on a shared segment.
    #[must_use]
    pub fn pod_routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for address in &self.addresses {
            let gateway = Some(gateway_for(address.ip()));
            let asked: Vec<&Route> =
                self.routes.iter().filter(|route| route.dst.is_ipv4() == address.is_ipv4()).collect();
            if asked.is_empty() {
                push_new(&mut routes, plain_route(default_network(address.ip()), gateway));
                continue;
            }
            let whole_subnet = address.prefix() == max_prefix(address.ip());
            if !whole_subnet && asked.iter().all(|route| route.dst.prefix() != 0) {
                push_new(&mut routes, plain_route(network_of(address), gateway));
            }
            for route in asked {
                push_new(&mut routes, Route { gw: gateway, ..route.clone() });
            }
        }
        routes
    }

    /// `interfaces[]` of the result: host side first, as the reference does.
    #[must_use]
    pub fn interfaces(&self) -> [Interface; 2] {
        let interface = |name: &str, mac: MacAddr6, sandbox: Option<String>| Interface {
            name: name.to_owned(),
            mac: Some(lower(mac)),
            mtu: self.mtu,
            sandbox,
            ..Interface::default()
        };
        [
            interface(&self.names.host_link, self.names.host_mac, None),
            interface(&self.ifname, self.names.pod_mac, Some(self.netns.to_string_lossy().into_owned())),
        ]
    }

    /// The result of the ADD. What an earlier plugin of the chain made stays in front.
    #[must_use]
    pub fn result(&self, config: &Config, leased: &CniResult, prev_result: Option<CniResult>) -> CniResult {
        let mut result = prev_result.unwrap_or_default();
        let pod_interface = result.interfaces.len() + 1;
        result.interfaces.extend(self.interfaces());
        result.ips.extend(self.addresses.iter().map(|address| IpConfig {
            address: host_prefix(address.ip()),
            gateway: Some(gateway_for(address.ip())),
            interface: Some(pod_interface),
        }));
        result.routes.extend(self.pod_routes());
        result.dns = config.dns.clone().unwrap_or_else(|| leased.dns.clone());
        result
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpNetwork::is_ipv6)
    }

    fn neighbour(&self, place: Place, address: IpAddr) -> Step {
        let (link, mac) = match place {
            Place::Host => (&self.names.host_link, self.names.pod_mac),
            Place::Pod => (&self.ifname, self.names.host_mac),
        };
        Step::Neighbour { place, link: link.clone(), address, mac }
    }

    fn source_for(&self, route: &Route) -> Option<IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == route.dst.is_ipv4())
    }

    fn host_sysctls(&self) -> Vec<Step> {
        let link = &self.names.host_link;
        let mut steps = Vec::new();
        if self.addresses.iter().any(IpNetwork::is_ipv4) {
            steps.push(sysctl(Place::Host, "net/ipv4/ip_forward".to_owned(), "1"));
            steps.push(sysctl(Place::Host, format!("net/ipv4/conf/{link}/forwarding"), "1"));
            steps.push(sysctl(Place::Host, format!("net/ipv4/conf/{link}/rp_filter"), "1"));
        }
        if self.has_ipv6() {
            steps.push(sysctl(Place::Host, "net/ipv6/conf/all/forwarding".to_owned(), "1"));
            steps.push(sysctl(Place::Host, format!("net/ipv6/conf/{link}/forwarding"), "1"));
            steps.push(sysctl(Place::Host, format!("net/ipv6/conf/{link}/disable_ipv6"), "0"));
            steps.push(sysctl(Place::Host, format!("net/ipv6/conf/{link}/accept_ra"), "0"));
        }
        steps
    }
}

fn push_new(routes: &mut Vec<Route>, route: Route) {
    if !routes.contains(&route) {
        routes.push(route);
    }
}

fn sysctl(place: Place, key: String, value: &'static str) -> Step {
    Step::Sysctl { place, key, value }
}

fn plain_route(dst: IpNetwork, gw: Option<IpAddr>) -> Route {
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
