//! Carrying out a plan, one step after the other.

use std::net::IpAddr;
use std::os::fd::AsFd;

use cni_spec::{NetworkName, Route};
use ipam::marks::ROUTE_PROTOCOL;
use kernel::rtnl::{self, VethPair};
use kernel::sysctl;

use crate::config::Rate;
use crate::firewall::Firewall;
use crate::plan::Wiring;
use crate::pod::Ends;
use crate::step::{Place, RULE_PRIORITY, Step, keep_addresses};
use crate::{Error, iptables};

/// Carries out the steps in order and stops at the first that fails. Rules of iptables come
/// last, and after them elements of nf_tables, all of them in one transaction.
///
/// # Errors
/// [`Error::Step`] with the step in the words of its tool.
pub fn apply(steps: &[Step], ends: &Ends<'_>, wiring: &Wiring, network: &NetworkName) -> Result<(), Error> {
    let (mut elements, mut members) = (Vec::new(), Vec::new());
    for step in steps {
        let failed = |source| Error::Step { step: step.to_string(), source };
        match step {
            Step::Veth { .. } => create_veth(step, ends).map_err(failed)?,
            Step::Sysctl { place, key, value } => {
                let found = set(*place, key, value, ends).map_err(failed)?;
                refuse_other_value(key, value, found)?;
            }
            Step::Alias { link, owner } => note_owner(link, owner, ends)?.map_err(failed)?,
            Step::KeepAddresses { link } => keep_addresses_of(link, ends),
            Step::Up { place, link } => {
                let index = ends.link(*place, link)?.index;
                ends.rtnl(*place).set_up(index).map_err(failed)?;
            }
            Step::Carrier { place, link } => {
                let index = ends.link(*place, link)?.index;
                ends.rtnl(*place).wait_for_carrier(index).map_err(failed)?;
            }
            Step::Rename { from, to } => {
                let index = ends.link(Place::Host, from)?.index;
                ends.node.rtnl.rename_link(index, to).map_err(failed)?;
            }
            Step::Address { place, link, address } => {
                let index = ends.link(*place, link)?.index;
                let added = match place {
                    Place::Pod => ends.pod.rtnl.add_address(index, *address),
                    Place::Host => ends.node.rtnl.add_listening_address(index, *address),
                };
                added.map_err(failed)?;
            }
            Step::Neighbour { place, link, address, mac, permanent } => {
                let index = ends.link(*place, link)?.index;
                let rtnl = ends.rtnl(*place);
                let replaced = match permanent {
                    true => rtnl.replace_neighbour(index, *address, *mac),
                    false => rtnl.replace_neighbour_for_now(index, *address, *mac),
                };
                replaced.map_err(failed)?;
            }
            Step::Route { place, link, route, source } => {
                let oif = ends.link(*place, link)?.index;
                ends.rtnl(*place).replace_route(&kernel_route(route, oif, *source)).map_err(failed)?;
            }
            Step::Rule { from, table } => {
                ends.pod.rtnl.add_rule(&kernel_rule(*from, *table)).map(drop).map_err(failed)?;
            }
            Step::Shape { place, link, rate: Rate { rate, burst, limit } } => {
                let index = ends.link(*place, link)?.index;
                let bucket = rtnl::TokenBucket { rate: *rate, burst: *burst, limit: *limit };
                ends.rtnl(*place).shape(index, &bucket).map_err(failed)?;
            }
            Step::Masquerade(member) => members.push(member.clone()),
            Step::Element(placed) => elements.push(placed.clone()),
        }
    }
    if let Some(frame) = wiring.masquerade_frame.as_ref().filter(|_| !members.is_empty()) {
        iptables::add(frame, &members)?;
    }
    if elements.is_empty() { Ok(()) } else { Firewall::open(network)?.add(&wiring.rules, &elements) }
}

fn create_veth(step: &Step, ends: &Ends<'_>) -> kernel::Result<()> {
    let Step::Veth { host, host_mac, pod, pod_mac, mtu, arp, alias, .. } = step else { return Ok(()) };
    let pair = VethPair {
        host,
        host_mac: *host_mac,
        peer: pod,
        peer_mac: *pod_mac,
        peer_netns: ends.pod.netns.as_fd(),
        mtu: *mtu,
        arp: *arp,
        alias,
    };
    ends.node.rtnl.create_veth(&pair).map(drop)
}

fn note_owner(link: &str, owner: &str, ends: &Ends<'_>) -> Result<kernel::Result<()>, Error> {
    let index = ends.link(Place::Pod, link)?.index;
    Ok(ends.pod.rtnl.set_alias(index, owner))
}

/// Sets a value and says what the kernel made of it. Settings below /proc/sys/net are those of the namespace that the
/// writing thread is in.
fn set(place: Place, key: &str, value: &str, ends: &Ends<'_>) -> kernel::Result<String> {
    let change = || if sysctl::set(key, value)? { sysctl::get(key) } else { Ok(value.to_owned()) };
    match place {
        Place::Host => change(),
        Place::Pod => ends.pod.netns.run(change)?,
    }
}

/// Whatever is in the way: the pod works without.
fn keep_addresses_of(link: &str, ends: &Ends<'_>) {
    let _kept = ends.pod.netns.run(|| sysctl::set(&keep_addresses(link), "1"));
}

/// CHECK would find another value than the config's ever after.
fn refuse_other_value(key: &str, value: &str, found: String) -> Result<(), Error> {
    if found == value {
        return Ok(());
    }
    Err(Error::SysctlValue { key: key.to_owned(), value: value.to_owned(), found })
}

fn kernel_rule(from: IpAddr, table: u32) -> rtnl::SourceRule {
    rtnl::SourceRule { from, table, priority: RULE_PRIORITY, protocol: ROUTE_PROTOCOL }
}

fn kernel_route(route: &Route, oif: u32, prefsrc: Option<IpAddr>) -> rtnl::Route {
    rtnl::Route {
        gateway: route.gw,
        onlink: route.gw.is_some(),
        prefsrc,
        scope: route.scope,
        metric: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
        table: route.table,
        ..rtnl::Route::new(route.dst, oif, ROUTE_PROTOCOL)
    }
}
