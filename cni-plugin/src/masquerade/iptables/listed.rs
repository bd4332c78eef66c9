//! What `iptables -S` lists, beside what should be there. Comments tell whose a rule is, but not whether it is as it was made.

use std::collections::BTreeSet;

use cni_spec::NetworkName;
use nft_model::Family;

use super::{Frame, HOOK, HOOKED, Member, PODS, Seen, hook};
use crate::names::masquerade_chain;

/// What is not as it should be, though its comments are there.
#[derive(Debug, Default)]
pub(super) struct Spoilt {
    /// Whether the network's chain has other rules of its own, or has them elsewhere than behind those of pods.
    pub chain: bool,
    /// Whether the chain of all pods has rules that are no pod's.
    pub strays: bool,
    /// What leads to the chain of all pods in another way than it should, by its text.
    pub hooks: Vec<String>,
    /// Whether nothing leads there as it should.
    pub unhooked: bool,
}

/// What puts the rules of a family right.
#[derive(Debug, PartialEq, Eq)]
pub struct Repair {
    /// The input of `iptables-restore --noflush`.
    pub text: String,
    /// Those of whose rules one was missing, another one, or one too many.
    pub members: Vec<Member>,
    /// Whether something that they share was.
    pub shared: bool,
}

impl Frame {
    /// What makes all rules of these, of one family, and what they share as an ADD makes them; `None` if they are. `listing` is
    /// what `iptables -S` lists; without it, what comments do not tell is taken to be right.
    #[must_use]
    pub fn repair(
        &self,
        family: Family,
        seen: &Seen,
        listing: Option<&[String]>,
        members: &[Member],
    ) -> Option<Repair> {
        let (missing, lacks_shared) = self.missing(family, seen, members);
        let changed = listing.map(|listing| self.changed_owners(listing, members)).unwrap_or_default();
        let is_wrong = |one: &Member| changed.contains(one.owner.as_str()) || missing.contains(one);
        let members: Vec<Member> = members.iter().filter(|one| is_wrong(one)).cloned().collect();
        let strays = !seen.strays().is_empty();
        let by_comments = Spoilt { strays, ..Spoilt::default() };
        let spoilt = listing.map_or(by_comments, |listing| Spoilt { strays, ..self.spoilt(family, listing) });
        let shared = lacks_shared || spoilt.chain || spoilt.strays || spoilt.unhooked || !spoilt.hooks.is_empty();
        let text = || self.text(family, seen, &members, &spoilt);
        (shared || !members.is_empty()).then(|| Repair { text: text(), members: members.clone(), shared })
    }

    /// The owners of whom a rule is not listed, or another one than these.
    fn changed_owners<'a>(&self, listing: &[String], members: &'a [Member]) -> BTreeSet<&'a str> {
        let listed: BTreeSet<String> = listing.iter().map(|line| plain(line)).collect();
        let rules =
            |member: &Member| [member.rule_of_sender(), member.rule_of_target()].map(|rule| plain(&added(&rule)));
        let wanted: BTreeSet<String> = members.iter().flat_map(rules).collect();
        let owners: BTreeSet<&str> = members.iter().map(|member| member.owner.as_str()).collect();
        let lacking = members.iter().filter(|member| rules(member).iter().any(|rule| !listed.contains(rule)));
        let mut changed: BTreeSet<&str> = lacking.map(|member| member.owner.as_str()).collect();
        let others = listed.iter().filter(|line| is_ours(&self.network, line) && !wanted.contains(*line));
        changed.extend(others.filter_map(|line| owners.get(owner_of(line)?).copied()));
        changed
    }

    /// What comments do not tell.
    fn spoilt(&self, family: Family, listing: &[String]) -> Spoilt {
        let of_chain: Vec<String> =
            listing.iter().map(|line| plain(line)).filter(|line| is_of_network(&self.network, line)).collect();
        let first_shared = of_chain.iter().position(|line| owner_of(line).is_none()).unwrap_or(of_chain.len());
        let wanted: Vec<String> = self.rules(family).iter().map(|rule| plain(&added(rule))).collect();
        let hook = hook();
        let (right, hooks): (Vec<String>, Vec<String>) =
            hooked_as_listed(listing).into_iter().partition(|rule| plain(rule) == plain(&hook));
        Spoilt { chain: of_chain[first_shared..] != wanted, hooks, unhooked: right.is_empty(), ..Spoilt::default() }
    }
}

/// A rule without quotes, which iptables prints only where it must.
#[must_use]
pub fn plain(line: &str) -> String {
    line.replace('"', "")
}

fn added(rule: &str) -> String {
    format!("-A {rule}")
}

/// Whose a rule of a pod is: the first of its two comments. The line is without quotes.
fn owner_of(line: &str) -> Option<&str> {
    let (owner, _) = line.split_once("--comment ")?.1.split_once(" -m comment --comment ")?;
    Some(owner)
}

fn is_ours(network: &NetworkName, line: &str) -> bool {
    is_of_network(network, line) || line.starts_with(&format!("-A {PODS} "))
}

/// Whether a rule, as `iptables -S` lists it, is in the network's chain.
#[must_use]
pub fn is_of_network(network: &NetworkName, line: &str) -> bool {
    line.starts_with(&format!("-A {} ", masquerade_chain(network)))
}

/// Whether it is in our chains and either an owner's or nobody's. Elsewhere in the table an owner may have rules of other
/// plugins: the comments of `podwire-portmap` name it as these do. The line is without quotes.
#[must_use]
pub fn is_of_owner_or_nobody(network: &NetworkName, owner: &str, line: &str) -> bool {
    let is_owned = line.contains(&format!("--comment {owner} "));
    is_ours(network, line) && (is_owned || line.matches("--comment ").count() < 2)
}

/// The rules that lead to the chain of all pods, as they are: somebody may have changed them. `listing` is what `iptables -S` lists.
#[must_use]
pub fn hooked_as_listed(listing: &[String]) -> Vec<String> {
    let rules = listing.iter().filter_map(|line| line.strip_prefix("-A "));
    // Without a target the comment is the end of the line.
    let is_ours = |rule: &&str| format!("{} ", rule.replace('"', "")).contains(&format!("--comment {HOOKED} "));
    rules.filter(|rule| rule.starts_with(&format!("{HOOK} "))).filter(is_ours).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CHAIN, ONE, network};
    use super::*;

    #[test]
    fn rules_of_other_plugins_are_theirs_whomever_they_name() {
        let is_ours = |line: &str| is_of_owner_or_nobody(&network(), ONE[0], line);
        let comments = "-m comment --comment podnet c1 eth0 -m comment --comment x";
        assert!(is_ours(&format!("-A {PODS} -s 10.244.1.2/32 {comments} -j {CHAIN}")));
        assert!(is_ours(&format!("-A {CHAIN} -d 10.244.1.2/32 {comments} -j RETURN")));
        for chain in [PODS, CHAIN] {
            assert!(is_ours(&format!("-A {chain} -j RETURN")));
        }
        for other in [
            format!("-A PODWIRE-WILDCARD -p tcp {comments} -j DNAT"),
            format!("-A {CHAIN}2 -d 10.244.1.2/32 {comments} -j RETURN"),
            format!("-A {PODS} -s 10.244.1.3/32 -m comment --comment podnet c2 eth0 -m comment --comment x"),
            "-A POSTROUTING -j RETURN".to_owned(),
        ] {
            assert!(!is_ours(&other), "{other}");
        }
    }
}
