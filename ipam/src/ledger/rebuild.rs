//! The leases that can be read off the kernel: podwire marks what it makes for a pod.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName};
use ipnetwork::IpNetwork;
use kernel::rtnl::{Link, RouteFilter, Rtnl};

use super::session::{Failure, Session};
use crate::clock::{self, Moment};
use crate::event::EventKind;
use crate::marks::{ALIAS_PREFIX, ROUTE_PROTOCOL};
use crate::operation::Operation;
use crate::record::{Origin, Pod, Record, RecordedAddress};
use crate::store::{Change, Ended};
use crate::{Error, LeaseId};

/// One lease for each host end of a veth pair that says whose it is, with the addresses routed to it. What is known
/// already is left out.
pub(crate) fn leases_in_kernel(known: &[Record], now: Moment, boot_id: &str) -> Result<Vec<Record>, Error> {
    let rtnl = Rtnl::open().map_err(Error::Rebuild)?;
    let links = rtnl.links_of_kind("veth").map_err(Error::Rebuild)?;
    let owned: Vec<(Link, Attachment)> = links
        .into_iter()
        .filter_map(|link| {
            let attachment = owner(link.alias.as_deref()?)?;
            let is_known = known.iter().any(|lease| lease.attachment == attachment);
            (!is_known).then_some((link, attachment))
        })
        .collect();
    if owned.is_empty() {
        return Ok(Vec::new());
    }
    let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::default() };
    let routes = rtnl.routes(&filter).map_err(Error::Rebuild)?;
    let mut held: BTreeSet<IpAddr> = known.iter().flat_map(Record::ips).collect();
    let mut leases: Vec<Record> = Vec::new();
    for (link, attachment) in owned {
        let to_pod = routes.iter().filter(|route| route.oif == link.index && is_one_address(route.dst));
        let addresses: Vec<IpNetwork> = to_pod.map(|route| route.dst).filter(|dst| held.insert(dst.ip())).collect();
        if !addresses.is_empty() {
            leases.push(recovered(attachment, &addresses, now, boot_id)?);
        }
    }
    Ok(leases)
}

/// Ends the leases that were read off the kernel and whose link is gone. They may be another ledger's: whoever ends
/// them there does not tell this one. What cannot be seen is not taken for gone.
///
/// All links of the node are looked at for that, so it is done when they are to be tidied up, and before an ADD if there
/// are leases that no DEL will end here. Whoever finds a pool used up looks again, at the leases of that pool.
pub(super) fn end_what_is_gone(session: &Session<'_>, before: &Operation) -> Result<(), Failure> {
    let is_due = match before {
        Operation::Gc { .. } => true,
        Operation::Lease(wish) => has_another_ledger_s(session, &wish.terms.network)?,
        _ => false,
    };
    if !is_due {
        return Ok(());
    }
    let recovered = session.store.recovered()?;
    if recovered.is_empty() {
        return Ok(());
    }
    let Ok(alive) = attachments_with_link() else { return Ok(()) };
    let gone = recovered.into_iter().filter(|record| !alive.contains(&record.attachment));
    let ended: Vec<Ended> = gone.map(|record| Ended { record, released_at: session.now.boottime }).collect();
    if ended.is_empty() {
        return Ok(());
    }
    session.commit(&Change { ended, ..Change::default() }, EventKind::Reclaimed)
}

/// Whether leases were read off the kernel that are of no network which is served from this ledger.
fn has_another_ledger_s(session: &Session<'_>, served: &NetworkName) -> Result<bool, Failure> {
    for network in session.store.recovered_networks()? {
        if network != *served && !session.store.knows_a_pool_of(&network)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All attachments that the kernel has a link for.
pub(crate) fn attachments_with_link() -> Result<BTreeSet<Attachment>, kernel::Error> {
    let links = Rtnl::open()?.links_of_kind("veth")?;
    Ok(links.iter().filter_map(|link| owner(link.alias.as_deref()?)).collect())
}

/// The attachment in the ifalias `podwire NETWORK CONTAINERID IFNAME`.
pub(crate) fn owner(alias: &str) -> Option<Attachment> {
    alias.strip_prefix(ALIAS_PREFIX)?.parse().ok()
}

fn is_one_address(network: IpNetwork) -> bool {
    network.prefix() == if network.is_ipv4() { 32 } else { 128 }
}

fn recovered(attachment: Attachment, addresses: &[IpNetwork], now: Moment, boot_id: &str) -> Result<Record, Error> {
    let recorded = |address: &IpNetwork| RecordedAddress { address: *address, gateway: None, pool: String::new() };
    Ok(Record {
        lease_id: LeaseId(clock::unique_name()?),
        attachment,
        addresses: addresses.iter().map(recorded).collect(),
        netns: None,
        pod: Pod::default(),
        created: now.wall,
        // Nobody knows: older than every request.
        created_boottime_ms: 0,
        began_boottime_ms: None,
        boot_id: boot_id.to_owned(),
        origin: Origin::Recovered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_an_attachment_or_nothing() {
        let named = owner("podwire k8s-net 0a1b2c eth0").unwrap();
        assert_eq!(named.to_string(), "k8s-net 0a1b2c eth0");
        for other in ["", "podwire", "podwire a b", "podwire a b eth0 d", "podwire a/b c eth0", "other a b eth0"] {
            assert_eq!(owner(other), None, "{other:?}");
        }
    }
}
