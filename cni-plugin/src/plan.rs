//! What an ADD does to the kernel, as values. Pure: the plan is made from config, names and addresses;
//! `apply` carries it out and CHECK compares it with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use cni_spec::{Attachment, CniResult, Interface, IpConfig};
use ipnetwork::IpNetwork;
use macaddr::MacAddr6;
use nft_model::Family;

use crate::Error;
use crate::config::{Backend, Bandwidth, Config, Gateway, Guard, MTU_MIN_IPV6};
use crate::masquerade::iptables::{Frame, Member};
use crate::names::{Names, masquerade_table};
use crate::routes::{self, OtherDefault, gateway_for, host_prefix, plain_route};
use crate::ruleset::{self, Placed, Rules};
use crate::step::{Place, Step, lower};
use crate::sysctl::PodSysctl;

/// `RT_SCOPE_LINK` (include/uapi/linux/rtnetlink.h).
const SCOPE_LINK: u8 = 253;

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
    /// The next hop of each address, if it is not the usual one.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// As the IPAM plugin gave them.
    pub routes: Vec<cni_spec::Route>,
    /// Default routes that the pod has by another network.
    pub others: Vec<OtherDefault>,
    /// The network's masquerade table of nf_tables, if it has one.
    pub masquerade_table: Option<String>,
    /// Its masquerade in iptables, if it has one.
    pub masquerade_frame: Option<Frame>,
    /// What the pod may send.
    pub guard: Guard,
    /// Whether somebody may set the pod's hardware address after this plugin. The kernel then forgets all neighbours of
    /// the pod, so it must be able to ask for its gateway. Never without IPAM: there is none to ask for.
    pub may_change_mac: bool,
    /// How its gateway is chosen.
    pub gateway: Gateway,
    /// Settings of its interface.
    pub sysctl: Vec<PodSysctl>,
    /// How fast it may be.
    pub bandwidth: Bandwidth,
    /// What the elements need in nf_tables.
    pub rules: Rules,
}

impl Wiring {
    /// What is known before any address is: `mtu` in bytes, `None` to leave the kernel's default.
    ///
    /// # Errors
    /// [`Error::OwnerTooLong`], [`Error::MacTaken`].
    pub fn of(attachment: &Attachment, config: &Config, netns: &Path, mtu: Option<u32>) -> Result<Self, Error> {
        let mut names = Names::of(attachment)?.with_prefix(config.host_prefix.as_deref());
        if let Some(mac) = config.mac {
            names.pod_mac = mac;
        }
        if names.pod_mac == names.host_mac {
            return Err(Error::MacTaken { mac: lower(names.pod_mac) });
        }
        let by = |iptables| {
            config.masquerade.as_ref().filter(|masquerade| (masquerade.backend == Backend::Iptables) == iptables)
        };
        Ok(Self {
            names,
            ifname: attachment.ifname.to_string(),
            netns: netns.to_owned(),
            mtu,
            addresses: Vec::new(),
            gateways: BTreeMap::new(),
            routes: Vec::new(),
            others: Vec::new(),
            masquerade_table: by(false).map(|_| masquerade_table(&attachment.network)),
            masquerade_frame: by(true).map(|masquerade| Frame::new(&attachment.network, masquerade)),
            guard: config.guard,
            may_change_mac: config.ipam_type.is_some() && may_change_mac(config),
            gateway: config.gateway,
            sysctl: config.sysctl.clone(),
            bandwidth: config.bandwidth,
            rules: Rules::of(config),
        })
    }

    /// With what an IPAM plugin gave.
    #[must_use]
    pub fn with_addresses(mut self, leased: &CniResult) -> Self {
        self.addresses = leased.ips.iter().map(|ip| ip.address).collect();
        if self.gateway == Gateway::Range {
            self.gateways = leased.ips.iter().filter_map(own_gateway).collect();
        }
        self.routes.clone_from(&leased.routes);
        self
    }

    /// What of all this no pod can have.
    ///
    /// # Errors
    /// [`Error::AddressUnusable`], [`Error::MtuTooSmall`], [`Error::RouteScope`], [`Error::RoutesDiffer`].
    pub fn refuse_what_cannot_be(&self, config: &Config) -> Result<(), Error> {
        self.refuse_unusable_addresses()?;
        self.refuse_small_mtu(config)?;
        self.refuse_impossible_routes()
    }

    /// What no interface can have, or not twice. Our own IPAM gives the like only if its pool is of the like.
    fn refuse_unusable_addresses(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for address in &self.addresses {
            let is_broadcast = address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
            let why = match address.ip() {
                ip if ip.is_unspecified() => "is no address of an interface",
                ip if ip.is_loopback() => "is of the loopback",
                ip if ip.is_multicast() || is_broadcast => "is a group's",
                ip if ip == self.gateway_of(address) => "is the gateway's",
                ip if !seen.insert(ip) => "is there twice",
                _ => continue,
            };
            return Err(Error::AddressUnusable { address: *address, why });
        }
        Ok(())
    }

    /// A link with less than 1280 bytes has no IPv6 (RFC 8200, section 5).
    fn refuse_small_mtu(&self, config: &Config) -> Result<(), Error> {
        let address = self.addresses.iter().map(IpNetwork::ip).find(IpAddr::is_ipv6);
        let (Some(address), Some(mtu)) = (address, self.mtu.filter(|mtu| *mtu < MTU_MIN_IPV6)) else { return Ok(()) };
        let key = if config.mtu.is_some() { config.mtu_key.as_str() } else { "mtu (that of the route to the outside)" };
        Err(Error::MtuTooSmall { key: key.to_owned(), mtu, address })
    }

    /// Every route of a pod leads by a gateway, and the kernel takes none with a narrower scope than the way to that gateway
    /// (`fib_check_nh_v4_gw`, net/ipv4/fib_semantics.c). IPv6 knows no scopes. Routes to one destination are one, so they must
    /// agree.
    fn refuse_impossible_routes(&self) -> Result<(), Error> {
        let narrow =
            self.routes.iter().find_map(|route| Some((route.dst, route.scope.filter(|scope| *scope >= SCOPE_LINK)?)));
        if let Some((dst, scope)) = narrow {
            return Err(Error::RouteScope { dst, scope });
        }
        routes::contradiction(&self.routes).map_or(Ok(()), |dst| Err(Error::RoutesDiffer { dst }))
    }

    /// With default routes that the pod has by another network, which stay as they are.
    #[must_use]
    pub fn beside(mut self, others: Vec<OtherDefault>) -> Self {
        let families: Vec<Family> = self.addresses.iter().map(|address| Family::of_network(*address)).collect();
        self.others = others.into_iter().filter(|other| families.contains(&other.family)).collect();
        self
    }

    /// The first half: what needs no address, so that it can run while one is leased.
    #[must_use]
    pub fn link_steps(&self) -> Vec<Step> {
        let Names { host_link, made_as, host_mac, pod_mac, alias, .. } = &self.names;
        let mut steps = vec![Step::Veth {
            host: made_as.clone(),
            host_mac: *host_mac,
            pod: self.ifname.clone(),
            pod_mac: *pod_mac,
            mtu: self.mtu,
            arp: self.guard == Guard::Off || self.may_change_mac,
            alias: alias.clone(),
            netns: self.netns.clone(),
        }];
        if host_link != made_as {
            steps.push(Step::Rename { from: made_as.clone(), to: host_link.clone() });
        }
        steps
    }

    /// The second half. The pod's side comes first: when the node learns the way, there is somebody to answer.
    #[must_use]
    pub fn address_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Up { place: Place::Pod, link: "lo".to_owned() }];
        if self.addresses.is_empty() {
            steps.push(Step::Alias { link: self.ifname.clone(), owner: self.names.owner.clone() });
        }
        steps.extend(self.pod_sysctls());
        steps.push(Step::Up { place: Place::Pod, link: self.ifname.clone() });
        for address in &self.addresses {
            steps.push(self.neighbour(Place::Pod, self.gateway_of(address)));
            steps.push(Step::Address {
                place: Place::Pod,
                link: self.ifname.clone(),
                address: host_prefix(address.ip()),
            });
        }
        steps.extend(self.steps_for_others());
        let routes = self.pod_routes();
        steps.extend(routes::rules(&self.addresses, &routes).map(|(from, table)| Step::Rule { from, table }));
        steps.extend(routes.into_iter().map(|route| Step::Route {
            place: Place::Pod,
            link: self.ifname.clone(),
            source: self.source_for(&route),
            route,
        }));
        steps.extend(self.host_sysctls());
        // A gateway of the range is the node: the pod reaches it there, as with other plugins. And a pod that has to ask
        // for its gateway needs somebody who answers.
        steps.extend(self.gateways().into_iter().map(|gateway| Step::Address {
            place: Place::Host,
            link: self.names.host_link.clone(),
            address: host_prefix(gateway),
        }));
        for address in &self.addresses {
            steps.push(self.neighbour(Place::Host, address.ip()));
            steps.push(Step::Route {
                place: Place::Host,
                link: self.names.host_link.clone(),
                route: plain_route(host_prefix(address.ip()), None),
                source: None,
            });
        }
        steps.extend(self.shapes());
        steps.push(Step::Carrier { place: Place::Host, link: self.names.host_link.clone() });
        steps.push(Step::Carrier { place: Place::Pod, link: self.ifname.clone() });
        steps.extend(self.members().into_iter().map(Step::Masquerade));
        steps.extend(self.elements().into_iter().map(Step::Element));
        steps
    }

    /// Other networks' answers stay on their links.
    fn steps_for_others(&self) -> Vec<Step> {
        let table = self.names.table + 1;
        let mut steps = Vec::new();
        for (link, route, addresses) in routes::others(&self.others, table) {
            steps.extend(addresses.iter().map(|from| Step::Rule { from: *from, table }));
            steps.push(Step::Route { place: Place::Pod, link: link.to_owned(), route, source: None });
        }
        steps
    }

    /// The routes inside the pod, as they are made and reported.
    #[must_use]
    pub fn pod_routes(&self) -> Vec<cni_spec::Route> {
        routes::of_pod(&self.addresses, &self.routes, &self.others, self.names.table, |address| {
            self.gateway_of(address)
        })
    }

    /// The pod's addresses that are masqueraded by iptables.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let member = |frame: &Frame| self.addresses.iter().map(|ip| frame.member(ip.ip(), &self.names.owner)).collect();
        self.masquerade_frame.as_ref().map(member).unwrap_or_default()
    }

    /// What the pod has in sets of nf_tables.
    #[must_use]
    pub fn elements(&self) -> Vec<Placed> {
        let Names { owner, host_link, pod_mac, .. } = &self.names;
        let addresses: Vec<IpAddr> = self.addresses.iter().map(IpNetwork::ip).collect();
        let mut elements = Vec::new();
        if let Some(table) = &self.masquerade_table {
            elements.extend(ruleset::masqueraded(table, &addresses, owner));
        }
        elements.extend(ruleset::guarded(self.guard, host_link, *pod_mac, &addresses, owner));
        elements
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
            gateway: Some(self.gateway_of(address)),
            interface: Some(pod_interface),
        }));
        result.routes.extend(self.pod_routes());
        result.dns = config.dns.clone().unwrap_or_else(|| leased.dns.clone());
        result
    }

    /// The next hop for packets from an address.
    #[must_use]
    pub fn gateway_of(&self, address: &IpNetwork) -> IpAddr {
        self.gateways.get(&address.ip()).copied().unwrap_or_else(|| gateway_for(address.ip()))
    }

    /// The gateways that the node has an address for.
    fn gateways(&self) -> Vec<IpAddr> {
        let mut gateways: Vec<IpAddr> = match self.may_change_mac {
            true => self.addresses.iter().map(|address| self.gateway_of(address)).collect(),
            false => self.gateways.values().copied().collect(),
        };
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpNetwork::is_ipv6)
    }

    /// On the node an entry may have to follow a pod whose hardware address changes; in the pod such a change removes all
    /// entries.
    fn neighbour(&self, place: Place, address: IpAddr) -> Step {
        let (link, mac) = match place {
            Place::Host => (&self.names.host_link, self.names.pod_mac),
            Place::Pod => (&self.ifname, self.names.host_mac),
        };
        let permanent = match place {
            Place::Pod => !self.may_change_mac,
            Place::Host => self.guard != Guard::Addresses,
        };
        Step::Neighbour { place, link: link.clone(), address, mac, permanent }
    }

    fn source_for(&self, route: &cni_spec::Route) -> Option<IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == route.dst.is_ipv4())
    }

    fn shapes(&self) -> Vec<Step> {
        let shape = |place, link: &str, rate| Step::Shape { place, link: link.to_owned(), rate };
        let towards = self.bandwidth.ingress.map(|rate| shape(Place::Host, &self.names.host_link, rate));
        let from = self.bandwidth.egress.map(|rate| shape(Place::Pod, &self.ifname, rate));
        towards.into_iter().chain(from).collect()
    }

    fn pod_sysctls(&self) -> Vec<Step> {
        let ifname = &self.ifname;
        let mut steps = Vec::new();
        if self.has_ipv6() {
            steps.push(sysctl(Place::Pod, format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0"));
            steps.push(Step::KeepAddresses { link: ifname.clone() });
        }
        // Before it is doubtful the gateway is asked for anew, from the pod's own address: a probe would come from a
        // link-local one, which the guard drops.
        if self.may_change_mac && self.has_ipv6() {
            steps.push(sysctl(Place::Pod, format!("net/ipv6/neigh/{ifname}/ucast_solicit"), "0"));
        }
        // A pod whose hardware address changes tells the node at once.
        if self.guard == Guard::Addresses && self.may_change_mac {
            steps.push(sysctl(Place::Pod, format!("net/ipv4/conf/{ifname}/arp_notify"), "1"));
            if self.has_ipv6() {
                steps.push(sysctl(Place::Pod, format!("net/ipv6/conf/{ifname}/ndisc_notify"), "1"));
            }
        }
        steps.extend(self.sysctl.iter().map(|wanted| sysctl(Place::Pod, wanted.path(ifname), &wanted.value)));
        steps
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

fn may_change_mac(config: &Config) -> bool {
    config.guard == Guard::Addresses || config.guard == Guard::Strict && config.mac.is_some()
}

/// A gateway that the IPAM plugin names, if it can be one: of the address's family, and not the pod itself. Nor the usual one,
/// which no interface has: a `prevResult` names that where the IPAM plugin named none.
fn own_gateway(ip: &IpConfig) -> Option<(IpAddr, IpAddr)> {
    let address = ip.address.ip();
    let can_be = |gateway: &IpAddr| gateway.is_ipv4() == address.is_ipv4() && *gateway != address;
    let gateway = ip.gateway.filter(|gateway| can_be(gateway) && *gateway != gateway_for(address))?;
    Some((address, gateway))
}

fn sysctl(place: Place, key: String, value: &str) -> Step {
    Step::Sysctl { place, key, value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_of_the_addresss_family_and_not_the_pod() {
        let gateway = |address: &str, gateway: Option<&str>| {
            let gateway = gateway.map(|text| text.parse().unwrap());
            own_gateway(&IpConfig { address: address.parse().unwrap(), gateway, interface: None })
                .map(|(_, found)| found)
        };
        assert_eq!(gateway("10.1.0.2/24", Some("10.1.0.1")), Some("10.1.0.1".parse().unwrap()));
        assert_eq!(gateway("fd00::2/64", Some("fd00::1")), Some("fd00::1".parse().unwrap()));
        for (address, wrong) in [
            ("10.1.0.2/24", Some("fd00::1")),
            ("fd00::2/64", Some("10.1.0.1")),
            ("10.1.0.2/24", Some("10.1.0.2")),
            ("fd00::2/64", Some("fd00::2")),
            ("10.1.0.2/24", None),
            ("10.1.0.2/24", Some("169.254.1.1")),
            ("fd00::2/64", Some("fe80::1")),
        ] {
            assert_eq!(gateway(address, wrong), None, "{address} {wrong:?}");
        }
    }
}
