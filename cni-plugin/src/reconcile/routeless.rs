//! Pods that no route leads to, and that should have addresses: their ADD is not done, or somebody took the routes, as setting a
//! link down does. Nothing tells which. Without routes nobody answers them, but without a guard they could send under every
//! address, so they are guarded: by those addresses of their lease that no other pod has or, where none is known, by their links
//! alone. What they may send from already stays, unless another pod has that address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_spec::Attachment;
use cni_spec::error::with_causes;
use ipam::{Ledger, Record};

use super::living::{Living, Look};
use super::wish::Asked;
use super::{Outcome, Shared, Wanted};
use crate::config::Guard;
use crate::pod::Node;
use crate::{Error, ruleset};

/// How long a ledger is waited for; what cannot be read now is read by the next run.
const PATIENCE: Duration = Duration::from_secs(2);

/// Those that have no routes still, with the guard that they should have.
///
/// # Errors
/// [`Error::Observe`], [`Error::Rules`].
pub fn all(
    found: Vec<(Living, Result<Asked, String>)>,
    node: &Node,
    leases: &mut Leases,
    shared: &mut Shared,
) -> Result<Vec<Wanted>, Error> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    // Most ADDs are further by now.
    let look = Look::at(node)?;
    let still = found.into_iter().filter(|(living, _)| look.has(living));
    still.map(|(living, asked)| wanted(living, asked, &look, leases, shared)).collect()
}

/// Takes out those whose ADD has come further, or that are gone, and of whom nothing was wrong.
///
/// # Errors
/// [`Error::Observe`].
pub fn forget_finished(pods: &mut Vec<Wanted>, node: &Node) -> Result<(), Error> {
    if pods.iter().any(|pod| pod.outcome.without_routes) {
        let look = Look::at(node)?;
        let is_nothing = |outcome: &Outcome| outcome.differences.is_empty() && outcome.failures.is_empty();
        let is_still = |pod: &Wanted| look.has_link_and_routes(&pod.living);
        pods.retain(|pod| !pod.outcome.without_routes || !is_nothing(&pod.outcome) || is_still(pod));
    }
    Ok(())
}

fn wanted(
    mut living: Living,
    asked: Result<Asked, String>,
    look: &Look,
    leases: &mut Leases,
    shared: &mut Shared,
) -> Result<Wanted, Error> {
    // Of whose config nothing is known, the usual place may tell.
    let ledger = asked.as_ref().map_or_else(|_| Some(usual_ledger()), |asked| asked.ledger.clone());
    let asked = asked.ok();
    let guard = living.guard(asked.as_ref().map(|asked| asked.config.guard));
    let told = asked.as_ref().and_then(|asked| asked.config.mac);
    // Its neighbour entry went with the routes, so nothing but what was asked for tells a hardware address that was told.
    let mac = if living.link.arp { told } else { Some(living.mac()) };
    let mut elements = Vec::new();
    let known = match (guard, mac) {
        (Some(Guard::Strict), None) | (None, _) => None,
        (Some(guard), mac) => Some((guard, mac.unwrap_or(living.names.pod_mac))),
    };
    let mut unread = None;
    if let Some((guard, mac)) = known {
        let leased = ledger.map_or(Ok(Vec::new()), |ledger| leases.of(&ledger, &living.attachment));
        // Another IPAM plugin or ledger may have given an address to another pod, whose route took the place of this one's.
        let leased = leased.map(|all| all.into_iter().filter(|one| !look.is_of_another(*one, &living)).collect());
        living.leased = leased.unwrap_or_else(|why| {
            unread = Some(why);
            Vec::new()
        });
        elements = ruleset::guarded(guard, &living.names.host_link, mac, &living.leased, &living.names.owner);
    }
    if !elements.is_empty() {
        shared.add_guard(&living.attachment.network)?;
    }
    let mut why = format!(
        "no route leads to {}: its ADD is not done, or its routes were removed, and then it has to be made anew",
        living.link.name
    );
    if let Some(unread) = unread {
        why = format!("{why}; and its lease cannot be read: {unread}");
    }
    let passed_over = known.is_none();
    let outcome =
        Outcome { unknown: Some(why), without_routes: true, passed_over, ..Outcome::of(living.attachment.clone()) };
    Ok(Wanted { living, elements, members: Vec::new(), outcome })
}

/// What ledgers have, by their folders, or why that cannot be read.
#[derive(Default)]
pub struct Leases(BTreeMap<PathBuf, Result<Vec<Record>, String>>);

fn usual_ledger() -> Ledger {
    Ledger::at(Ledger::DEFAULT_DIR)
}

impl Leases {
    /// Whether an attachment of whose config nothing is known has one in the usual place; also where that cannot be read, so that
    /// it is told.
    pub fn has(&mut self, attachment: &Attachment) -> bool {
        self.of(&usual_ledger(), attachment).map_or(true, |addresses| !addresses.is_empty())
    }

    fn of(&mut self, ledger: &Ledger, attachment: &Attachment) -> Result<Vec<IpAddr>, String> {
        let read = || {
            let records = ledger.clone().with_lock_timeout(PATIENCE).leases("podwire reconcile");
            records.map(Option::unwrap_or_default).map_err(|error| with_causes(&error))
        };
        let records = self.0.entry(ledger.dir().to_owned()).or_insert_with(read).as_ref().map_err(Clone::clone)?;
        let own = records.iter().filter(|record| record.attachment == *attachment);
        Ok(own.flat_map(|record| &record.addresses).map(|recorded| recorded.address.ip()).collect())
    }
}
