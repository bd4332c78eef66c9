//! What the kernel knows of pods: the links that say whose they are, and the routes to addresses.

use std::net::IpAddr;

use cni_spec::Attachment;
use kernel::rtnl::{RouteFilter, Rtnl};

use crate::ledger::owner;
use crate::marks::ROUTE_PROTOCOL;

/// The node's links and routes.
#[derive(Debug, Default)]
pub(in crate::cli) struct Seen {
    pub links: Vec<PodLink>,
    pub routes: Vec<PodRoute>,
}

/// A host link that says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct PodLink {
    pub attachment: Attachment,
    pub name: String,
    pub index: u32,
}

/// A route to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct PodRoute {
    pub address: IpAddr,
    pub oif: u32,
    /// Whether its protocol says that podwire made it.
    pub ours: bool,
}

impl Seen {
    pub fn now() -> kernel::Result<Self> {
        let rtnl = Rtnl::open()?;
        let owned = rtnl.links_of_kind("veth")?.into_iter().filter_map(|link| {
            let attachment = owner(link.alias.as_deref()?)?;
            Some(PodLink { attachment, name: link.name, index: link.index })
        });
        let links = owned.collect();
        // The table "local" (255, rtnetlink(7)) has the node's own addresses.
        let routes = rtnl.routes(&RouteFilter::default())?.into_iter().filter(|route| route.table != Some(255));
        let to_one = routes.filter(|route| route.dst.prefix() == if route.dst.is_ipv4() { 32 } else { 128 });
        let routes = to_one
            .map(|route| PodRoute { address: route.dst.ip(), oif: route.oif, ours: route.protocol == ROUTE_PROTOCOL })
            .collect();
        Ok(Self { links, routes })
    }

    pub fn link(&self, attachment: &Attachment) -> Option<&PodLink> {
        self.links.iter().find(|link| link.attachment == *attachment)
    }
}
