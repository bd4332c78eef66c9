//! All host ports of the node, from the firewall, with what records and connection tracking know of each.

use std::collections::HashMap;

use cni_spec::Attachment;
use kernel::conntrack::{Conntrack, Counters, Filter, Flow};
use nft_model::Family;

use crate::error::Error;
use crate::firewall::Firewall;
use crate::flows;
use crate::forward::Forward;
use crate::record::{Record, Records};
use crate::ruleset::{EXACT, Entry, WILDCARD};
use crate::settings::Backend;

/// One host port that is in the firewall.
#[derive(Debug, Clone)]
pub struct Mapped {
    /// What it does.
    pub forward: Forward,
    /// Which backend has it.
    pub backend: Backend,
    /// Whose it is; `None` for an element that this plugin did not make.
    pub owner: Option<Attachment>,
    /// What its ADD asked for.
    pub record: Option<Record>,
    /// What goes through it now.
    pub traffic: Traffic,
}

/// Live flows of a host port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub flows: usize,
    /// How many of them have been answered.
    pub answered: usize,
    /// What they have carried; `None` while the kernel does not count (`net.netfilter.nf_conntrack_acct`).
    pub counters: Option<Counters>,
}

/// The host ports, in the order of families, addresses and ports.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn mappings() -> Result<Vec<Mapped>, Error> {
    let records = Records::default();
    let mut all = Vec::new();
    for firewall in Firewall::all() {
        let mut firewall = firewall?;
        for (family, set) in Family::ALL.into_iter().flat_map(|family| [EXACT, WILDCARD].map(|set| (family, set))) {
            for element in firewall.elements(family, set)? {
                let owner = element.comment.as_deref().and_then(|mark| mark.parse().ok());
                let record = owner.as_ref().and_then(|owner| records.read(owner));
                let (backend, traffic) = (firewall.backend(), Traffic::default());
                let forward = Forward::of(&Entry { set, element });
                all.extend(forward.map(|forward| Mapped { forward, backend, owner, record, traffic }));
            }
        }
    }
    all.sort_by_key(|mapped| {
        let Forward { family, host_ip, protocol, host_port, .. } = mapped.forward;
        (family, host_port, protocol, host_ip)
    });
    Ok(all)
}

/// Fills in what goes through each, in one question for each family.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn count(all: &mut [Mapped]) -> Result<(), Error> {
    let mut tracking = Conntrack::open().map_err(Error::Flows)?;
    // The mappings of one port to one pod: the one for an address of its own, if there is one, comes first.
    let mut by_target = HashMap::<_, Vec<usize>>::new();
    for (index, mapped) in all.iter().enumerate() {
        let Forward { pod, protocol, host_port, .. } = mapped.forward;
        by_target.entry((pod, protocol, host_port)).or_default().push(index);
    }
    for family in Family::ALL {
        let translated = Filter { dnat: true, ..Filter::of(family) };
        for flow in tracking.flows(&translated).map_err(Error::Flows)? {
            let target = (flow.reply.src, flow.protocol, flow.original.dst.port());
            let candidates = by_target.get(&target).into_iter().flatten().copied();
            let matching = candidates.filter(|index| flows::through(&all[*index].forward).takes(&flow));
            if let Some(index) = matching.min_by_key(|index| all[*index].forward.host_ip.is_none()) {
                all[index].traffic.add(&flow);
            }
        }
    }
    Ok(())
}

impl Traffic {
    fn add(&mut self, flow: &Flow) {
        self.flows += 1;
        self.answered += usize::from(flow.answered);
        if let Some(more) = flow.counters {
            let sum = self.counters.get_or_insert_default();
            sum.packets = sum.packets.saturating_add(more.packets);
            sum.bytes = sum.bytes.saturating_add(more.bytes);
        }
    }
}
