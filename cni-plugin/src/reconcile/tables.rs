//! What makes a table of nf_tables as it should be, from what is there. Pure.

use nft_model::{Change, Element, Table};

use crate::diff::Difference;
use crate::ruleset::Placed;

/// What is not as it should be in one table, and what makes it so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// One transaction.
    pub changes: Vec<Change>,
    /// What concerns all pods in the table: its rules.
    pub shared: Option<Difference>,
    /// Elements that are missing or somebody else's, each with what is there instead.
    pub elements: Vec<(Placed, Difference)>,
}

/// Compares a table with the rules, and the elements of living pods, that it should have. Elements of others stay.
#[must_use]
pub fn repair(frame: &Table, wanted: &[&Placed], there: Option<&Table>) -> Repair {
    let found = |placed: &Placed| {
        let elements = there.and_then(|table| table.set(placed.set)).map(|set| set.elements.as_slice());
        elements.unwrap_or_default().iter().find(|element| element.key == placed.element.key)
    };
    let difference = |placed: &&Placed| {
        let found = match found(placed) {
            Some(element) if *element == placed.element => return None,
            Some(element) => format!("the element of {:?}", element.comment.as_deref().unwrap_or_default()),
            None => "no such element".to_owned(),
        };
        Some(((*placed).clone(), Difference { expected: format!("nft {placed}"), found }))
    };
    let elements: Vec<(Placed, Difference)> = wanted.iter().filter_map(difference).collect();
    let is_whole = there.is_some_and(|table| table.without_elements() == *frame);
    let shared = (!is_whole).then(|| Difference {
        expected: format!("nft list table {} {}", frame.family(), frame.name()),
        found: if there.is_some() { "other rules" } else { "no such table" }.to_owned(),
    });
    let changes = if is_whole { completed(frame, &elements, &found) } else { made_anew(frame, wanted, there) };
    Repair { changes, shared, elements }
}

/// What is missing is added. The node leads packets for an address to its pod, so an element of it that is another's is a
/// leftover.
fn completed<'a>(
    frame: &Table,
    missing: &[(Placed, Difference)],
    found: &impl Fn(&Placed) -> Option<&'a Element>,
) -> Vec<Change> {
    let (family, table) = (frame.family(), frame.name().to_owned());
    let mut changes = Vec::new();
    for set in frame.sets() {
        let of_set: Vec<&Placed> =
            missing.iter().map(|(placed, _)| placed).filter(|placed| placed.set == set.name).collect();
        if of_set.is_empty() {
            continue;
        }
        let replaced = of_set.iter().filter(|placed| found(placed).is_some());
        let keys: Vec<_> = replaced.map(|placed| placed.element.key.clone()).collect();
        if !keys.is_empty() {
            changes.push(Change::DestroyElements { family, table: table.clone(), set: set.name.clone(), keys });
        }
        let elements = of_set.iter().map(|placed| placed.element.clone()).collect();
        changes.push(Change::AddElements { family, table: table.clone(), set: set.name.clone(), elements });
    }
    changes
}

/// The table with its own rules, what is wanted in it, and what others have in it.
fn made_anew(frame: &Table, wanted: &[&Placed], there: Option<&Table>) -> Vec<Change> {
    let (family, table) = (frame.family(), frame.name().to_owned());
    let mut changes = Vec::new();
    if there.is_some() {
        changes.push(Change::DeleteTable { family, name: table.clone() });
    }
    changes.push(Change::AddTable(frame.clone()));
    for set in frame.sets() {
        let mut elements: Vec<Element> =
            wanted.iter().filter(|placed| placed.set == set.name).map(|placed| placed.element.clone()).collect();
        let kept = there.and_then(|table| table.set(&set.name)).map(|set| set.elements.as_slice()).unwrap_or_default();
        let is_new = |element: &&Element| !elements.iter().any(|one| one.key == element.key);
        let kept: Vec<Element> = kept.iter().filter(is_new).cloned().collect();
        elements.extend(kept);
        elements.sort();
        if !elements.is_empty() {
            changes.push(Change::AddElements { family, table: table.clone(), set: set.name.clone(), elements });
        }
    }
    changes
}
