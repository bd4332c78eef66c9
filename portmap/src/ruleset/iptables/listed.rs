//! Comparing rules as `iptables -S` lists them. Nothing here does any I/O.

use std::collections::BTreeMap;

use super::{OWNED, hooks, is_in_chain_of_ours, is_stray, is_top, plain};
use crate::difference::Difference;

/// A table that was listed, so arranged that comparing one attachment takes no longer with thousands of others in it.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Where each is, by numbers that grow; the same rule may be there twice.
    lines: BTreeMap<String, Vec<usize>>,
    /// By the first comment of rules of ours that have two.
    by_owner: BTreeMap<String, Vec<String>>,
    /// In our chains and nobody's.
    strays: Vec<String>,
    /// In built-in chains, with our comment; as they were listed, so that they can be deleted.
    hooks: Vec<String>,
    /// The chain that everything begins with, in order.
    top: Vec<String>,
    /// By chain, the first rule of attachments that is under no conditions.
    unconditional: BTreeMap<&'static str, (usize, String)>,
}

impl Listed {
    /// Arranges it, which is named `table`.
    #[must_use]
    pub fn new(table: &str, listing: &[String]) -> Self {
        let hooks = listing.iter().filter(|line| hooks::is_one(table, line)).cloned().collect();
        let mut listed = Self { hooks, ..Self::default() };
        for (number, line) in listing.iter().map(|line| plain(line)).enumerate() {
            if let Some(owner) = owner(&line).filter(|_| is_in_chain_of_ours(&line)) {
                listed.by_owner.entry(owner.to_owned()).or_default().push(line.clone());
                if let Some(chain) = chain(&line).filter(|_| !is_conditional(&line)) {
                    listed.unconditional.entry(chain).or_insert_with(|| (number, line.clone()));
                }
            }
            if is_stray(&line) {
                listed.strays.push(line.clone());
            }
            if is_top(&line) {
                listed.top.push(line.clone());
            }
            listed.lines.entry(line).or_default().push(number);
        }
        listed
    }

    /// Rules of built-in chains that say they are this plugin's.
    #[must_use]
    pub fn hooks(&self) -> &[String] {
        &self.hooks
    }

    /// Compares what one attachment needs of a table, as [`super::listing`] has it, with what is there: content, how often,
    /// and the order among rules of ours. Where they are among those of others is not looked at.
    #[must_use]
    pub fn differences(&self, place: &str, wanted: &[&str], mark: &str) -> Vec<Difference> {
        let mut all = Vec::new();
        let expected: Vec<String> = wanted.iter().map(|line| plain(line)).collect();
        for (line, plain) in wanted.iter().zip(&expected) {
            let found = match self.lines.get(plain).map_or(0, Vec::len) {
                1 => continue,
                0 => None,
                times => Some(vec![plain.as_str(); times].join("; ")),
            };
            let difference = Difference::new(place, Some((*line).to_owned()), found);
            all.push(if owner(plain).is_none() { difference.shared() } else { difference });
        }
        let own = self.by_owner.get(&plain(mark)).map_or(&[][..], Vec::as_slice);
        for line in own.iter().filter(|line| !expected.contains(line)) {
            all.push(Difference::new(place, None, Some(line.clone())));
        }
        let hooks = self.hooks.iter().map(|line| plain(line));
        for line in self.strays.iter().cloned().chain(hooks).filter(|line| !expected.contains(line)) {
            all.push(Difference::new(place, None, Some(line)).shared());
        }
        // Exact addresses come before all addresses.
        let top: Vec<&String> = expected.iter().filter(|line| is_top(line)).collect();
        all.extend(out_of_order(place, &top, &self.top.iter().collect::<Vec<_>>()).map(Difference::shared));
        for name in OWNED {
            let of_chain = |line: &&String| owner(line).is_some() && chain(line) == Some(name);
            let wanted: Vec<&String> = expected.iter().filter(of_chain).collect();
            all.extend(out_of_order(place, &wanted, &own.iter().filter(of_chain).collect::<Vec<_>>()));
            all.extend(self.too_late(place, name, &wanted));
        }
        all
    }

    /// A rule under conditions behind one that takes all packets of its ports never meets any.
    fn too_late(&self, place: &str, chain: &str, wanted: &[&String]) -> Option<Difference> {
        let (first, unconditional) = self.unconditional.get(chain)?;
        let is_late = |line: &&&String| self.lines.get(**line).is_some_and(|at| at.iter().any(|at| at > first));
        let late = wanted.iter().filter(|line| is_conditional(line)).find(is_late)?;
        let expected = format!("{late}; {unconditional}");
        Some(Difference::new(place, Some(expected), Some(format!("{unconditional}; {late}"))))
    }
}

/// What differs if the same rules are there in another order.
fn out_of_order(place: &str, expected: &[&String], found: &[&String]) -> Option<Difference> {
    let is_other = expected.len() == found.len() && expected != found;
    let text = |lines: &[&String]| lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("; ");
    (is_other && expected.iter().all(|line| found.contains(line)))
        .then(|| Difference::new(place, Some(text(expected)), Some(text(found))))
}

/// The chain of attachments' rules that a rule is in.
fn chain(line: &str) -> Option<&'static str> {
    OWNED.into_iter().find(|chain| line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()) == Some(*chain))
}

/// The first comment of a rule that has two.
fn owner(plain: &str) -> Option<&str> {
    let (_, rest) = plain.split_once("--comment ")?;
    Some(rest.split_once(" -m comment --comment ")?.0)
}

/// Whether the second one says that its network has conditions.
fn is_conditional(plain: &str) -> bool {
    plain.rsplit_once("--comment ").is_some_and(|(_, text)| text.contains(" if "))
}
