//! Answers to 127.0.0.1 and ::1: the pod's interface on the host must take them.
//!
//! In IPv4 the sysctl `route_localnet` of the interface does that. It would let every neighbour on it reach what listens
//! on 127.0.0.1, so the guard chain of [`crate::ruleset`] keeps them out while it is set. The guard goes with the last
//! rules, so the sysctl goes before any of a pod's rules do: [`crate::remove`] has no other order.
//!
//! To the kernel every value but 0 is the same. Ours is `PROTOCOL`, so that what an administrator, or somebody else's
//! plugin, has set to 1 is left at that, whatever became of the files and processes that might have remembered it.
//!
//! In IPv6 a local route does it: `ip route add local ::1 dev INTERFACE table local`. Nobody else comes in by it, because
//! the kernel drops what claims to be for ::1, or from there, before it looks at routes (ip6_rcv_core of
//! net/ipv6/ip6_input.c); only the answers, whose destination is translated back to ::1 after that, get so far.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use kernel::rtnl::{self, RouteFilter, Rtnl};
use kernel::sysctl;
use nft_model::Family;

use crate::config::Config;
use crate::difference::Difference;
use crate::error::Error;
use crate::firewall::{Firewall, Iptables, Stale};
use crate::ruleset::Entry;

/// Who made the local route, and set the sysctl: podwire, as of its other routes (rtnetlink(7), rtm_protocol).
const PROTOCOL: u8 = 112;

/// `route_localnet` of an interface that takes no answers to 127.0.0.1.
const CLOSED: &str = "0";

const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The interface that a pod is a neighbour on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Interface {
    index: u32,
    name: String,
}

/// Lets answers to 127.0.0.1 and ::1 in by the interface that leads to the pod. Nothing is done where the pod is not a
/// neighbour: where there is no route to it, or one by way of a router.
///
/// # Errors
/// When the route cannot be looked up, or the sysctl or the local route not be set.
pub fn allow(config: &Config) -> Result<(), Error> {
    for (rtnl, family, interface) in wanted(config)? {
        interface.set(&rtnl, family, true)?;
    }
    Ok(())
}

/// What CHECK has to say about it.
///
/// # Errors
/// When the route cannot be looked up, or the sysctl or the local route not be read.
pub fn differences(config: &Config) -> Result<Vec<Difference>, Error> {
    let mut all = Vec::new();
    for (rtnl, family, interface) in wanted(config)? {
        match family {
            Family::Ip => {
                let key = interface.key();
                let found = sysctl::get(&key).map_err(|source| Error::Localnet { key: key.clone(), source })?;
                if found == CLOSED {
                    all.push(Difference::new(format!("sysctl {key}"), Some(PROTOCOL.to_string()), Some(found)));
                }
            }
            Family::Ip6 => {
                let there = rtnl.has_local_route(LOOPBACK_V6, interface.index).map_err(Error::Route)?;
                if !there {
                    let route = format!("local {LOOPBACK_V6} dev {}", interface.name);
                    all.push(Difference::new("ip -6 route, table local", Some(route), None));
                }
            }
        }
    }
    Ok(all)
}

/// Takes it back on interfaces that lead to the pods of these entries, and to no other pod that needs it: to none of an
/// owner that `stale` says no to, whether the entries are still there or not. A pod's own veth goes anyway; a bridge
/// stays, and must not stay open.
///
/// # Errors
/// When routes, elements or the sysctl cannot be read, or what was set cannot be taken back.
pub fn withdraw(gone: &[Entry], stale: Stale<'_>, iptables: &Iptables) -> Result<(), Error> {
    // Where host ports lead: with a mark of somebody else's, iptables has no rules of a hairpin.
    let mut pods: Vec<IpAddr> = gone.iter().filter_map(Entry::pod).collect();
    pods.sort_unstable();
    pods.dedup();
    if pods.is_empty() {
        return Ok(());
    }
    let mut firewalls = Firewall::in_use_by(iptables)?;
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    for family in Family::ALL {
        let pods: Vec<IpAddr> = pods.iter().copied().filter(|pod| Family::of(*pod) == family).collect();
        let mut interfaces = BTreeMap::new();
        for pod in &pods {
            interfaces.extend(interface(&rtnl, *pod)?.map(|interface| (interface.index, interface)));
        }
        for interface in interfaces.into_values() {
            let index = interface.index;
            // An ADD claims first and sets it then. Looking again after the change sees the claim of every ADD whose
            // setting the change may have undone.
            if !needed(&mut firewalls, &rtnl, index, family, &pods, stale)?
                && interface.set(&rtnl, family, false)?
                && needed(&mut Firewall::in_use_by(iptables)?, &rtnl, index, family, &pods, stale)?
            {
                interface.set(&rtnl, family, true)?;
            }
        }
    }
    Ok(())
}

/// Closes whatever is still open by our doing, if nobody is left whom `stale` says no to: an interface that could not be closed
/// when its pod went is not named by anything that is in the firewall now.
///
/// # Errors
/// When elements, interfaces or the sysctl cannot be read, or what was set cannot be taken back.
pub fn close_rest(stale: Stale<'_>, iptables: &Iptables) -> Result<(), Error> {
    if is_used(stale, iptables)? {
        return Ok(());
    }
    let rtnl = Rtnl::open().map_err(Error::Route)?;
    let mut closed = Vec::new();
    for link in rtnl.links().map_err(Error::Route)?.into_iter().filter(|link| link.name != "lo") {
        let interface = Interface { index: link.index, name: link.name };
        for family in Family::ALL {
            if interface.set(&rtnl, family, false)? {
                closed.push((interface.clone(), family));
            }
        }
    }
    // As in `withdraw`: for an ADD that has claimed meanwhile.
    if !closed.is_empty() && is_used(stale, iptables)? {
        for (interface, family) in closed {
            interface.set(&rtnl, family, true)?;
        }
    }
    Ok(())
}

fn is_used(stale: Stale<'_>, iptables: &Iptables) -> Result<bool, Error> {
    for firewall in &mut Firewall::in_use_by(iptables)? {
        for family in Family::ALL {
            if firewall.is_used(family, stale)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the interface leads to a pod of a living owner.
fn needed(
    firewalls: &mut [Firewall],
    rtnl: &Rtnl,
    index: u32,
    family: Family,
    gone: &[IpAddr],
    stale: Stale<'_>,
) -> Result<bool, Error> {
    for firewall in firewalls.iter_mut() {
        for pod in gone {
            // The address may be somebody else's by now.
            if firewall.serves(*pod, stale)? {
                return Ok(true);
            }
        }
    }
    let of = if family == Family::Ip { rtnl::Family::Inet } else { rtnl::Family::Inet6 };
    let filter = RouteFilter { oif: Some(index), family: Some(of), ..RouteFilter::default() };
    let mut routes = rtnl.routes(&filter).map_err(Error::Route)?;
    // The usual case, a veth with one pod behind it, is decided without reading everybody's elements.
    let link_local = |route: &rtnl::Route| matches!(route.dst.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast());
    routes.retain(|route| !link_local(route) && !gone.iter().any(|pod| route.dst == IpNetwork::from(*pod)));
    if routes.is_empty() {
        return Ok(false);
    }
    let behind = |pod: &IpAddr| routes.iter().any(|route| route.dst.contains(*pod));
    for firewall in firewalls {
        if firewall.pods(family, stale)?.iter().any(behind) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where `config` needs it, by family.
fn wanted(config: &Config) -> Result<Vec<(Rtnl, Family, Interface)>, Error> {
    let mut wanted = Vec::new();
    if !config.settings.reaches_from_loopback() {
        return Ok(wanted);
    }
    for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
        let Some(pod) = config.pod.address(family) else { continue };
        let rtnl = Rtnl::open().map_err(Error::Route)?;
        if let Some(interface) = interface(&rtnl, pod)? {
            wanted.push((rtnl, family, interface));
        }
    }
    Ok(wanted)
}

fn interface(rtnl: &Rtnl, pod: IpAddr) -> Result<Option<Interface>, Error> {
    let route = rtnl.route_to(pod).map_err(Error::Route)?;
    let Some(route) = route.filter(|route| route.gateway.is_none()) else { return Ok(None) };
    let link = rtnl.link_by_index(route.oif).map_err(Error::Route)?;
    let link = link.filter(|link| link.name != "lo");
    Ok(link.map(|link| Interface { index: link.index, name: link.name }))
}

impl Interface {
    /// Opens or closes it. Says whether that was necessary.
    fn set(&self, rtnl: &Rtnl, family: Family, open: bool) -> Result<bool, Error> {
        match (family, open) {
            (Family::Ip, true) => self.replace(CLOSED, &PROTOCOL.to_string()),
            (Family::Ip, false) => match self.replace(&PROTOCOL.to_string(), CLOSED) {
                // The interface is gone, and what was open with it.
                Err(Error::Localnet {
                    source: kernel::Error::SysctlRead { source, .. } | kernel::Error::SysctlWrite { source, .. },
                    ..
                }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
                result => result,
            },
            (Family::Ip6, true) => rtnl.add_local_route(LOOPBACK_V6, self.index, PROTOCOL).map_err(Error::Route),
            (Family::Ip6, false) => rtnl.delete_local_route(LOOPBACK_V6, self.index, PROTOCOL).map_err(Error::Route),
        }
    }

    /// Sets the sysctl to `new` if it is `old`. Says whether it was.
    fn replace(&self, old: &str, new: &str) -> Result<bool, Error> {
        let failed = |source| Error::Localnet { key: self.key(), source };
        if sysctl::get(&self.key()).map_err(failed)? != old {
            return Ok(false);
        }
        sysctl::set(&self.key(), new).map_err(failed)
    }

    fn key(&self) -> String {
        format!("net/ipv4/conf/{}/route_localnet", self.name)
    }
}
