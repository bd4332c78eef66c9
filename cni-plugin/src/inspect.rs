//! What pods have on this node, read from the kernel: so it is what there is, whoever made it. The ledger, if it can
//! be read, adds the pods' names and where their namespaces are.

mod draw;
mod failures;
mod ports;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use ipam::Ledger;
use ipam::marks::ROUTE_PROTOCOL;
use ipnetwork::IpNetwork;
use kernel::netns::NetNs;
use kernel::rtnl::{Counters, Link, Route, RouteFilter, Rtnl};
use serde_json::{Value, json};

use crate::Error;
use crate::pod::{Node, observe};
use crate::step::lower;

pub use draw::draw;
pub use failures::{Failure, last};
pub use ports::HostPort;

/// One attachment.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Network, container and interface.
    pub attachment: Attachment,
    /// `NAMESPACE/NAME`, if the runtime told.
    pub pod: Option<String>,
    /// The node's end of the pair.
    pub link: Link,
    /// The pod's addresses: those that the node has routes to.
    pub addresses: Vec<IpAddr>,
    /// What goes through the node's end: what it receives, the pod has sent.
    pub counters: Counters,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// The last call about it that failed, if there is a log that tells.
    pub last_error: Option<Failure>,
    /// The pod's side, if its namespace is known and can be entered.
    pub inside: Option<Inside>,
}

/// The pod's side.
#[derive(Debug, Clone)]
pub struct Inside {
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// Its interface.
    pub link: Link,
    /// The interface's addresses.
    pub addresses: Vec<IpNetwork>,
    /// Routes that leave by it.
    pub routes: Vec<Route>,
}

impl Attached {
    /// The next hops that the pod knows.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        let routes = self.inside.iter().flat_map(|inside| &inside.routes);
        let mut gateways: Vec<IpAddr> = routes.filter_map(|route| route.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }

    /// Whether somebody who says this means it: a pod's name, with or without its namespace, the beginning of a
    /// container's id, an address, or a link's name.
    #[must_use]
    pub fn is_meant_by(&self, target: &str) -> bool {
        let by_pod = self.pod.as_deref().is_some_and(|pod| names(pod, target));
        let by_address = target.parse().is_ok_and(|address: IpAddr| self.addresses.contains(&address));
        let by_container = !target.is_empty() && self.attachment.container_id.as_str().starts_with(target);
        by_pod || by_address || by_container || self.link.name == target
    }

    /// Where it stands in a list: by network, the pod's namespace and name, container and interface.
    fn place(&self) -> impl Ord + '_ {
        let Attachment { network, container_id, ifname } = &self.attachment;
        (network, self.pod.as_deref().map(|pod| pod.split_once('/').unwrap_or(("", pod))), container_id, ifname)
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (link, counters) = (&self.link, &self.counters);
        let inside = self.inside.as_ref().map(|inside| {
            json!({
                "netns": inside.netns,
                "link": link_json(&inside.link),
                "addresses": inside.addresses,
                "routes": inside.routes.iter().map(route_json).collect::<Vec<_>>(),
            })
        });
        json!({
            "network": self.attachment.network.as_str(),
            "containerID": self.attachment.container_id.as_str(),
            "ifname": self.attachment.ifname.as_str(),
            "pod": self.pod,
            "addresses": self.addresses,
            "gateways": self.gateways(),
            "hostPorts": self.host_ports.iter().map(HostPort::to_json).collect::<Vec<_>>(),
            "link": link_json(link),
            "counters": {
                "rxPackets": counters.rx_packets, "rxBytes": counters.rx_bytes, "rxDropped": counters.rx_dropped,
                "txPackets": counters.tx_packets, "txBytes": counters.tx_bytes, "txDropped": counters.tx_dropped,
            },
            "inside": inside,
            "lastError": self.last_error.as_ref().map(Failure::to_json),
        })
    }
}

/// Whether a pod, `NAMESPACE/NAME`, is called this, with or without its namespace.
fn names(pod: &str, target: &str) -> bool {
    pod == target || pod.split_once('/').is_some_and(|(_, name)| name == target)
}

fn link_json(link: &Link) -> Value {
    json!({ "name": link.name, "index": link.index, "mac": link.mac.map(lower), "mtu": link.mtu, "up": link.up, "carrier": link.carrier })
}

fn route_json(route: &Route) -> Value {
    json!({ "dst": route.dst, "gw": route.gateway, "src": route.prefsrc, "mtu": route.mtu, "priority": route.metric, "table": route.table })
}

/// Everything that is attached to this node, in the order of network, pod, container and interface; and remarks about
/// what could not be read.
///
/// # Errors
/// [`Error::Observe`], [`Error::Netlink`].
pub fn all(ledger: &Ledger, failures: &[Failure]) -> Result<(Vec<Attached>, Vec<String>), Error> {
    let node = Node::open()?;
    let mut remarks = Vec::new();
    let records = ledger.leases("podwire inspect").unwrap_or_else(|error| {
        remarks.push(format!("pods and namespaces are not known: {error}"));
        None
    });
    let records = records.unwrap_or_default();
    let ports = ports::all().unwrap_or_else(|error| {
        remarks.push(format!("host ports are not known: {error}"));
        Vec::new()
    });
    let mut found = Vec::new();
    for (attachment, link) in node.own_links()? {
        let record = records.iter().find(|record| record.attachment == attachment);
        let addresses = routed(&node.rtnl, &link)?;
        let counters = node.rtnl.counters(link.index).map_err(|source| observe(&link.name, source))?;
        let netns = record.and_then(|record| record.netns.as_ref()).map(|netns| netns.path.as_path());
        found.push(Attached {
            pod: record.map(|record| record.pod.to_string()).filter(|pod| !pod.is_empty()),
            host_ports: ports.iter().filter(|port| addresses.contains(&port.pod.0)).cloned().collect(),
            inside: netns.and_then(|netns| inside(&node, netns, &attachment, &link)),
            last_error: failures.iter().find(|failure| failure.attachment == attachment).cloned(),
            // A link that went away meanwhile has no counters.
            counters: counters.unwrap_or_default(),
            attachment,
            link,
            addresses,
        });
    }
    found.sort_by(|one, other| one.place().cmp(&other.place()));
    Ok((found, remarks))
}

/// The addresses that the node sends to this link.
fn routed(rtnl: &Rtnl, link: &Link) -> Result<Vec<IpAddr>, Error> {
    let filter = RouteFilter { oif: Some(link.index), protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
    let routes = rtnl.routes(&filter).map_err(|source| observe(&link.name, source))?;
    Ok(routes.into_iter().map(|route| route.dst.ip()).collect())
}

/// The pod's side. What the path leads to by now may be another namespace, or none, or not for this user to enter:
/// then there is nothing to show. One end of a pair names the other.
fn inside(node: &Node, path: &Path, attachment: &Attachment, host: &Link) -> Option<Inside> {
    let netns = NetNs::open(path).ok()?;
    let rtnl = netns.run(Rtnl::open).ok()?.ok()?;
    let link = rtnl.link(attachment.ifname.as_str()).ok()??;
    let is_the_other_end = host.leads_to(&link, node.rtnl.netns_id(&netns).ok()?);
    let addresses = rtnl.addresses(link.index).ok()?.into_iter().map(|address| address.network).collect();
    let routes = rtnl.routes(&RouteFilter { oif: Some(link.index), ..RouteFilter::default() }).ok()?;
    let routes = routes.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect();
    is_the_other_end.then(|| Inside { netns: path.to_owned(), link, addresses, routes })
}
