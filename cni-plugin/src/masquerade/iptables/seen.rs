//! What there is of a network's masquerade in table nat, by its comments, and what removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName};

use super::{HOOK, HOOKED, PODS, deletions, hook, restored};
use crate::names::masquerade_chain;

/// The comments of each rule of some chains, in order; without chains that are empty.
type Comments = BTreeMap<String, Vec<Vec<String>>>;

/// What there is of one family in one flavour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    network: NetworkName,
    pub(super) chain: String,
    comments: Comments,
}

/// A rule of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Whose it is.
    pub owner: String,
    /// Its address.
    pub address: IpAddr,
    /// From 1, as `-D` takes it.
    pub(super) number: usize,
}

impl Owned {
    fn of(number: usize, comments: &[String]) -> Option<Self> {
        let [owner, address] = comments else { return None };
        Some(Self { owner: owner.clone(), address: address.parse().ok()?, number })
    }
}

impl Seen {
    /// What the chains that [`Seen::chains`] names have.
    #[must_use]
    pub fn new(network: &NetworkName, comments: Comments) -> Self {
        Self { network: network.clone(), chain: masquerade_chain(network), comments }
    }

    /// Where a network's rules are.
    #[must_use]
    pub fn chains(network: &NetworkName) -> [String; 3] {
        [HOOK.to_owned(), PODS.to_owned(), masquerade_chain(network)]
    }

    /// The rules of the network's pods, one for each address.
    #[must_use]
    pub fn members(&self) -> Vec<Owned> {
        let mut members = self.owned(&self.chain);
        for rule in self.owned(PODS).into_iter().filter(|rule| network_of(&rule.owner).as_ref() == Some(&self.network))
        {
            if !members.iter().any(|one| (&one.owner, one.address) == (&rule.owner, rule.address)) {
                members.push(rule);
            }
        }
        members
    }

    /// Whether any pod's rule is one that `is_gone` says yes to.
    #[must_use]
    pub fn has(&self, is_gone: impl Fn(&Owned) -> bool) -> bool {
        self.owned(PODS).iter().chain(&self.owned(&self.chain)).any(is_gone)
    }

    /// The other networks of which `is_gone` says yes to a pod's rule.
    #[must_use]
    pub fn others(&self, is_gone: impl Fn(&Owned) -> bool) -> BTreeSet<NetworkName> {
        let networks = self.owned(PODS).into_iter().filter(is_gone).filter_map(|rule| network_of(&rule.owner));
        networks.filter(|network| *network != self.network).collect()
    }

    /// What removes the pods' rules that `is_gone` says yes to, and with the last of them what they shared, and the rules
    /// `hooked`, by their text, as others may move the numbers of a built-in chain. `None` if there is nothing to do.
    #[must_use]
    pub fn removal(&self, is_gone: impl Fn(&Owned) -> bool, hooked: &[String]) -> Option<String> {
        self.removed(is_gone, Some(hooked))
    }

    /// The same, but the chain of all pods, which others may lead to, stays with what leads there.
    #[must_use]
    pub fn removal_of_network(&self, is_gone: impl Fn(&Owned) -> bool) -> Option<String> {
        self.removed(is_gone, None)
    }

    fn removed(&self, is_gone: impl Fn(&Owned) -> bool, hooked: Option<&[String]>) -> Option<String> {
        let of_all = self.owned(PODS);
        let mut lines = self.deletions(&is_gone);
        // Rules that are nobody's keep nothing; a chain that something leads to cannot go.
        let mut unused = Vec::new();
        if self.members().iter().all(&is_gone) && !self.rules(&self.chain).is_empty() {
            unused.push(self.chain.as_str());
        }
        let is_last = of_all.iter().all(&is_gone) && (!self.rules(PODS).is_empty() || self.hooks() > 0);
        if let Some(hooked) = hooked.filter(|_| is_last) {
            lines.extend(hooked.iter().map(|rule| format!("-D {rule}")));
            unused.insert(0, PODS);
        }
        // A chain is made before it is emptied and deleted: whether an empty one is there was not to be seen.
        for (action, end) in [(":", " - [0:0]"), ("-F ", ""), ("-X ", "")] {
            lines.extend(unused.iter().map(|chain| format!("{action}{chain}{end}")));
        }
        (!lines.is_empty()).then(|| restored(&lines))
    }

    /// What removes the pods' rules that `is_gone` says yes to and leaves all chains. `None` if there are none.
    #[must_use]
    pub fn removal_of_rules(&self, is_gone: impl Fn(&Owned) -> bool) -> Option<String> {
        let lines = self.deletions(&is_gone);
        (!lines.is_empty()).then(|| restored(&lines))
    }

    /// The rules that lead to the chain of all pods, as an ADD makes them.
    #[must_use]
    pub fn hooked(&self) -> Vec<String> {
        vec![hook(); self.hooks()]
    }

    fn deletions(&self, is_gone: &impl Fn(&Owned) -> bool) -> Vec<String> {
        let chains = [PODS, self.chain.as_str()];
        chains.into_iter().flat_map(|chain| deletions(chain, &self.owned(chain), is_gone)).collect()
    }

    pub(super) fn rules(&self, chain: &str) -> &[Vec<String>] {
        self.comments.get(chain).map_or(&[], Vec::as_slice)
    }

    pub(super) fn hooks(&self) -> usize {
        self.rules(HOOK).iter().filter(|comments| **comments == [HOOKED]).count()
    }

    pub(super) fn owned(&self, chain: &str) -> Vec<Owned> {
        let rules = self.rules(chain).iter().enumerate();
        rules.filter_map(|(index, comments)| Owned::of(index + 1, comments)).collect()
    }

    /// The numbers of the rules in the chain of all pods that are no pod's.
    pub(super) fn strays(&self) -> Vec<usize> {
        let rules = (1..).zip(self.rules(PODS));
        rules.filter(|(number, comments)| Owned::of(*number, comments).is_none()).map(|(number, _)| number).collect()
    }
}

fn network_of(owner: &str) -> Option<NetworkName> {
    owner.parse().ok().map(|attachment: Attachment| attachment.network)
}
