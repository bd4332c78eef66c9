//! Reading what a plan's steps are about.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::rtnl::{Link, RouteFilter, Rtnl};
use kernel::sysctl;

use crate::Error;
use crate::diff::{Observed, ObservedLink, ObservedRoute, Shaped, Side};
use crate::firewall::Firewall;
use crate::plan::Wiring;
use crate::pod::{self, Ends};
use crate::pod_rules::MAIN_TABLE;
use crate::step::{Place, Step};

/// Reads both ends of the pair, the settings that the steps name, the rules inside the pod, and elements in nf_tables.
///
/// # Errors
/// [`Error::Observe`].
pub fn observe(
    steps: &[Step],
    wiring: &Wiring,
    ends: &Ends<'_>,
    firewall: Option<&mut Firewall>,
) -> Result<Observed, Error> {
    let in_pod = pod_link(&ends.pod.rtnl, &wiring.ifname)?;
    Ok(Observed {
        host: host(steps, wiring, ends, in_pod.as_ref())?,
        pod: side(steps, ends, Place::Pod, in_pod)?,
        sysctls: sysctls(steps, ends)?,
        rules: rules(ends)?,
        elements: firewall.map(Firewall::elements).transpose()?.unwrap_or_default(),
    })
}

fn rules(ends: &Ends<'_>) -> Result<Vec<(IpAddr, u32)>, Error> {
    let rules = ends.pod.rtnl.rules().map_err(|source| pod::observe("the pod's routing rules", source))?;
    Ok(rules.into_iter().map(|rule| (rule.from, rule.table)).collect())
}

fn pod_link(rtnl: &Rtnl, name: &str) -> Result<Option<Link>, Error> {
    rtnl.link(name).map_err(|source| pod::observe(name, source))
}

/// A link for layer 2 may be moved on into another namespace, where the pod's end leads. It has nothing there but itself: a
/// token bucket is lost by the move.
fn host(steps: &[Step], wiring: &Wiring, ends: &Ends<'_>, in_pod: Option<&Link>) -> Result<Side, Error> {
    let on_node = ends.node.link_whosever(&wiring.names)?;
    let may_be_moved = on_node.is_none() && wiring.addresses.is_empty();
    if let Some(in_pod) = in_pod.filter(|_| may_be_moved) {
        let other_end = ends.pod.rtnl.other_end(in_pod).map_err(|source| pod::observe(&in_pod.name, source))?;
        let is_ours = |link: &Link| link.alias.as_ref() == Some(&wiring.names.alias);
        let link = other_end.filter(is_ours).map(|link| observed_link(link, Some(in_pod.index)));
        return Ok(Side { link, ..Side::default() });
    }
    let netns_id = ends.node.id_of(&ends.pod.netns)?;
    let leads_there = |link: &&Link| on_node.as_ref().is_some_and(|host| host.leads_to(link, netns_id));
    let peer = in_pod.filter(leads_there).map(|link| link.index);
    let mut side = side(steps, ends, Place::Host, on_node)?;
    side.link.iter_mut().for_each(|link| link.peer = peer);
    Ok(side)
}

/// Other links' routes count inside the pod alone; on the node they are all other pods'.
fn side(steps: &[Step], ends: &Ends<'_>, place: Place, link: Option<Link>) -> Result<Side, Error> {
    let Some(link) = link else { return Ok(Side::default()) };
    let (rtnl, is_pod) = (ends.rtnl(place), place == Place::Pod);
    let unreadable = |source| pod::observe(&link.name, source);
    let addresses = rtnl.addresses(link.index).map_err(unreadable)?;
    let neighbours = steps.iter().filter_map(|step| match step {
        Step::Neighbour { place: wanted, address, .. } if *wanted == place => Some((link.index, *address)),
        _ => None,
    });
    let neighbours = rtnl.neighbours_of(&neighbours.collect::<Vec<_>>()).map_err(unreadable)?;
    let links = if is_pod { rtnl.links().map_err(unreadable)? } else { vec![link.clone()] };
    let oif = (!is_pod).then_some(link.index);
    let routes = rtnl.routes(&RouteFilter { oif, ..RouteFilter::default() }).map_err(unreadable)?;
    let shaped = rtnl.shaped(link.index).map_err(unreadable)?;
    Ok(Side {
        shaped: shaped.map(|kernel::rtnl::Shaped { rate, limit }| Shaped { rate, limit }),
        addresses: addresses.into_iter().map(|address| address.network).collect(),
        routes: routes.into_iter().filter_map(|route| observed_route(&route, &links)).collect(),
        neighbours: neighbours
            .into_iter()
            .filter(|entry| entry.permanent)
            .filter_map(|entry| Some((entry.address, entry.mac?)))
            .collect(),
        link: Some(observed_link(link, None)),
    })
}

fn observed_link(link: Link, peer: Option<u32>) -> ObservedLink {
    let Link { index, up, carrier, mac, alias, .. } = link;
    ObservedLink { index, peer, up, carrier, mac, alias }
}

/// A link that came or went between the two looks is none of the attachment's.
fn observed_route(route: &kernel::rtnl::Route, links: &[Link]) -> Option<ObservedRoute> {
    let link = links.iter().find(|link| link.index == route.oif)?.name.clone();
    let table = route.table.filter(|table| *table != MAIN_TABLE);
    Some(ObservedRoute { dst: route.dst, gw: route.gateway, link, table })
}

/// A setting that cannot be read is left out: that is a difference, not a failure of CHECK.
fn sysctls(steps: &[Step], ends: &Ends<'_>) -> Result<BTreeMap<(Place, String), String>, Error> {
    let keys = |wanted: Place| {
        steps.iter().filter_map(move |step| match step {
            Step::Sysctl { place, key, .. } if *place == wanted => Some(key.clone()),
            _ => None,
        })
    };
    let read = |place: Place| {
        keys(place).filter_map(|key| Some(((place, key.clone()), sysctl::get(&key).ok()?))).collect::<BTreeMap<_, _>>()
    };
    let mut values = read(Place::Host);
    let in_pod = ends.pod.netns.run(|| read(Place::Pod));
    values.extend(in_pod.map_err(|source| pod::observe("the pod's settings", source))?);
    Ok(values)
}
