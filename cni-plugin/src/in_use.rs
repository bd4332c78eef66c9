//! Whether an address that the ledger lent is a living pod's. A ledger lends none twice, but another one on this node knows
//! nothing of it; and the node has one route to an address, which would be taken from that pod. Other IPAM plugins answer for
//! themselves: who gives one address to all, as `static` does, wants the last who asked to have it.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use cni_spec::Attachment;
use ipam::marks::ROUTE_PROTOCOL;
use ipnetwork::IpNetwork;
use kernel::rtnl::{Link, RouteFilter};

use crate::Error;
use crate::config::{Config, OWN_IPAM};
use crate::names::attachment_of_alias;
use crate::plan::Wiring;
use crate::pod::{Node, observe};

/// How long a link may go on standing whose pod is gone: it goes with its namespace, which the kernel clears up behind
/// everybody's back.
const SETTLING: Duration = Duration::from_secs(1);

/// Refuses an address of our own IPAM that the node routes to another attachment's link. Asks for the way to each address and for the link that
/// it leads by, so it costs the same however many pods there are.
///
/// # Errors
/// [`Error::AddressInUse`], [`Error::Observe`].
pub fn refuse(wiring: &Wiring, config: &Config, own: &Attachment, node: &Node) -> Result<(), Error> {
    if config.ipam_type.as_deref() != Some(OWN_IPAM) {
        return Ok(());
    }
    wiring.addresses.iter().map(IpNetwork::ip).try_for_each(|address| refuse_one(address, own, node))
}

fn refuse_one(address: IpAddr, own: &Attachment, node: &Node) -> Result<(), Error> {
    let begun = Instant::now();
    while let Some((holder, link)) = holder(address, own, node)? {
        if begun.elapsed() > SETTLING {
            return Err(Error::AddressInUse { address, holder: Box::new(holder), link: link.name });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn holder(address: IpAddr, own: &Attachment, node: &Node) -> Result<Option<(Attachment, Link)>, Error> {
    let unreadable = |source| observe(&format!("the node's route to {address}"), source);
    let Some(way) = node.rtnl.route_to(address).map_err(unreadable)? else { return Ok(None) };
    let Some(link) = node.rtnl.link_by_index(way.oif).map_err(unreadable)? else { return Ok(None) };
    let marked = link.alias.as_deref().and_then(attachment_of_alias).filter(|holder| holder != own);
    let Some(holder) = marked else { return Ok(None) };
    // Somebody may have routed a larger network to that pod: the address is its own only by a route of its ADD.
    let filter = RouteFilter { oif: Some(link.index), protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
    let routes = node.rtnl.routes(&filter).map_err(unreadable)?;
    Ok(routes.iter().any(|route| route.dst == IpNetwork::from(address)).then_some((holder, link)))
}
