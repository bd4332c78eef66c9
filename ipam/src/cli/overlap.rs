//! Who else leases the same addresses: another ledger, or host-local, which the node had before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;

use super::finding::{Finding, Kind, Severity};
use super::networks::{Configured, Network};
use super::transfer::host_local;
use super::view::View;
use crate::Ledger;
use crate::event::Event;

pub(super) fn findings(ledger: &Ledger, view: &View, history: &[Event], configured: &Configured) -> Vec<Finding> {
    let mut found = ledgers(&configured.networks);
    found.extend(left_by_host_local(ledger, view, history, configured));
    found
}

/// Two ledgers know nothing of each other, so that pools of both lend an address twice.
fn ledgers(networks: &[Network]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, one) in networks.iter().enumerate() {
        for other in networks.iter().skip(index + 1).filter(|other| other.ledger.dir() != one.ledger.dir()) {
            let Some(address) = common(one, other) else { continue };
            let (names, dirs) =
                ([one, other].map(|it| &it.terms.network), [one, other].map(|it| it.ledger.dir().display()));
            let problem = format!(
                "leases addresses that network {} leases too, and their ledgers, in {} and {}, do not know of each other",
                names[1], dirs[0], dirs[1]
            );
            let finding = Finding::new(Severity::Warning, Kind::Overlap, format!("network {}", names[0]), problem);
            found.push(finding.at(address).fix("give both the same ipam.dataDir, or pools that do not overlap"));
        }
    }
    found
}

/// The first address that both lease.
fn common(one: &Network, other: &Network) -> Option<std::net::IpAddr> {
    let spans =
        |network: &Network| -> Vec<_> { network.terms.pools.iter().flat_map(|pool| pool.spans().to_vec()).collect() };
    let others = spans(other);
    spans(one)
        .into_iter()
        .flat_map(|span| others.iter().filter_map(move |it| span.common(*it)))
        .map(|it| it.first)
        .min()
}

/// Addresses of networks of ours that host-local has leased to attachments that this ledger has never known.
fn left_by_host_local(ledger: &Ledger, view: &View, history: &[Event], configured: &Configured) -> Vec<Finding> {
    let known: BTreeSet<&Attachment> =
        view.leases().iter().chain(history.iter().map(|event| &event.lease)).map(|lease| &lease.attachment).collect();
    let mut folders: Vec<(PathBuf, &Network)> = Vec::new();
    for network in configured.networks.iter().filter(|network| network.ledger.dir() == ledger.dir()) {
        // Its own `dataDir` is the ledger's folder, in a config that was taken over as it was.
        for dir in [Path::new(host_local::DIR), ledger.dir()] {
            folders.push((dir.join(network.terms.network.as_str()), network));
        }
    }
    folders.sort_by(|(one, _), (other, _)| one.cmp(other));
    folders.dedup_by(|(one, _), (other, _)| one == other);
    let mut found = Vec::new();
    for (folder, network) in folders {
        let held = host_local::held(&folder, &network.terms.network);
        for (address, attachment) in held.into_iter().filter(|(_, attachment)| !known.contains(attachment)) {
            let problem = "host-local has leased it to a pod that this ledger does not know, so it may be lent again";
            let finding = Finding::new(Severity::Warning, Kind::HeldByHostLocal, attachment.to_string(), problem);
            let import = format!("ipam import host-local:{}", folder.display());
            found.push(finding.at(address).fix(format!("{import}; if the pod is gone, remove the file")));
        }
    }
    found
}
