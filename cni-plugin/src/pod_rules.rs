//! What another network gave the pod before, and the routing rules that this one made: unlike routes they do not go with
//! the link, and a pod may outlive its attachment.

use std::net::IpAddr;
use std::path::Path;

use ipam::marks::ROUTE_PROTOCOL;
use kernel::rtnl::{RouteFilter, SourceRule};
use nft_model::Family;

use crate::Error;
use crate::names::Names;
use crate::pod::{Pod, observe};
use crate::routes::OtherDefault;

/// `RT_TABLE_MAIN` (include/uapi/linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;

/// The default routes that the pod has by other links than this attachment's.
///
/// # Errors
/// [`Error::Observe`].
pub fn other_defaults(pod: &Pod, ifname: &str) -> Result<Vec<OtherDefault>, Error> {
    let filter = RouteFilter { table: Some(MAIN_TABLE), ..RouteFilter::default() };
    let unreadable = |source| observe("the pod's routes", source);
    let routes = pod.rtnl.routes(&filter).map_err(unreadable)?;
    let mut found: Vec<OtherDefault> = Vec::new();
    for route in routes.into_iter().filter(|route| route.dst.prefix() == 0) {
        let family = Family::of_network(route.dst);
        let Some(link) = pod.rtnl.link_by_index(route.oif).map_err(unreadable)? else { continue };
        // Of several the kernel lists the one that counts first.
        if link.name == ifname || found.iter().any(|other| other.family == family) {
            continue;
        }
        let addresses = pod.rtnl.addresses(link.index).map_err(unreadable)?.into_iter();
        let addresses = addresses.map(|address| address.network.ip());
        let of_family = |address: &IpAddr| Family::of(*address) == family && !is_link_local(*address);
        found.push(OtherDefault {
            family,
            link: link.name,
            gateway: route.gateway,
            addresses: addresses.filter(of_family).collect(),
        });
    }
    Ok(found)
}

/// fe80::/10 (RFC 4291): on every link, so no source to choose a link by.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// Removes the rules of an attachment: those for its table, and those for addresses that its interface has. So it comes
/// before the link is deleted. A namespace that is gone has none, and
/// one that cannot be looked into keeps them: nothing outside depends on them, and they end with it.
///
/// # Errors
/// [`Error::Observe`], [`Error::Step`].
pub fn remove(netns: &Path, ifname: &str, names: &Names) -> Result<(), Error> {
    let pod = match Pod::open(netns) {
        Err(Error::Netns { .. } | Error::NetnsIsHost { .. } | Error::Netlink { .. }) => return Ok(()),
        opened => opened?,
    };
    let listed = pod.rtnl.rules().map_err(|source| observe("the pod's routing rules", source))?;
    let mut marked = listed.into_iter().filter(|rule| rule.protocol == ROUTE_PROTOCOL).peekable();
    if marked.peek().is_none() {
        return Ok(());
    }
    let addresses = addresses(&pod, ifname)?;
    let tables = names.table..=names.table + 1;
    let ours = |rule: &SourceRule| tables.contains(&rule.table) || addresses.contains(&rule.from);
    let errors = marked.filter(ours).filter_map(|rule| {
        let step = || format!("ip -n POD rule delete from {} lookup {}", rule.from, rule.table);
        pod.rtnl.delete_rule(&rule).err().map(|source| Error::Step { step: step(), source })
    });
    Error::all_of(errors.collect())
}

fn addresses(pod: &Pod, ifname: &str) -> Result<Vec<IpAddr>, Error> {
    let unreadable = |source| observe(ifname, source);
    let Some(link) = pod.rtnl.link(ifname).map_err(unreadable)? else { return Ok(Vec::new()) };
    let addresses = pod.rtnl.addresses(link.index).map_err(unreadable)?;
    Ok(addresses.into_iter().map(|address| address.network.ip()).collect())
}
