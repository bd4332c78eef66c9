//! Which part of a batch a refusal is about, in words.

use netlink_packet_core::Emitable;
use nft_model::{Change, Element, Rule, Value};

use super::{Batch, Part, Place, elements, keys, place};
use crate::nft::encode;

impl Batch<'_> {
    /// What a part does, as nft(8) says it, and the element it is about if `offset` points to one.
    pub(in crate::nft) fn describe(&self, part: &Part, offset: Option<usize>) -> (String, Option<Vec<Value>>) {
        let change = |index: usize| &self.changes[index];
        match part {
            Part::Frame => (self.changes.iter().map(describe_change).collect::<Vec<_>>().join("; "), None),
            Part::Change(index) => (describe_change(change(*index)), None),
            Part::Set(index, set) => (describe_set(change(*index), *set), None),
            Part::Chain(index, chain) => (describe_chain(change(*index), *chain), None),
            Part::Rule(index, chain, rule) => (describe_rule(change(*index), *chain, *rule), None),
            Part::Elements { change: index, set, range } => {
                let (place, elements) = elements(change(*index), *set);
                let elements = &elements[range.clone()];
                let lengths = elements.iter().map(|element| encode::element(element).buffer_len());
                describe_elements("add", &place, elements, at(&place, lengths, offset))
            }
            Part::Keys { change: index, range } => {
                let (place, keys) = keys(change(*index));
                let elements: Vec<_> = keys[range.clone()].iter().map(|key| Element::new(key.clone())).collect();
                let lengths = elements.iter().map(|element| encode::element(element).buffer_len());
                let at = at(&place, lengths, offset);
                describe_elements("destroy", &place, &elements, at)
            }
        }
    }
}

/// Which of the elements with these lengths starts at an offset of their message.
fn at(place: &Place, lengths: impl Iterator<Item = usize>, offset: Option<usize>) -> Option<usize> {
    let before = place_len(place);
    let wanted = offset?.checked_sub(before)?;
    let mut start = 0;
    for (index, len) in lengths.enumerate() {
        if start == wanted {
            return Some(index);
        }
        start += len;
    }
    None
}

/// What stands in a message before its elements: two headers, the names, and the header of the list.
fn place_len((_, table, set): &Place) -> usize {
    16 + 4 + place(table, set).as_slice().buffer_len() + 4
}

/// A change in one line, even if all of it would be a page.
pub(in crate::nft) fn describe_change(change: &Change) -> String {
    match change {
        Change::AddTable(table) => format!("add table {} {}", table.family(), table.name()),
        Change::AddElements { .. } => {
            let (place, elements) = elements(change, None);
            describe_elements("add", &place, elements, None).0
        }
        Change::DestroyElements { .. } => {
            let (place, keys) = keys(change);
            let elements: Vec<_> = keys.iter().map(|key| Element::new(key.clone())).collect();
            describe_elements("destroy", &place, &elements, None).0
        }
        change => change.to_string(),
    }
}

fn describe_set(change: &Change, set: usize) -> String {
    let ((family, table, name), _) = elements(change, Some(set));
    format!("add set {family} {table} {name}")
}

fn describe_chain(change: &Change, chain: usize) -> String {
    let (family, name) = change.table();
    match change {
        Change::AddTable(table) => format!("add chain {family} {name} {}", table.chains()[chain].name),
        change => change.to_string(),
    }
}

fn describe_rule(change: &Change, chain: usize, rule: usize) -> String {
    let (family, name) = change.table();
    match change {
        Change::AddTable(table) => {
            let chain = &table.chains()[chain];
            let rule: &Rule = &chain.rules[rule];
            format!("add rule {family} {name} {} {}", chain.name, rule.in_family(family))
        }
        change => change.to_string(),
    }
}

fn describe_elements(
    verb: &str,
    place: &Place,
    elements: &[Element],
    at: Option<usize>,
) -> (String, Option<Vec<Value>>) {
    let (family, table, set) = place;
    let culprit = match elements {
        [only] => Some(only),
        elements => at.and_then(|at| elements.get(at)),
    };
    let what = match (culprit, elements) {
        (Some(element), _) => element.to_string(),
        (None, [first, rest @ ..]) => format!("{first} and {} more", rest.len()),
        (None, []) => String::new(),
    };
    (format!("{verb} element {family} {table} {set} {{ {what} }}"), culprit.map(|element| element.key.clone()))
}
