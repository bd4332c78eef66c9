//! `route_localnet`: whether the pod's interface on the host takes answers to 127.0.0.1.
//!
//! The guard chain of [`crate::ruleset`] keeps neighbours out while it is set. It goes with the table, so the
//! sysctl goes before.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use kernel::rtnl::{self, RouteFilter, Rtnl};
use kernel::sysctl;
use nft_model::{Element, Family, Value};

use crate::config::Config;
use crate::difference::Difference;
use crate::error::Error;
use crate::firewall::Firewall;
use crate::ruleset::{Entry, HAIRPIN};

/// Lets answers to 127.0.0.1 in by the interface that leads to the pod. Nothing is done where the pod is not a
/// neighbour: where there is no route to it, or one by way of a router.
///
/// # Errors
/// When the route cannot be looked up or the sysctl not be set.
pub fn allow(config: &Config) -> Result<(), Error> {
    let Some(key) = key_for(config)? else { return Ok(()) };
    sysctl::set(&key, "1").map(drop).map_err(|source| Error::Localnet { key, source })
}

/// What CHECK has to say about it.
///
/// # Errors
/// When the route cannot be looked up or the sysctl not be read.
pub fn difference(config: &Config) -> Result<Option<Difference>, Error> {
    let Some(key) = key_for(config)? else { return Ok(None) };
    let found = sysctl::get(&key).map_err(|source| Error::Localnet { key: key.clone(), source })?;
    Ok((found != "1").then(|| Difference::new(format!("sysctl {key}"), Some("1".to_owned()), Some(found))))
}

/// Takes it back on interfaces that led to the pods of the hairpin elements in `gone`, and to no other pod that needs it.
/// A pod's own veth goes anyway; a bridge stays, and must not stay open.
///
/// # Errors
/// When routes, elements or the sysctl cannot be read, or it cannot be set.
pub fn withdraw(firewall: &mut Firewall, gone: &[Entry]) -> Result<(), Error> {
    let hairpins = gone.iter().filter(|entry| entry.set == HAIRPIN);
    let pods: Vec<Ipv4Addr> = hairpins.filter_map(|entry| hairpin_pod(&entry.element)).collect();
    if pods.is_empty() {
        return Ok(());
    }
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    let mut interfaces = BTreeMap::new();
    for pod in &pods {
        interfaces.extend(interface(&rtnl, *pod)?);
    }
    for (index, name) in interfaces {
        let key = key(&name);
        let set = |value| match sysctl::set(&key, value) {
            // The interface is gone, and what was open with it.
            Err(kernel::Error::SysctlRead { source, .. } | kernel::Error::SysctlWrite { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            result => result.map_err(|source| Error::Localnet { key: key.clone(), source }),
        };
        // An ADD claims first and sets the sysctl then. Looking again after the change sees the claim of every ADD
        // whose setting the change may have undone.
        if !needed(firewall, &rtnl, index, &pods)? && set("0")? && needed(firewall, &rtnl, index, &pods)? {
            set("1")?;
        }
    }
    Ok(())
}

/// Whether the interface leads to a pod with a hairpin element.
fn needed(firewall: &mut Firewall, rtnl: &Rtnl, index: u32, gone: &[Ipv4Addr]) -> Result<bool, Error> {
    for pod in gone {
        // The address may be somebody else's by now.
        let pod = Value::Addr(IpAddr::V4(*pod));
        if firewall.element(Family::Ip, HAIRPIN, &[pod.clone(), pod])?.is_some() {
            return Ok(true);
        }
    }
    let filter = RouteFilter { oif: Some(index), family: Some(rtnl::Family::Inet), ..RouteFilter::default() };
    let mut routes = rtnl.routes(&filter).map_err(Error::Route)?;
    // The usual case, a veth with one pod behind it, is decided without reading everybody's elements.
    routes.retain(|route| !gone.iter().any(|pod| route.dst == IpNetwork::from(IpAddr::V4(*pod))));
    if routes.is_empty() {
        return Ok(false);
    }
    let elements = firewall.elements(Family::Ip, HAIRPIN)?;
    let behind = |pod: Ipv4Addr| routes.iter().any(|route| route.dst.contains(IpAddr::V4(pod)));
    Ok(elements.iter().filter_map(hairpin_pod).any(behind))
}

fn hairpin_pod(element: &Element) -> Option<Ipv4Addr> {
    match element.key.as_slice() {
        [Value::Addr(IpAddr::V4(pod)), Value::Addr(_)] => Some(*pod),
        _ => None,
    }
}

/// The sysctl that `config` needs.
fn key_for(config: &Config) -> Result<Option<String>, Error> {
    let (Some(pod), true, true) = (config.pod.v4, config.maps(Family::Ip), config.settings.reaches_from_loopback())
    else {
        return Ok(None);
    };
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    Ok(interface(&rtnl, pod)?.map(|(_, name)| key(&name)))
}

/// Index and name of the interface that a pod is a neighbour on.
fn interface(rtnl: &Rtnl, pod: Ipv4Addr) -> Result<Option<(u32, String)>, Error> {
    let route = rtnl.route_to(IpAddr::V4(pod)).map_err(Error::Route)?;
    let Some(route) = route.filter(|route| route.gateway.is_none()) else { return Ok(None) };
    let link = rtnl.link_by_index(route.oif).map_err(Error::Route)?;
    Ok(link.filter(|link| link.name != "lo").map(|link| (link.index, link.name)))
}

fn key(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/route_localnet")
}
