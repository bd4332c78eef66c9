//! Putting back what a flushed firewall has lost: the guard and the masquerade of every pod that is there.
//!
//! What there is of a pod the kernel knows; what was asked for is known by `wish`. `tables` compares a table with what it should
//! be. Pods come and go meanwhile, and addresses change hands: rules are put back of those only that are as they were when
//! nobody else can change rules, by the generation of nf_tables or the turn of iptables. DEL takes the link before the rules,
//! so whoever then finds the same link and addresses there afterwards has left nothing behind: the DEL comes, and finds them.

mod flows;
mod living;
mod routeless;
pub(crate) mod tables;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::error::with_causes;
use cni_spec::{Attachment, NetworkName};
use nft_model::{Change, Family, Table};

use crate::config::{Backend, Guard, Masquerade};
use crate::diff::Difference;
use crate::firewall::Firewall;
use crate::masquerade::iptables::{Frame, Member};
use crate::names::masquerade_table;
use crate::pod::Node;
use crate::ruleset::{self, Placed};
use crate::{Error, guard, iptables, masquerade};

use living::{Living, Look};
use routeless::Leases;
pub use wish::CONF_DIR;
use wish::{Asked, Sources};

/// What is to be done, and by what it is known.
#[derive(Debug)]
pub struct Order<'a> {
    /// Only pods of this network.
    pub network: Option<&'a NetworkName>,
    /// The folder of network configs.
    pub conf_dir: &'a Path,
    /// The folders in which libcni keeps what it did.
    pub cache_dirs: &'a [PathBuf],
    /// Whether nothing is to be changed.
    pub dry_run: bool,
}

/// What became of one pod.
#[derive(Debug)]
pub struct Outcome {
    /// Whose.
    pub attachment: Attachment,
    /// What was not as it should be.
    pub differences: Vec<Difference>,
    /// What nobody knows of it and why: whether it was masqueraded, and whether it was guarded. That is left as it is.
    /// Or that no route leads to it, or none of a family, which may be so though its guard was put back.
    pub unknown: Option<String>,
    /// Whether it went, or came again, after it was looked at: what it should have its own DEL or ADD sees to.
    pub changed_meanwhile: bool,
    /// Whether no route of a family leads to it, though it should have addresses of that.
    pub without_routes: bool,
    /// Whether its rules were not looked at, for the reason that is in `unknown`.
    pub passed_over: bool,
    /// What could not be done.
    pub failures: Vec<String>,
}

/// What was done for all.
#[derive(Debug, Default)]
pub struct Summary {
    /// Of each pod.
    pub outcomes: Vec<Outcome>,
    /// The transactions of nf_tables, one for each table.
    pub changes: Vec<Vec<Change>>,
    /// The inputs of `iptables-restore`, each with the program.
    pub restored: Vec<(String, String)>,
    /// What could not be looked at, and kept nothing from being put back.
    pub remarks: BTreeSet<String>,
    /// What failed besides, and concerns no pod alone.
    pub errors: Vec<Error>,
}

/// A pod and what it should have.
struct Wanted {
    living: Living,
    elements: Vec<Placed>,
    members: Vec<Member>,
    outcome: Outcome,
}

/// The rules that pods share, as the last ADD left them: of a network whose config was changed, the youngest pod's.
#[derive(Default)]
struct Shared {
    tables: BTreeMap<(Family, String), Table>,
    frames: BTreeMap<NetworkName, Frame>,
}

/// Has every living pod guarded and masqueraded as its ADD left it. What is right is not touched.
///
/// # Errors
/// When the node cannot be looked at. What concerns one pod is in its outcome.
pub fn all(order: &Order<'_>) -> Result<Summary, Error> {
    let node = Node::open()?;
    let sources = Sources::read(order.conf_dir, order.cache_dirs);
    let mut shared = Shared::default();
    let mut pods = Vec::new();
    let mut without_routes = Vec::new();
    let mut leases = Leases::default();
    for living in Living::all(&node, order.network)? {
        let asked = sources.of(&living.attachment);
        let should_have_addresses = match &asked {
            Ok(asked) => asked.config.ipam_type.is_some(),
            // Of a link that is for layer 2 there is no lease.
            // Nor is one looked for elsewhere than in the usual place.
            Err(_) => living.addresses.is_empty() && (!living.link.up || leases.has(&living.attachment)),
        };
        let are_routes_gone = match living.addresses.is_empty() {
            true => should_have_addresses,
            false => leases.has_more_families(&living, &asked),
        };
        if are_routes_gone {
            without_routes.push((living, asked));
            continue;
        }
        pods.push(Wanted::of(living, asked, &mut shared)?);
    }
    pods.extend(routeless::all(without_routes, &node, &mut leases, &mut shared)?);
    let mut summary = Summary::default();
    by_nftables(&mut pods, &shared, &node, order.dry_run, &mut summary);
    by_iptables(&mut pods, &shared, &node, order.dry_run, &mut summary);
    if !order.dry_run {
        settle(&mut pods, &node, &mut summary)?;
    }
    routeless::forget_finished(&mut pods, &node)?;
    summary.outcomes = pods.into_iter().map(|pod| pod.outcome).collect();
    Ok(summary)
}

fn by_nftables(pods: &mut [Wanted], shared: &Shared, node: &Node, dry_run: bool, summary: &mut Summary) {
    let Some(first) = pods.iter().find(|pod| !pod.elements.is_empty()) else { return };
    let mut firewall = match Firewall::open(&first.living.attachment.network) {
        Ok(firewall) => firewall,
        Err(error) => {
            // What iptables has can be put back all the same.
            for pod in pods.iter_mut().filter(|pod| !pod.elements.is_empty()) {
                pod.outcome.failures.push(with_causes(&error));
            }
            return;
        }
    };
    for frame in shared.tables.values() {
        let wanted: Vec<&Placed> =
            pods.iter().flat_map(|pod| &pod.elements).filter(|placed| placed.is_in(frame)).collect();
        // As with ADDs: a family that no pod has an address of needs no table.
        if wanted.is_empty() {
            continue;
        }
        let mut changed = BTreeSet::new();
        let mut look = || {
            let unchanged = unchanged(pods.iter(), node, &mut changed)?;
            Ok(unchanged.into_iter().flat_map(|pod| &pod.elements).filter(|placed| placed.is_in(frame)).collect())
        };
        let restored = firewall.restore(frame, &wanted, &mut look, dry_run);
        for pod in pods.iter_mut().filter(|pod| pod.elements.iter().any(|placed| placed.is_in(frame))) {
            match &restored {
                Ok(_) if changed.contains(&pod.living.link.index) => pod.outcome.changed_meanwhile = true,
                Ok(repair) => pod.outcome.differences.extend(repair.of_owner(&pod.living.names.owner).cloned()),
                Err(error) => pod.outcome.failures.push(with_causes(error)),
            }
        }
        summary.changes.extend(restored.ok().map(|repair| repair.changes).filter(|changes| !changes.is_empty()));
    }
}

fn by_iptables(pods: &mut [Wanted], shared: &Shared, node: &Node, dry_run: bool, summary: &mut Summary) {
    for (network, frame) in &shared.frames {
        for family in Family::ALL {
            let is_meant = |member: &Member| member.family() == family;
            let mut concerned: Vec<&mut Wanted> = pods
                .iter_mut()
                .filter(|pod| pod.living.attachment.network == *network && pod.members.iter().any(is_meant))
                .collect();
            let members: Vec<Member> =
                concerned.iter().flat_map(|pod| &pod.members).filter(|member| is_meant(member)).cloned().collect();
            if members.is_empty() {
                continue;
            }
            let mut changed = BTreeSet::new();
            let mut again = || {
                let unchanged = unchanged(concerned.iter().map(|pod| &**pod), node, &mut changed)?;
                let members = unchanged.into_iter().flat_map(|pod| &pod.members);
                Ok(members.filter(|member| is_meant(member)).cloned().collect())
            };
            let restored = iptables::restore(frame, family, &members, &mut again, dry_run, &mut summary.remarks);
            let lacked = restored.as_ref().ok().and_then(Option::as_ref).map(iptables::Restored::by_owner);
            for pod in &mut concerned {
                match &restored {
                    Ok(_) if changed.contains(&pod.living.link.index) => pod.outcome.changed_meanwhile = true,
                    Ok(None) => {}
                    Ok(Some(all)) => {
                        let own = lacked.as_ref().and_then(|lacked| lacked.get(pod.living.names.owner.as_str()));
                        pod.outcome.differences.extend(all.differences(own.map_or(&[], Vec::as_slice)));
                        if own.is_some() {
                            pod.outcome.failures.extend(all.left.as_ref().map(|error| with_causes(error)));
                        }
                    }
                    Err(error) => pod.outcome.failures.push(with_causes(error)),
                }
            }
            summary.restored.extend(restored.ok().flatten().map(|lacked| (lacked.program, lacked.repair.text)));
        }
    }
}

/// Those that are as they were; `changed` is the links of the others, as of this look and not of one before it.
fn unchanged<'a>(
    pods: impl Iterator<Item = &'a Wanted>,
    node: &Node,
    changed: &mut BTreeSet<u32>,
) -> Result<Vec<&'a Wanted>, Error> {
    let look = Look::at(node)?;
    let (unchanged, others): (Vec<&Wanted>, Vec<&Wanted>) = pods.partition(|pod| look.has(&pod.living));
    *changed = others.iter().map(|pod| pod.living.link.index).collect();
    Ok(unchanged)
}

/// After rules were added: a pod that went meanwhile leaves none, and flows that began without masquerade begin anew.
fn settle(pods: &mut [Wanted], node: &Node, summary: &mut Summary) -> Result<(), Error> {
    let mut translated = BTreeSet::new();
    if pods.iter().all(|pod| pod.outcome.differences.is_empty()) {
        return Ok(());
    }
    let look = Look::at(node)?;
    for pod in pods.iter_mut().filter(|pod| !pod.outcome.differences.is_empty()) {
        if !look.has(&pod.living) {
            pod.outcome.changed_meanwhile = true;
            let failed = pod.take_back(node).err();
            pod.outcome.failures.extend(failed.map(|error| with_causes(&error)));
        } else if pod.is_masqueraded() {
            translated.extend(pod.living.addresses.iter().copied());
        }
    }
    if !translated.is_empty() {
        summary.errors.extend(flows::begin_anew(&translated).err());
    }
    Ok(())
}

impl Outcome {
    fn of(attachment: Attachment) -> Self {
        Self {
            attachment,
            differences: Vec::new(),
            unknown: None,
            changed_meanwhile: false,
            without_routes: false,
            passed_over: false,
            failures: Vec::new(),
        }
    }
}

impl Wanted {
    fn of(living: Living, asked: Result<Asked, String>, shared: &mut Shared) -> Result<Self, Error> {
        let asked = asked.map(|asked| asked.config);
        let network = &living.attachment.network;
        let owner = &living.names.owner;
        let invalid = |source| Error::Rules { network: network.clone(), source };
        let guard = living.guard(asked.as_ref().ok().map(|config| config.guard));
        let unknown = asked.as_ref().err().and_then(|why| unknown(guard.is_some(), &living.addresses, why));
        // Of whom it is not known whether it was guarded it is not begun here: it may be open for a reason.
        let mut elements = ruleset::guarded(
            guard.unwrap_or(Guard::Off),
            &living.names.host_link,
            living.mac(),
            &living.senders(),
            owner,
        );
        let mut members = Vec::new();
        if !elements.is_empty() {
            shared.add_guard(network)?;
        }
        let masquerade: Option<Masquerade> = asked.ok().and_then(|config| config.masquerade);
        match masquerade {
            None => {}
            Some(masquerade) if masquerade.backend == Backend::Iptables => {
                let frame = Frame::new(network, &masquerade);
                members.extend(living.addresses.iter().map(|address| frame.member(*address, owner)));
                shared.frames.insert(network.clone(), frame);
            }
            Some(masquerade) => {
                for family in Family::ALL {
                    shared.add(masquerade::table(network, family, &masquerade).map_err(invalid)?);
                }
                elements.extend(ruleset::masqueraded(&masquerade_table(network), &living.addresses, owner));
            }
        }
        let attachment = living.attachment.clone();
        let outcome = Outcome { unknown, ..Outcome::of(attachment) };
        Ok(Self { living, elements, members, outcome })
    }

    /// Removes what this has added of a pod that went meanwhile, and leaves what is right if it is there again.
    fn take_back(&self, node: &Node) -> Result<(), Error> {
        let Living { attachment, names, .. } = &self.living;
        let has = |address| self.living.has_now(node, address);
        let by_nftables = Firewall::open_if_any(&attachment.network)
            .and_then(|rules| rules.map_or(Ok(()), |mut rules| rules.remove_unless(&names.owner, has)));
        let by_iptables = iptables::remove_unless(&attachment.network, &names.owner, &|address| has(Some(address)));
        Error::all_of([by_nftables.err(), by_iptables.err()].into_iter().flatten().collect())
    }

    fn is_masqueraded(&self) -> bool {
        !self.members.is_empty() || self.elements.iter().any(|placed| placed.set == masquerade::PODS)
    }
}

/// What is not known of a pod of whose config nothing is: without addresses nothing was masqueraded.
fn unknown(is_guard_known: bool, addresses: &[IpAddr], why: &str) -> Option<String> {
    let what = match (is_guard_known, addresses.is_empty()) {
        (true, true) => return None,
        (true, false) => "masquerade is",
        (false, true) => "guard is",
        (false, false) => "guard and masquerade are",
    };
    Some(format!("{what} not known, so not restored: {why}"))
}

impl Shared {
    fn add_guard(&mut self, network: &NetworkName) -> Result<(), Error> {
        for family in Family::ALL {
            let table = guard::table(family);
            self.add(table.map_err(|source| Error::Rules { network: network.clone(), source })?);
        }
        Ok(())
    }

    fn add(&mut self, table: Table) {
        self.tables.insert((table.family(), table.name().to_owned()), table);
    }
}

impl iptables::Restored {
    /// Those whose rules were not as they should be, by their owners.
    fn by_owner(&self) -> BTreeMap<&str, Vec<&Member>> {
        let mut all: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in &self.repair.members {
            all.entry(&member.owner).or_default().push(member);
        }
        all
    }

    /// What of it concerns the pod that these are of.
    fn differences(&self, members: &[&Member]) -> Vec<Difference> {
        let missing = |expected: String| Difference { expected, found: "no such rules, or others".to_owned() };
        let shared = self.repair.shared.then(|| missing(format!("{}, what its pods share", self.program)));
        shared.into_iter().chain(members.iter().map(|member| missing(member.to_string()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::names::Names;

    /// Rules are tried to be changed again and again where others change them, too.
    #[test]
    fn who_has_changed_is_told_by_the_last_look() {
        sandbox::private_host(|| {
            let ip = |arguments: &[&str]| {
                assert!(sandbox::command("ip").args(arguments).status().unwrap().success(), "{arguments:?}");
            };
            let Names { host_link, alias, .. } = Names::of(&"podnet one eth0".parse().unwrap()).unwrap();
            ip(&["link", "add", &host_link, "type", "veth", "peer", "name", "other"]);
            ip(&["link", "set", &host_link, "alias", &alias, "up"]);
            let route = |action| ip(&["route", action, "10.244.1.2/32", "dev", &host_link, "proto", "112"]);
            route("add");
            let node = Node::open().unwrap();
            let living = Living::all(&node, None).unwrap();
            let of = |living| Wanted::of(living, Err(String::new()), &mut Shared::default()).unwrap();
            let pods: Vec<Wanted> = living.into_iter().map(of).collect();
            let mut changed = BTreeSet::new();
            let mut look = || (unchanged(pods.iter(), &node, &mut changed).unwrap().len(), changed.len());
            assert_eq!(look(), (1, 0));
            route("delete");
            assert_eq!(look(), (0, 1));
            route("add");
            assert_eq!(look(), (1, 0));
        });
    }
}
