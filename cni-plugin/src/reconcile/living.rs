//! The pods that this node has, and what the kernel knows of each besides: so much that a guard can be made again of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName};
use ipam::marks::ROUTE_PROTOCOL;
use kernel::rtnl::{self, Link, RouteFilter};
use macaddr::MacAddr6;
use nft_model::Family;

use crate::Error;
use crate::config::Guard;
use crate::names::Names;
use crate::pod::{Node, observe};

/// An attachment whose link is there.
#[derive(Debug)]
pub struct Living {
    /// Whose.
    pub attachment: Attachment,
    /// Its names, the node's end as it is called now.
    pub names: Names,
    /// The node's end.
    pub link: Link,
    /// The pod's addresses: those that the node has routes to. None for layer 2, or while its ADD has not come far.
    pub addresses: Vec<IpAddr>,
    /// Where no route of a family leads to the pod: those addresses of its lease that none leads to, as far as that is known,
    /// without those that another pod had when it was read.
    pub leased: Vec<IpAddr>,
    /// How the node knows the pod's hardware address.
    neighbour: Neighbour,
}

/// What the node's neighbour entries for a pod's addresses are.
#[derive(Debug, Clone, Copy)]
enum Neighbour {
    /// Permanent, with this hardware address.
    Told(MacAddr6),
    /// Learned from the pod.
    Learned,
    /// Not there.
    Missing,
}

/// The links and routes of pods at one moment.
pub struct Look {
    links: BTreeMap<u32, (Attachment, Link)>,
    addresses: BTreeMap<u32, Vec<IpAddr>>,
}

impl Look {
    /// What there is now.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn at(node: &Node) -> Result<Self, Error> {
        let addresses = addresses(node, None)?;
        let links = node.own_links()?.into_iter().map(|(attachment, link)| (link.index, (attachment, link))).collect();
        Ok(Self { links, addresses })
    }

    /// Whether a pod is as it was: its very link, so called, and the same addresses; and no other pod has got those of its lease.
    #[must_use]
    pub fn has(&self, living: &Living) -> bool {
        self.has_link_and_routes(living) && !living.leased.iter().any(|address| self.is_of_another(*address, living))
    }

    /// Whether its very link, so called, is there with the same addresses.
    #[must_use]
    pub fn has_link_and_routes(&self, living: &Living) -> bool {
        let is_same =
            |(attachment, link): &(Attachment, Link)| *attachment == living.attachment && link.name == living.link.name;
        let as_set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<IpAddr>>();
        let addresses = self.addresses.get(&living.link.index).map_or(&[][..], Vec::as_slice);
        let is_same_link = self.links.get(&living.link.index).is_some_and(is_same);
        is_same_link && as_set(addresses) == as_set(&living.addresses)
    }

    /// Whether a route leads from an address to another pod.
    #[must_use]
    pub fn is_of_another(&self, address: IpAddr, living: &Living) -> bool {
        let mut others = self.addresses.iter().filter(|(index, _)| **index != living.link.index);
        others.any(|(_, all)| all.contains(&address))
    }
}

/// The addresses that the node has routes of pods to, by the link.
fn addresses(node: &Node, oif: Option<u32>) -> Result<BTreeMap<u32, Vec<IpAddr>>, Error> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), oif, ..RouteFilter::default() };
    for route in node.rtnl.routes(&filter).map_err(|source| observe("the node's routes", source))? {
        addresses.entry(route.oif).or_default().push(route.dst.ip());
    }
    Ok(addresses)
}

impl Living {
    /// Those of a network, or all, the youngest last.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn all(node: &Node, network: Option<&NetworkName>) -> Result<Vec<Self>, Error> {
        let Look { links, mut addresses } = Look::at(node)?;
        // Later than the routes, which an ADD makes after them.
        let neighbours = neighbours(node, &links, &addresses)?;
        let mut all = Vec::new();
        // By the index: the youngest last.
        for (attachment, link) in links.into_values() {
            let addresses = addresses.remove(&link.index).unwrap_or_default();
            if network.is_some_and(|network| *network != attachment.network) {
                continue;
            }
            // What the kernel could not keep was refused at ADD.
            let Ok(names) = Names::of(&attachment) else { continue };
            let names = Names { host_link: link.name.clone(), ..names };
            let entries = neighbours.get(&link.index).map_or(&[][..], Vec::as_slice);
            let neighbour = if link.arp { neighbour(entries, &addresses) } else { Neighbour::Told(names.pod_mac) };
            all.push(Self { attachment, names, link, addresses, leased: Vec::new(), neighbour });
        }
        Ok(all)
    }

    /// How its link is to be guarded, by what the ADD made of it: only where hardware addresses are `strict` and not told, or
    /// where a guarded link has no addresses, does the node's end do no ARP, and only with `addresses` the node learns them.
    /// Whether the rest is guarded the config says; none where that is not known.
    #[must_use]
    pub fn guard(&self, asked: Option<Guard>) -> Option<Guard> {
        if !self.link.arp {
            return Some(Guard::Strict);
        }
        match (asked, self.neighbour) {
            (None, Neighbour::Learned) => Some(Guard::Addresses),
            (None, _) => None,
            (Some(asked), _) if self.addresses.is_empty() => Some(asked),
            (Some(Guard::Off), Neighbour::Told(_)) => Some(Guard::Off),
            (Some(_), Neighbour::Told(_)) => Some(Guard::Strict),
            (Some(_), Neighbour::Learned | Neighbour::Missing) => Some(Guard::Addresses),
        }
    }

    /// Whether a route of that family leads to it.
    #[must_use]
    pub fn is_reached_by(&self, family: Family) -> bool {
        self.addresses.iter().any(|address| Family::of(*address) == family)
    }

    /// What it may send from.
    #[must_use]
    pub fn senders(&self) -> Vec<IpAddr> {
        [&self.addresses[..], &self.leased].concat()
    }

    /// The hardware address that it may send from.
    #[must_use]
    pub fn mac(&self) -> MacAddr6 {
        match self.neighbour {
            Neighbour::Told(mac) => mac,
            Neighbour::Learned | Neighbour::Missing => self.names.pod_mac,
        }
    }

    /// Whether the attachment, be it in another life, has a link now, and by that link an address. A DEL takes the link first
    /// and the rules after it.
    #[must_use]
    pub fn has_now(&self, node: &Node, address: Option<IpAddr>) -> bool {
        let look = || -> Result<bool, Error> {
            let Some(link) = node.host_link(&self.names)? else { return Ok(false) };
            let Some(address) = address else { return Ok(true) };
            Ok(addresses(node, Some(link.index))?.values().flatten().any(|one| *one == address))
        };
        // What cannot be seen is not taken for gone.
        look().unwrap_or(true)
    }
}

/// The node's neighbour entries for the addresses of pods that are asked for theirs, by the link.
fn neighbours(
    node: &Node,
    links: &BTreeMap<u32, (Attachment, Link)>,
    addresses: &BTreeMap<u32, Vec<IpAddr>>,
) -> Result<BTreeMap<u32, Vec<rtnl::Neighbour>>, Error> {
    let asked = links.values().map(|(_, link)| link).filter(|link| link.arp);
    let addresses = asked.filter_map(|link| Some((link.index, addresses.get(&link.index)?)));
    let wanted: Vec<(u32, IpAddr)> =
        addresses.flat_map(|(index, all)| all.iter().map(move |address| (index, *address))).collect();
    let found = node.rtnl.neighbours_of(&wanted).map_err(|source| observe("the node's neighbours", source))?;
    let mut neighbours: BTreeMap<u32, Vec<rtnl::Neighbour>> = BTreeMap::new();
    for entry in found {
        neighbours.entry(entry.index).or_default().push(entry);
    }
    Ok(neighbours)
}

fn neighbour(entries: &[rtnl::Neighbour], addresses: &[IpAddr]) -> Neighbour {
    let mut of_pod =
        entries.iter().filter(|entry| entry.mac.is_some() && addresses.contains(&entry.address)).peekable();
    let is_any = of_pod.peek().is_some();
    let told = of_pod.filter(|entry| entry.permanent).find_map(|entry| entry.mac);
    told.map_or(if is_any { Neighbour::Learned } else { Neighbour::Missing }, Neighbour::Told)
}
