//! CHECK: reads what is there, and compares it with the plan that `prevResult` implies.

use std::net::IpAddr;

use cni_spec::{CheckRequest, CniResult, IpConfig, SpecVersion};
use ipam::marks::ROUTE_PROTOCOL;
use kernel::rtnl::{Route, RouteFilter};

use crate::config::Config;
pub use crate::diff::Difference;
use crate::diff::{differences, surplus};
use crate::firewall::Firewall;
use crate::observe::observe;
use crate::plan::Wiring;
use crate::pod::{self, Ends, Node, Pod};
use crate::pod_rules::MAIN_TABLE;
use crate::{Error, addresses, backend, iptables, pod_rules};

/// Serves a CHECK.
///
/// # Errors
/// [`Error::Differs`] with every difference; the IPAM plugin's own error if only that fails.
pub fn check(request: &CheckRequest) -> Result<(), Error> {
    let config = backend::settle(Config::for_pod(&request.config, &request.args).map_err(Error::Config)?)?;
    let node = Node::open()?;
    let pod = Pod::open(&request.netns)?;
    let wiring = beside_others(expected(request, &config, &node, &pod)?, &pod)?;
    let steps: Vec<_> = wiring.link_steps().into_iter().chain(wiring.address_steps()).collect();

    let needs_rules = !wiring.rules.is_empty();
    let network = &request.attachment.network;
    let mut firewall = if needs_rules { Some(Firewall::open(network)?) } else { Firewall::open_if_any(network)? };
    let observed = observe(&steps, &wiring, &Ends { node: &node, pod: &pod }, firewall.as_mut())?;
    let mut found = unlisted(&request.prev_result, &wiring, &config);
    found.extend(differences(&steps, &observed));
    found.extend(surplus(&wiring.names.owner, &wiring.elements(), &observed));
    if let Some(firewall) = firewall.as_mut() {
        found.extend(firewall.differences(&wiring.rules, &wiring.elements())?);
    }
    if let Some(frame) = &wiring.masquerade_frame {
        found.extend(iptables::differences(frame, &wiring.members(), &wiring.names.owner)?);
    }
    match &config.ipam_type {
        _ if !found.is_empty() => Err(Error::Differs(found)),
        Some(ipam_type) => addresses::check(ipam_type, request),
        None => Ok(()),
    }
}

/// What ADD would have made of the addresses and routes that `prevResult` lists for this interface.
fn expected(request: &CheckRequest, config: &Config, node: &Node, pod: &Pod) -> Result<Wiring, Error> {
    let result = &request.prev_result;
    let wiring = Wiring::of(&request.attachment, config, &request.netns, config.mtu)?;
    // Without IPAM an address of the interface is a later plugin's.
    let ips = config.ipam_type.as_ref().map(|_| own_ips(result, request.attachment.ifname.as_str()));
    let mut wiring = wiring.with_addresses(&CniResult { ips: ips.unwrap_or_default(), ..CniResult::default() });
    // It was made with the prefix that the config had then.
    if let Some(link) = node.link_whosever(&wiring.names)? {
        wiring.names.host_link = link.name;
    }
    // Routes to another next hop belong to another plugin of the chain, and so do those to none: ours always have one.
    let gateways: Vec<IpAddr> = wiring.addresses.iter().map(|address| wiring.gateway_of(address)).collect();
    let ours = |gw: &Option<IpAddr>| gw.is_some_and(|gw| gateways.contains(&gw));
    wiring.routes = result.routes.iter().filter(|route| ours(&route.gw)).cloned().collect();
    if request.config.cni_version < SpecVersion::V1_1_0 {
        find_tables(&mut wiring, pod)?;
    }
    Ok(wiring)
}

/// Before version 1.1.0 a result does not say which table a route is in, so the pod is asked; one that is in none is missed in
/// the main one.
fn find_tables(wiring: &mut Wiring, pod: &Pod) -> Result<(), Error> {
    let unreadable = |source| pod::observe("the pod's routes", source);
    let Some(link) = pod.rtnl.link(&wiring.ifname).map_err(unreadable)? else { return Ok(()) };
    let filter = RouteFilter { oif: Some(link.index), protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
    let there = pod.rtnl.routes(&filter).map_err(unreadable)?;
    for route in &mut wiring.routes {
        let same = |found: &&Route| (found.dst, found.gateway) == (route.dst, route.gw);
        let tables: Vec<u32> = there.iter().filter(same).map(|found| found.table.unwrap_or(MAIN_TABLE)).collect();
        if !tables.contains(&MAIN_TABLE) {
            route.table = tables.first().copied();
        }
    }
    Ok(())
}

/// With what other networks gave the pod, if this attachment made way for it.
fn beside_others(wiring: Wiring, pod: &Pod) -> Result<Wiring, Error> {
    if !wiring.routes.iter().any(|route| route.table == Some(wiring.names.table)) {
        return Ok(wiring);
    }
    let others = pod_rules::other_defaults(pod, &wiring.ifname)?;
    Ok(wiring.beside(others))
}

/// The addresses of the interface of that name that is inside a sandbox.
pub(crate) fn own_ips(result: &CniResult, ifname: &str) -> Vec<IpConfig> {
    let is_ours = |index: usize| {
        let interface = result.interfaces.get(index);
        interface.is_some_and(|interface| interface.sandbox.is_some() && interface.name == ifname)
    };
    result.ips.iter().filter(|ip| ip.interface.is_some_and(is_ours)).cloned().collect()
}

/// What `prevResult` should list and does not.
fn unlisted(result: &CniResult, wiring: &Wiring, config: &Config) -> Vec<Difference> {
    let missing = |expected: String| Difference { expected, found: "nothing of the kind in prevResult".to_owned() };
    let mut found = Vec::new();
    for interface in wiring.interfaces() {
        let listed = |other: &cni_spec::Interface| {
            other.name == interface.name && other.sandbox.is_some() == interface.sandbox.is_some()
        };
        if !result.interfaces.iter().any(listed) {
            found.push(missing(format!("interface {}", interface.name)));
        }
    }
    if wiring.addresses.is_empty() && config.ipam_type.is_some() {
        found.push(missing(format!("an address of interface {}", wiring.ifname)));
    }
    found
}
