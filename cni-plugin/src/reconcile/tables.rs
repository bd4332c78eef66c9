//! What makes a table of nf_tables as it should be, from what is there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nft_model::{Change, Element, Table, Value};

use crate::diff::Difference;
use crate::ruleset::{Placed, address_of};

/// What is not as it should be in one table, and what makes it so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// One transaction.
    pub changes: Vec<Change>,
    /// What concerns all pods in the table: its rules.
    pub shared: Option<Difference>,
    /// Elements that are missing, somebody else's, or too many, by the owner they concern.
    pub elements: BTreeMap<String, Vec<Difference>>,
}

/// Elements by their set and key.
type Found<'a> = BTreeMap<(&'a str, &'a [Value]), &'a Element>;

impl Repair {
    /// What concerns one pod.
    pub fn of_owner(&self, owner: &str) -> impl Iterator<Item = &Difference> {
        self.shared.iter().chain(self.elements.get(owner).into_iter().flatten())
    }
}

/// Compares a table with the rules, and the elements of living pods, that it should have. Elements of others stay; those of an
/// address that their owner no longer has go.
#[must_use]
pub fn repair(frame: &Table, wanted: &[&Placed], there: Option<&Table>) -> Repair {
    let found: Found<'_> = there
        .into_iter()
        .flat_map(Table::sets)
        .flat_map(|set| set.elements.iter().map(|element| ((set.name.as_str(), element.key.as_slice()), element)))
        .collect();
    let found_of = |placed: &Placed| found.get(&(placed.set, placed.element.key.as_slice())).copied();
    let missing: Vec<&Placed> = wanted.iter().copied().filter(|one| found_of(one) != Some(&one.element)).collect();
    let lost = lost(wanted, &found);
    let mut elements: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
    let mut concerns = |element: &Element, difference| {
        elements.entry(element.comment.clone().unwrap_or_default()).or_default().push(difference);
    };
    for placed in &missing {
        let found = found_of(placed).map_or("no such element".to_owned(), |element| {
            format!("the element of {:?}", element.comment.as_deref().unwrap_or_default())
        });
        concerns(&placed.element, Difference { expected: format!("nft {placed}"), found });
    }
    for (set, element) in &lost {
        let (family, table) = (frame.family(), frame.name());
        let expected = format!("nft delete element {family} {table} {set} {{ {element} }}");
        concerns(element, Difference { expected, found: "an address that is no longer its own".to_owned() });
    }
    let is_whole = there.is_some_and(|table| table.without_elements() == *frame);
    let shared = (!is_whole).then(|| Difference {
        expected: format!("nft list table {} {}", frame.family(), frame.name()),
        found: if there.is_some() { "other rules" } else { "no such table" }.to_owned(),
    });
    let changes =
        if is_whole { completed(frame, &missing, &lost, &found) } else { made_anew(frame, wanted, &lost, there) };
    Repair { changes, shared, elements }
}

/// Elements of these owners with addresses of a family that they no longer have, each with its set. Of whom no address is known
/// nothing is known to be lost but what another of them has.
fn lost<'a>(wanted: &[&Placed], found: &Found<'a>) -> Vec<(&'a str, &'a Element)> {
    let mut addresses: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for Placed { element, .. } in wanted {
        if let Some(owner) = element.comment.as_deref() {
            addresses.entry(owner).or_default().extend(address_of(element));
        }
    }
    let all: BTreeSet<&IpAddr> = addresses.values().flatten().collect();
    let is_lost = |element: &Element| {
        let own = element.comment.as_deref().and_then(|owner| addresses.get(owner));
        own.zip(address_of(element))
            .is_some_and(|(own, address)| !own.contains(&address) && (!own.is_empty() || all.contains(&address)))
    };
    found.iter().filter(|(_, element)| is_lost(element)).map(|((set, _), element)| (*set, *element)).collect()
}

/// What is missing is added. The node leads packets for an address to its pod, so an element of it that is another's is a
/// leftover.
fn completed(frame: &Table, missing: &[&Placed], lost: &[(&str, &Element)], found: &Found<'_>) -> Vec<Change> {
    let (family, table) = (frame.family(), frame.name().to_owned());
    let mut changes = Vec::new();
    for set in frame.sets() {
        let of_set: Vec<&Element> =
            missing.iter().filter(|placed| placed.set == set.name).map(|placed| &placed.element).collect();
        let replaced = of_set.iter().copied().filter(|element| found.contains_key(&(&*set.name, &element.key)));
        let lost = lost.iter().filter(|(name, _)| *name == set.name).map(|(_, element)| *element);
        let keys: BTreeSet<_> = replaced.chain(lost).map(|element| element.key.clone()).collect();
        if !keys.is_empty() {
            let keys = keys.into_iter().collect();
            changes.push(Change::DestroyElements { family, table: table.clone(), set: set.name.clone(), keys });
        }
        if !of_set.is_empty() {
            let elements = of_set.into_iter().cloned().collect();
            changes.push(Change::AddElements { family, table: table.clone(), set: set.name.clone(), elements });
        }
    }
    changes
}

/// The table with its own rules, what is wanted in it, and what others have in it.
fn made_anew(frame: &Table, wanted: &[&Placed], lost: &[(&str, &Element)], there: Option<&Table>) -> Vec<Change> {
    let (family, table) = (frame.family(), frame.name().to_owned());
    let mut changes = Vec::new();
    if there.is_some() {
        changes.push(Change::DeleteTable { family, name: table.clone() });
    }
    changes.push(Change::AddTable(frame.clone()));
    for set in frame.sets() {
        let lost: BTreeSet<_> = lost.iter().filter(|(name, _)| *name == set.name).map(|(_, one)| &one.key).collect();
        let kept = there.and_then(|table| table.set(&set.name)).map(|set| set.elements.as_slice()).unwrap_or_default();
        let kept = kept.iter().filter(|element| !lost.contains(&element.key));
        let new = wanted.iter().filter(|placed| placed.set == set.name).map(|placed| &placed.element);
        // Of one key the later stays, which is what is wanted.
        let elements: BTreeMap<_, _> = kept.chain(new).map(|element| (&element.key, element)).collect();
        if !elements.is_empty() {
            let elements = elements.into_values().cloned().collect();
            changes.push(Change::AddElements { family, table: table.clone(), set: set.name.clone(), elements });
        }
    }
    changes
}
