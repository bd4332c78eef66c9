//! The differences between what the ledger says and what the node shows. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::super::finding::{Finding, Kind, Severity};
use super::super::networks::Configured;
use super::{Cache, Cached, PodLink, Seen};
use crate::liveness::NetnsState;
use crate::{LeaseId, Record};

/// What the node shows.
pub(super) struct Node<'a> {
    pub seen: &'a Seen,
    pub cache: &'a Cache,
    /// Whether the namespace of each lease is there.
    pub netns: &'a HashMap<LeaseId, NetnsState>,
    pub configured: &'a Configured,
}

pub(super) fn findings(leases: &[Record], node: &Node<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = leases.iter().flat_map(|lease| node.of_lease(lease)).collect();
    let unleased = node.unleased_links(leases);
    found.extend(unleased.iter().map(|link| node.of_unleased(link, leases)));
    found.extend(node.duplicate_routes());
    // What was told with its link is told.
    let untold =
        node.cache.entries.iter().filter(|entry| !unleased.iter().any(|link| link.attachment == entry.attachment));
    found.extend(untold.filter_map(|entry| unleased_result(entry, leases, node.configured)));
    found.extend(node.cache.garbage.iter().map(|(path, problem)| {
        Finding::new(Severity::Warning, Kind::Garbage, path.display().to_string(), problem)
            .fix("the runtime's own; it is left out here")
    }));
    found
}

impl Node<'_> {
    fn of_lease(&self, lease: &Record) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.life(lease).into_iter().collect();
        found.extend(self.ranges(lease));
        let Some(link) = self.seen.link(&lease.attachment) else { return found };
        for address in lease.ips() {
            let mut routes = self.seen.routes.iter().filter(|route| route.address == address).peekable();
            let subject = subject(lease);
            let said = |finding: Finding, kernel: &str| finding.at(address).said("leased", kernel, self.cached(lease));
            let again = format!("ip route replace {address} dev {} proto 112", link.name);
            if routes.peek().is_none() {
                let finding = Finding::new(Severity::Error, Kind::MissingRoute, subject, "the node has no route to it");
                found.push(said(finding, "no route").fix(again));
            } else if routes.all(|route| route.oif != link.index) {
                let problem = "the node sends its packets to another link";
                let finding = Finding::new(Severity::Error, Kind::WrongRoute, subject, problem);
                found.push(said(finding, "routed elsewhere").fix(again));
            }
        }
        if let Some(cached) = self.cache.of(&lease.attachment) {
            let missing = lease.ips().find(|ip| !cached.ips.contains(ip));
            found.extend(missing.map(|address| {
                let problem = format!("the runtime was answered otherwise: {}", join(&cached.ips));
                Finding::new(Severity::Warning, Kind::RuntimeDiffers, subject(lease), problem)
                    .at(address)
                    .said("leased", format!("link {}", link.name), join(&cached.ips))
                    .fix("delete the pod: it gets an address anew")
            }));
        }
        found
    }

    /// Whether the pod is still there.
    fn life(&self, lease: &Record) -> Option<Finding> {
        let link = self.seen.link(&lease.attachment);
        let netns = self.netns.get(&lease.lease_id)?;
        let (address, runtime) = (lease.ips().next()?, self.cached(lease));
        let finding = |severity, kind, problem: &str, kernel: &str| {
            Finding::new(severity, kind, subject(lease), problem).at(address).said("leased", kernel, runtime.clone())
        };
        match (link, netns) {
            (None, NetnsState::Gone) => {
                let finding = finding(Severity::Error, Kind::Leaked, "its pod is gone", "no link, no namespace");
                Some(finding.fix(format!("ipam gc --apply, or ipam release {address}")))
            }
            (None, NetnsState::Unknown(why)) if self.cache.exists && runtime == NOT_CACHED => {
                let problem =
                    format!("nothing speaks for its pod; whether its namespace is there, nobody can tell: {why}");
                let finding = finding(Severity::Warning, Kind::Leaked, &problem, "no link");
                Some(finding.fix(format!("if the pod is gone: ipam release {address} --force")))
            }
            (Some(link), NetnsState::Gone) => {
                let (problem, kernel) = ("its pod's namespace is gone", format!("link {}, no namespace", link.name));
                let finding = finding(Severity::Warning, Kind::DeadNetns, problem, &kernel);
                Some(
                    finding
                        .fix("the runtime's DEL or GC removes it; if none comes: ip link delete, then ipam gc --apply"),
                )
            }
            (_, NetnsState::There) if self.cache.exists && runtime == NOT_CACHED => {
                let problem = "the runtime has no result of it, so it may never send DEL";
                let finding = finding(Severity::Warning, Kind::UnknownToRuntime, problem, "namespace exists");
                Some(finding.fix(format!(
                    "ipam show {address}; if the pod is the runtime's no more: ipam release {address} --force"
                )))
            }
            _ => None,
        }
    }

    /// Addresses that no config of the network would give any more.
    fn ranges(&self, lease: &Record) -> Vec<Finding> {
        let network = &lease.attachment.network;
        let pools: Vec<_> = self.configured.pools().filter(|pool| pool.network == *network).collect();
        if pools.is_empty() {
            return Vec::new();
        }
        let foreign = lease
            .ips()
            .filter(|ip| !pools.iter().any(|known| known.pool.ranges().iter().any(|it| it.subnet.contains(*ip))));
        foreign
            .map(|address| {
                let names: Vec<String> = pools.iter().map(|known| known.pool.to_string()).collect();
                let problem = format!("is in no pool of its network: {}", names.join(", "));
                Finding::new(Severity::Warning, Kind::ForeignRange, subject(lease), problem)
                    .at(address)
                    .said("leased", "", self.cached(lease))
                    .fix("the pod keeps it; delete the pod to get one from the new pool")
            })
            .collect()
    }

    /// Links that podwire made for attachments that have no lease, and an address: without IPAM a link needs none, and has
    /// none of ours that another plugin of its chain gave.
    fn unleased_links(&self, leases: &[Record]) -> Vec<&PodLink> {
        let is_routed = |link: &&PodLink| self.seen.routes.iter().any(|route| route.oif == link.index && route.ours);
        let has_ours = |cached: &Cached| cached.ours != Some(false) && !cached.ips.is_empty();
        let is_answered = |link: &&PodLink| self.cache.of(&link.attachment).is_some_and(has_ours);
        let addressed = self.seen.links.iter().filter(|link| is_routed(link) || is_answered(link));
        addressed.filter(|link| !leases.iter().any(|it| it.attachment == link.attachment)).collect()
    }

    fn of_unleased(&self, link: &PodLink, leases: &[Record]) -> Finding {
        let is_leased = |address| leases.iter().any(|lease| lease.ips().any(|ip| ip == address));
        let mut routes = self.seen.routes.iter().filter(|route| route.oif == link.index && route.ours);
        let address = routes.find(|route| !is_leased(route.address));
        let cached = self.cache.of(&link.attachment);
        let problem = match cached {
            Some(_) => "a pod has a link, and the runtime a result of it, and it has no lease",
            None => "a pod has a link, and no lease",
        };
        let mut finding = Finding::new(Severity::Error, Kind::UnknownToLedger, link.attachment.to_string(), problem);
        let answered = || cached.and_then(|cached| cached.ips.first().copied());
        finding.address = address.map(|route| route.address).or_else(answered);
        let runtime = cached.map_or_else(|| NOT_CACHED.to_owned(), |cached| join(&cached.ips));
        // What no route leads to cannot be read off the kernel.
        let fix = match address {
            Some(_) => "ipam repair --from-kernel",
            None => "delete the pod: it gets an address anew",
        };
        finding.said("none", format!("link {}", link.name), runtime).fix(fix)
    }

    fn duplicate_routes(&self) -> Vec<Finding> {
        let mut out_of: BTreeMap<IpAddr, Vec<u32>> = BTreeMap::new();
        for route in self.seen.routes.iter().filter(|route| route.ours) {
            let links = out_of.entry(route.address).or_default();
            if !links.contains(&route.oif) {
                links.push(route.oif);
            }
        }
        let twice = out_of.into_iter().filter(|(_, links)| links.len() > 1);
        twice
            .map(|(address, links)| {
                let names = links.iter().map(|index| {
                    let link = self.seen.links.iter().find(|link| link.index == *index);
                    link.map_or_else(|| format!("link {index}"), |link| link.attachment.to_string())
                });
                let subject = names.collect::<Vec<_>>().join(" and ");
                Finding::new(Severity::Error, Kind::Duplicate, subject, "two links have the same address")
                    .at(address)
                    .said("", "routed to both", "")
                    .fix("delete the pod that is not in: ipam show ADDRESS")
            })
            .collect()
    }

    fn cached(&self, lease: &Record) -> String {
        match self.cache.of(&lease.attachment) {
            Some(cached) => join(&cached.ips),
            None if self.cache.exists => NOT_CACHED.to_owned(),
            None => String::new(),
        }
    }
}

const NOT_CACHED: &str = "no result";

/// A result of our plugin, or of another before it in a network that is ours now, that has addresses without a lease.
fn unleased_result(entry: &Cached, leases: &[Record], configured: &Configured) -> Option<Finding> {
    let is_leased = leases.iter().any(|lease| lease.attachment == entry.attachment);
    let ours = entry.ours == Some(true);
    if is_leased || entry.ips.is_empty() || !(ours || configured.serves(&entry.attachment.network)) {
        return None;
    }
    let finding = Finding::new(
        Severity::Error,
        Kind::UnknownToLedger,
        entry.attachment.to_string(),
        "the runtime has a result of it, and it has no lease",
    );
    let lease = if ours { "ipam repair --from-kernel" } else { "ipam import host-local:, once more" };
    let fix = format!("if the pod runs: {lease}; else remove the pod, or the file: ");
    let mut finding = finding.said("none", "", join(&entry.ips)).fix(format!("{fix}{}", entry.path.display()));
    finding.address = entry.ips.first().copied();
    Some(finding)
}

fn subject(lease: &Record) -> String {
    let pod = lease.pod.to_string();
    if pod.is_empty() { lease.attachment.to_string() } else { pod }
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
