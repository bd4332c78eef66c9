//! What an ADD has to change, given what the firewall holds. Nothing here does any I/O.

use std::net::SocketAddr;

use nft_model::{Change, Element, Family, Table, Value};

use crate::error::Error;
use crate::owner::{Holder, Owner};
use crate::ruleset::{self, EXACT, Entry, Realm, WILDCARD};

/// What the firewall holds of one family, as far as an ADD must know.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The table, or what stands for it in another backend.
    pub realm: Realm,
    /// Whether our table is there.
    pub table: bool,
    /// The elements that are needed, each with what is there under its key.
    pub entries: Vec<(Entry, Option<Element>)>,
    /// All that the attachment has already.
    pub own: Vec<Entry>,
}

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its steps. None if all is there already.
    pub changes: Vec<Change>,
    /// Whether it must fail if anybody has changed anything since the observation: when it removes what was observed,
    /// or makes a table. What it only adds, the kernel refuses by itself if it is there.
    pub if_unchanged: bool,
    /// What the attachment has from an ADD whose DEL was lost, and does not ask for now: it is removed.
    pub lost: Vec<Entry>,
    /// What is replaced by another target: the attachment's own from such an ADD, and that of dead holders.
    pub replaced: Vec<Entry>,
}

/// Claims every key for `owner`, or none.
///
/// What `owner` has already, from an ADD whose DEL was lost, is replaced: its pod is gone, and the old address may be
/// a stranger's. So is a hairpin element of anybody: it is no claim to anything, and its pod's address was given out
/// anew. And so is what one of `dead` holds, by their comments.
///
/// # Errors
/// [`Error::Held`] for the first key that somebody else holds.
pub fn batch(owner: &Owner, dead: &[String], observed: &[Observed]) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for family in observed {
        claim_family(owner, dead, family, &mut batch)?;
    }
    Ok(batch)
}

fn claim_family(owner: &Owner, dead: &[String], observed: &Observed, batch: &mut Batch) -> Result<(), Error> {
    let may_go = |there: &Element| {
        let comment = there.comment.as_deref();
        comment == Some(owner.comment()) || comment.is_some_and(|comment| dead.iter().any(|dead| dead == comment))
    };
    let frame = ruleset::frame(&observed.realm).map_err(Error::RuleSet)?;
    if !observed.table {
        batch.changes.push(Change::AddTable(frame.clone()));
        // Of many first ones all but one would be refused anyway, but that takes the kernel 20 ms each.
        batch.if_unchanged = true;
    }
    for set in ruleset::SETS {
        let asked_for = |own: &Entry| observed.entries.iter().any(|(entry, _)| same_key(entry, own));
        let lost = observed.own.iter().filter(|own| own.set == set && !asked_for(own));
        let mut stale: Vec<_> = lost.clone().map(|own| own.element.key.clone()).collect();
        batch.lost.extend(lost.cloned());
        let mut new = Vec::new();
        for (Entry { element, .. }, there) in observed.entries.iter().filter(|(entry, _)| entry.set == set) {
            match there {
                Some(there) if there == element => continue,
                Some(there) if is_claim(set) && !may_go(there) => return Err(held(observed.realm.family, there)),
                Some(there) => {
                    stale.push(there.key.clone());
                    batch.replaced.push(Entry { set, element: there.clone() });
                }
                None => {}
            }
            new.push(element.clone());
        }
        batch.if_unchanged |= !stale.is_empty();
        push(batch, &frame, set, stale, new)?;
    }
    Ok(())
}

/// Whether a key of the set is for one owner alone. Those of the other sets follow from who the owner is.
pub(crate) fn is_claim(set: &str) -> bool {
    [EXACT, WILDCARD].contains(&set)
}

fn same_key(one: &Entry, other: &Entry) -> bool {
    one.set == other.set && one.element.key == other.element.key
}

fn push(batch: &mut Batch, frame: &Table, set: &str, stale: Vec<Vec<Value>>, new: Vec<Element>) -> Result<(), Error> {
    if !stale.is_empty() {
        batch.changes.push(frame.destroy_elements(set, stale).map_err(Error::RuleSet)?);
    }
    if !new.is_empty() {
        batch.changes.push(frame.add_elements(set, new).map_err(Error::RuleSet)?);
    }
    Ok(())
}

pub(crate) fn held(family: Family, element: &Element) -> Error {
    Error::Held {
        port: port_text(family, &element.key),
        holder: Box::new(Holder::of(element.comment.as_deref())),
        target: target_text(&element.data),
    }
}

/// The key of a map, for people.
fn port_text(family: Family, key: &[Value]) -> String {
    match (key, family) {
        ([Value::Proto(proto), Value::Port(port)], Family::Ip) => format!("{port}/{proto} on every IPv4 address"),
        ([Value::Proto(proto), Value::Port(port)], Family::Ip6) => format!("{port}/{proto} on every IPv6 address"),
        ([Value::Addr(address), Value::Proto(proto), Value::Port(port)], _) => format!("{port}/{proto} on {address}"),
        (other, _) => Element::new(other).to_string(),
    }
}

/// Where a map leads, for people.
fn target_text(data: &[Value]) -> String {
    match data {
        [Value::Addr(address), Value::Port(port)] => SocketAddr::new(*address, *port).to_string(),
        other => Element::new(other).to_string(),
    }
}
