//! Pods that no route leads to, or none of a family, and that should have addresses of it: their ADD is not done, or somebody
//! took the routes, as setting a link down does. Nothing tells which. Without routes nobody answers them, but without a guard
//! they could send under every address, so they are guarded: by those addresses of their lease that no other pod has or, where
//! none is known, by their links alone. What they may send from already stays, unless another pod has that address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_spec::Attachment;
use cni_spec::error::with_causes;
use ipam::{Ledger, Record};
use nft_model::Family;

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
    let wanted = |(living, asked): (Living, _)| match living.addresses.is_empty() {
        true => wanted(living, asked, &look, leases, shared),
        false => wanted_in_part(living, asked, &look, leases, shared),
    };
    still.map(wanted).collect()
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
        unread = leases.note(&mut living, ledger.as_ref(), look).err();
        elements = ruleset::guarded(guard, &living.names.host_link, mac, &living.leased, &living.names.owner);
    }
    if !elements.is_empty() {
        shared.add_guard(&living.attachment.network)?;
    }
    let why = why("route", &living, unread);
    let passed_over = known.is_none();
    let outcome =
        Outcome { unknown: Some(why), without_routes: true, passed_over, ..Outcome::of(living.attachment.clone()) };
    Ok(Wanted { living, elements, members: Vec::new(), outcome })
}

/// That routes of one family lead to it: what it has of that is put back, and the guard of the other by its lease.
fn wanted_in_part(
    mut living: Living,
    asked: Result<Asked, String>,
    look: &Look,
    leases: &mut Leases,
    shared: &mut Shared,
) -> Result<Wanted, Error> {
    let ledger = asked.as_ref().map_or_else(|_| Some(usual_ledger()), |asked| asked.ledger.clone());
    let unread = leases.note(&mut living, ledger.as_ref(), look).err();
    let missing = if living.is_reached_by(Family::Ip) { "IPv6 route" } else { "IPv4 route" };
    let why = why(missing, &living, unread);
    let mut wanted = Wanted::of(living, asked, shared)?;
    let besides = wanted.outcome.unknown.take().map(|unknown| format!("; {unknown}"));
    wanted.outcome.unknown = Some(why + &besides.unwrap_or_default());
    wanted.outcome.without_routes = true;
    Ok(wanted)
}

fn why(missing: &str, living: &Living, unread: Option<String>) -> String {
    let unread = unread.map(|unread| format!("; and its lease cannot be read: {unread}")).unwrap_or_default();
    format!(
        "no {missing} leads to {}: its ADD is not done, or its routes were removed, and then it has to be made anew{unread}",
        living.link.name
    )
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

    /// Whether a pod that routes of one family lead to has a lease of the other, too; also where that cannot be read, though its
    /// config asks for both. Where it asks for one nobody is asked.
    pub fn has_more_families(&mut self, living: &Living, asked: &Result<Asked, String>) -> bool {
        let (families, ledger, if_unread) = match asked {
            Ok(asked) => (&asked.families[..], asked.ledger.clone(), true),
            // That nothing is known of it is told anyway.
            Err(_) => (&Family::ALL[..], Some(usual_ledger()), false),
        };
        let Some(ledger) = ledger.filter(|_| !families.iter().all(|family| living.is_reached_by(*family))) else {
            return false;
        };
        let is_more = |address: &IpAddr| !living.is_reached_by(Family::of(*address));
        self.of(&ledger, &living.attachment).map_or(if_unread, |all| all.iter().any(is_more))
    }

    /// Notes those addresses of its lease that no route leads to, neither to it nor to another pod: another IPAM plugin or
    /// ledger may have given one to that, whose route took the place of this one's.
    fn note(&mut self, living: &mut Living, ledger: Option<&Ledger>, look: &Look) -> Result<(), String> {
        let Some(ledger) = ledger else { return Ok(()) };
        let leased = self.of(ledger, &living.attachment)?.into_iter();
        let is_lost = |one: &IpAddr| !living.addresses.contains(one) && !look.is_of_another(*one, living);
        living.leased = leased.filter(is_lost).collect();
        Ok(())
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
