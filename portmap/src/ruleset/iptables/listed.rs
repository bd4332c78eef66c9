//! Comparing rules as `iptables -S` lists them. Nothing here does any I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{is_in_chain_of_ours, is_stray, is_top};
use crate::difference::Difference;

/// A table that was listed, so arranged that comparing one attachment takes no longer with thousands of others in it.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    lines: BTreeSet<String>,
    /// By the first comment of rules of ours that have two.
    by_owner: BTreeMap<String, Vec<String>>,
    /// In our chains and nobody's.
    strays: Vec<String>,
    /// The chain that everything begins with, in order.
    top: Vec<String>,
}

impl Listed {
    /// Arranges it.
    #[must_use]
    pub fn new(listing: &[String]) -> Self {
        let mut listed = Self::default();
        for line in listing.iter().map(|line| plain(line)) {
            if let Some(owner) = owner(&line).filter(|_| is_in_chain_of_ours(&line)) {
                listed.by_owner.entry(owner.to_owned()).or_default().push(line.clone());
            }
            if is_stray(&line) {
                listed.strays.push(line.clone());
            }
            if is_top(&line) {
                listed.top.push(line.clone());
            }
            listed.lines.insert(line);
        }
        listed
    }

    /// Compares what one attachment needs of a table, as [`super::listing`] has it, with what is there.
    #[must_use]
    pub fn differences(&self, place: &str, wanted: &[&str], mark: &str) -> Vec<Difference> {
        let mut all = Vec::new();
        let expected: Vec<String> = wanted.iter().map(|line| plain(line)).collect();
        for (line, plain) in wanted.iter().zip(&expected).filter(|(_, plain)| !self.lines.contains(*plain)) {
            let difference = Difference::new(place, Some((*line).to_owned()), None);
            all.push(if owner(plain).is_none() { difference.shared() } else { difference });
        }
        for line in self.by_owner.get(&plain(mark)).into_iter().flatten().filter(|line| !expected.contains(line)) {
            all.push(Difference::new(place, None, Some(line.clone())));
        }
        for line in self.strays.iter().filter(|line| !expected.contains(line)) {
            all.push(Difference::new(place, None, Some(line.clone())).shared());
        }
        // Exact addresses come before all addresses.
        let top: Vec<&String> = expected.iter().filter(|line| is_top(line)).collect();
        let same = top.len() == self.top.len() && top.iter().all(|line| self.top.contains(line));
        if same && top.iter().zip(&self.top).any(|(expected, found)| *expected != found) {
            let expected: Vec<&str> = top.iter().map(|line| line.as_str()).collect();
            all.push(Difference::new(place, Some(expected.join("; ")), Some(self.top.join("; "))).shared());
        }
        all
    }
}

/// A rule without quotes, which iptables prints only where it must.
fn plain(line: &str) -> String {
    line.replace('"', "")
}

/// The first comment of a rule that has two.
fn owner(plain: &str) -> Option<&str> {
    let (_, rest) = plain.split_once("--comment ")?;
    Some(rest.split_once(" -m comment --comment ")?.0)
}
