//! Flows that began while nothing masqueraded: they would go on without, and nobody answers them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::conntrack::{Conntrack, Filter, Flow};
use nft_model::Family;

use crate::Error;

/// Has connection tracking forget what these addresses have sent in vain: neither translated nor answered. The next packet
/// of each is looked at like a first one. Flows that are answered go on.
///
/// # Errors
/// [`Error::Flows`].
pub fn begin_anew(addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
    let mut tracking = Conntrack::open().map_err(|source| Error::Flows { source })?;
    for family in Family::ALL {
        if !addresses.iter().any(|address| Family::of(*address) == family) {
            continue;
        }
        let flows = tracking.flows(&Filter::of(family)).map_err(|source| Error::Flows { source })?;
        for flow in flows.iter().filter(|flow| is_in_vain(flow, addresses)) {
            tracking.delete(flow).map_err(|source| Error::Flows { source })?;
        }
    }
    Ok(())
}

fn is_in_vain(flow: &Flow, addresses: &BTreeSet<IpAddr>) -> bool {
    let Flow { original, reply, dnat, answered, .. } = flow;
    let is_as_sent = reply.dst == original.src && reply.src == original.dst;
    !answered && !dnat && is_as_sent && addresses.contains(&original.src.ip())
}
