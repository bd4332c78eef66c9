//! Tracked flows that a change of mappings makes wrong: they would go on as they began.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::conntrack::{Conntrack, Filter, Flow};
use kernel::rtnl::Rtnl;
use nft_model::{Proto, Value};

use crate::error::Error;
use crate::firewall::Firewall;
use crate::forward::Forward;
use crate::ruleset::EXACT;

/// How often stale flows are looked for: as long as there are some, because a packet that met the old rules may become
/// a flow after it was looked for.
const LOOKS: u32 = 10;

/// The index that `lo` has in every network namespace (`LOOPBACK_IFINDEX` of net/flow.h).
const LOOPBACK: u32 = 1;

/// Ends the flows through mappings that are gone. Everything else of the same pods, and of the same ports, goes on.
///
/// # Errors
/// When the kernel refuses.
pub fn cut(gone: &[Forward]) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    if let [only] = gone {
        return tracking.delete_matching(&through(only)).map_err(Error::Flows);
    }
    // Each deletion by filter goes through the whole table; listing does it once for a pod.
    let mut pods = BTreeMap::<IpAddr, Vec<Filter>>::new();
    for forward in gone {
        pods.entry(forward.pod.ip()).or_default().push(through(forward));
    }
    for (pod, filters) in pods {
        let of_pod = Filter { reply_src: Some(pod), dnat: true, ..Filter::of(nft_model::Family::of(pod)) };
        for flow in tracking.flows(&of_pod).map_err(Error::Flows)? {
            if filters.iter().any(|filter| filter.takes(&flow)) {
                tracking.delete(&flow).map_err(Error::Flows)?;
            }
        }
    }
    Ok(())
}

/// Ends UDP flows that began before these mappings were there, so that the next packet goes to the pod. TCP and SCTP
/// begin anew by themselves.
///
/// # Errors
/// When the kernel refuses.
pub fn refresh(firewall: &mut Firewall, new: &[Forward]) -> Result<(), Error> {
    let udp: Vec<&Forward> = new.iter().filter(|forward| forward.protocol == Proto::Udp).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let (mut tracking, rtnl) = (Conntrack::open().map_err(Error::Flows)?, Rtnl::open().map_err(Error::Route)?);
    for forward in udp {
        for _ in 0..LOOKS {
            let mut stale = Vec::new();
            for flow in tracking.flows(&to(forward)).map_err(Error::Flows)? {
                if !leads_to_pod(&flow, forward) && is_for(firewall, &rtnl, &flow, forward)? {
                    stale.push(flow);
                }
            }
            if stale.is_empty() {
                break;
            }
            for flow in stale {
                tracking.delete(&flow).map_err(Error::Flows)?;
            }
        }
    }
    Ok(())
}

/// Whether flows can be ended at all.
///
/// # Errors
/// When the kernel has no ctnetlink (`CONFIG_NF_CT_NETLINK`), or the caller may not use it.
pub fn available() -> Result<(), Error> {
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    // Asked for what hardly anybody has.
    let few = Filter { protocol: Some(Proto::Sctp), original_port: Some(1), ..Filter::of(nft_model::Family::Ip) };
    tracking.flows(&few).map(drop).map_err(Error::Flows)
}

/// The flows through a mapping.
pub fn through(forward: &Forward) -> Filter {
    Filter { reply_src: Some(forward.pod.ip()), reply_port: Some(forward.pod.port()), dnat: true, ..to(forward) }
}

/// The flows to the port of a mapping, wherever they go.
fn to(forward: &Forward) -> Filter {
    Filter {
        protocol: Some(forward.protocol),
        original_dst: forward.host_ip,
        original_port: Some(forward.host_port),
        ..Filter::of(forward.family)
    }
}

fn leads_to_pod(flow: &Flow, forward: &Forward) -> bool {
    flow.dnat && flow.reply.src == forward.pod
}

/// Whether the mapping decides about the flow: it is for an address of the node, and no mapping for that address alone
/// is before this one.
fn is_for(firewall: &mut Firewall, rtnl: &Rtnl, flow: &Flow, forward: &Forward) -> Result<bool, Error> {
    let address = flow.original.dst.ip();
    let route = rtnl.route_to(address).map_err(Error::Route)?;
    if route.is_none_or(|route| route.oif != LOOPBACK) {
        return Ok(false);
    }
    if forward.host_ip.is_some() {
        return Ok(true);
    }
    let key = [Value::Addr(address), Value::Proto(forward.protocol), Value::Port(forward.host_port)];
    Ok(firewall.element(forward.family, EXACT, &key)?.is_none())
}
