//! The masquerade of a network in the words of iptables: the text that one `iptables-restore --noflush` turns table nat
//! from what was seen into what is wanted by.
//!
//! There are no sets, so a pod is two rules: one in the chain of all pods leads packets from its address into the chain of
//! its network, and one there lets packets to its address go on as they are. Behind those of pods the network's chain has
//! the rules that depend on the config alone. A pod's rule has two comments, its owner and its address; the others have a
//! fingerprint of all of them, which tells whether they were made from the same config.

pub mod listed;
mod seen;

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::IpAddr;

use cni_spec::NetworkName;
use ipnetwork::IpNetwork;
use nft_model::Family;

use super::{fingerprint, not_to};
use crate::config::Masquerade;
use crate::names::masquerade_chain;
use listed::Spoilt;
pub use seen::{Owned, Seen};

/// The chain that packets meet: of all pods of all networks.
pub const PODS: &str = "PODWIRE-PODS";

/// Where it is called. Behind what is there already, as with the reference: an administrator's exceptions come first.
pub const HOOK: &str = "POSTROUTING";

/// The comment of the rule that calls it.
const HOOKED: &str = "podwire-masq";

/// What pods of a network share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    network: NetworkName,
    masquerade: Masquerade,
}

/// A pod's address in a network that is masqueraded. Prints as the commands that add its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The chain of its network.
    pub chain: String,
    /// Whose packets.
    pub address: IpAddr,
    /// `NETWORK CONTAINERID IFNAME`.
    pub owner: String,
}

impl Frame {
    /// That of a network.
    #[must_use]
    pub fn new(network: &NetworkName, masquerade: &Masquerade) -> Self {
        Self { network: network.clone(), masquerade: masquerade.clone() }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// A pod's address in it.
    #[must_use]
    pub fn member(&self, address: IpAddr, owner: &str) -> Member {
        Member { chain: masquerade_chain(&self.network), address, owner: owner.to_owned() }
    }

    /// What adds these, of one family. What an owner or an address has from before goes: the address is theirs by the
    /// ledger, so whatever else has it is a leftover. Other pods of the network stay, also where its chain was flushed.
    #[must_use]
    pub fn addition(&self, family: Family, seen: &Seen, new: &[Member]) -> String {
        self.text(family, seen, new, &Spoilt::default())
    }

    fn text(&self, family: Family, seen: &Seen, new: &[Member], spoilt: &Spoilt) -> String {
        let owners: BTreeSet<&str> = new.iter().map(|one| one.owner.as_str()).collect();
        let addresses: BTreeSet<IpAddr> = new.iter().map(|one| one.address).collect();
        let is_gone = |rule: &Owned| owners.contains(rule.owner.as_str()) || addresses.contains(&rule.address);
        let mut lines = Vec::new();
        if seen.rules(PODS).is_empty() {
            lines.push(format!(":{PODS} - [0:0]"));
        }
        let rules = self.rules(family);
        if self.is_whole(family, seen) && !spoilt.chain {
            lines.extend(deletions(&seen.chain, &seen.owned(&seen.chain), is_gone));
        } else {
            lines.push(format!(":{} - [0:0]", seen.chain));
            let stay = seen.members().into_iter().filter(|rule| !is_gone(rule));
            lines.extend(stay.map(|rule| format!("-A {}", self.member(rule.address, &rule.owner).rule_of_target())));
            lines.extend(rules.iter().map(|rule| format!("-A {rule}")));
        }
        let of_all = seen.owned(PODS);
        let strays = if spoilt.strays { seen.strays() } else { Vec::new() };
        let mut numbers: Vec<usize> = of_all.iter().filter(|rule| is_gone(rule)).map(|rule| rule.number).collect();
        numbers.extend(strays);
        lines.extend(deletions_of(PODS, numbers));
        let led_to: BTreeSet<(&str, IpAddr)> = of_all.iter().map(|one| (one.owner.as_str(), one.address)).collect();
        let is_led_to = |rule: &Owned| led_to.contains(&(rule.owner.as_str(), rule.address));
        let lost = seen.owned(&seen.chain).into_iter().filter(|rule| !is_gone(rule) && !is_led_to(rule));
        lines.extend(lost.map(|rule| format!("-A {}", self.member(rule.address, &rule.owner).rule_of_sender())));
        lines.extend(spoilt.hooks.iter().map(|rule| format!("-D {rule}")));
        if seen.hooks() == 0 || spoilt.unhooked {
            lines.push(format!("-A {}", hook()));
        }
        for (index, member) in new.iter().enumerate() {
            lines.push(format!("-A {}", member.rule_of_sender()));
            let rule = member.rule_of_target();
            let rule = rule.strip_prefix(seen.chain.as_str()).unwrap_or(&rule);
            lines.push(format!("-I {} {}{rule}", seen.chain, index + 1));
        }
        restored(&lines)
    }

    /// Those of a family whose owner misses one of its rules, as [`Frame::addition`] replaces all that an owner has; and whether
    /// anything that they share is not as it should be.
    #[must_use]
    pub fn missing(&self, family: Family, seen: &Seen, members: &[Member]) -> (Vec<Member>, bool) {
        let chains = [PODS, &seen.chain]
            .map(|chain| seen.owned(chain).into_iter().map(|rule| (rule.address, rule.owner)).collect::<BTreeSet<_>>());
        let of_family = || members.iter().filter(|member| member.family() == family);
        let is_missing = |member: &&Member| {
            let rule = (member.address, member.owner.clone());
            !chains.iter().all(|rules| rules.contains(&rule))
        };
        let owners: BTreeSet<&str> = of_family().filter(is_missing).map(|member| member.owner.as_str()).collect();
        let missing = of_family().filter(|member| owners.contains(member.owner.as_str()));
        (missing.cloned().collect(), seen.hooks() == 0 || !self.is_whole(family, seen))
    }

    /// Whether the rules of the network's chain that are no pod's are there, made from this config.
    fn is_whole(&self, family: Family, seen: &Seen) -> bool {
        let mark = self.mark(family);
        let unowned: Vec<_> = seen.rules(&seen.chain).iter().filter(|comments| !is_owned(comments)).collect();
        unowned.len() == self.rules(family).len() && unowned.iter().all(|comments| ***comments == [mark.clone()])
    }

    /// Every rule that these need, as `iptables -S` lists it: what is called, what leads there, and the network's own in
    /// their order.
    #[must_use]
    pub fn listing(&self, family: Family, members: &[Member]) -> Vec<String> {
        let rules = [hook()]
            .into_iter()
            .chain(members.iter().map(Member::rule_of_sender))
            .chain(members.iter().map(Member::rule_of_target));
        rules.chain(self.rules(family)).map(|rule| format!("-A {rule}")).collect()
    }

    /// The rules of the network's chain that are no pod's, each with the chain before it.
    fn rules(&self, family: Family) -> Vec<String> {
        let mark = self.mark(family);
        let chain = masquerade_chain(&self.network);
        let rule = |(matched, target): (String, String)| {
            format!("{chain} {matched}-m comment --comment \"{mark}\" -j {target}")
        };
        self.verdicts(family).into_iter().map(rule).collect()
    }

    fn verdicts(&self, family: Family) -> Vec<(String, String)> {
        let kept = not_to(&self.masquerade, family).into_iter();
        let kept = kept.map(|cidr| (destination(cidr), "RETURN".to_owned()));
        let source = self.masquerade.source.iter().find(|source| Family::of(**source) == family);
        let target = source.map_or("MASQUERADE".to_owned(), |source| format!("SNAT --to-source {source}"));
        kept.chain([(String::new(), target)]).collect()
    }

    fn mark(&self, family: Family) -> String {
        fingerprint(&format!("{family} {:?}", self.verdicts(family)))
    }
}

impl Member {
    /// The family of its address.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    fn rule_of_sender(&self) -> String {
        format!("{PODS} -s {} {} -j {}", IpNetwork::from(self.address), self.comments(), self.chain)
    }

    fn rule_of_target(&self) -> String {
        format!("{} -d {} {} -j RETURN", self.chain, IpNetwork::from(self.address), self.comments())
    }

    fn comments(&self) -> String {
        format!("-m comment --comment \"{}\" -m comment --comment \"{}\"", self.owner, self.address)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = program(self.family());
        write!(f, "{program} -t nat -A {}; {program} -t nat -I {}", self.rule_of_sender(), self.rule_of_target())
    }
}

/// The program that lists a family's rules.
#[must_use]
pub fn program(family: Family) -> &'static str {
    match family {
        Family::Ip => "iptables",
        Family::Ip6 => "ip6tables",
    }
}

fn hook() -> String {
    format!("{HOOK} -m comment --comment \"{HOOKED}\" -j {PODS}")
}

/// iptables lists nothing for all addresses.
fn destination(cidr: IpNetwork) -> String {
    if cidr.prefix() == 0 { String::new() } else { format!("-d {cidr} ") }
}

fn is_owned(comments: &[String]) -> bool {
    comments.len() == 2
}

fn deletions(chain: &str, rules: &[Owned], is_gone: impl Fn(&Owned) -> bool) -> Vec<String> {
    deletions_of(chain, rules.iter().filter(|rule| is_gone(rule)).map(|rule| rule.number).collect())
}

/// By number, the last one first, so that each is still right when its turn comes.
fn deletions_of(chain: &str, mut numbers: Vec<usize>) -> Vec<String> {
    numbers.sort_unstable();
    numbers.into_iter().rev().map(|number| format!("-D {chain} {number}")).collect()
}

fn restored(lines: &[String]) -> String {
    let mut text = "*nat\n".to_owned();
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text + "COMMIT\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn network() -> NetworkName {
        "podnet".parse().unwrap()
    }

    fn frame() -> Frame {
        Frame::new(&network(), &Masquerade::default())
    }

    fn seen(chains: &[(&str, &[&[&str]])]) -> Seen {
        let rule = |comments: &&[&str]| comments.iter().map(|comment| (*comment).to_owned()).collect();
        let chain = |(name, rules): &(&str, &[&[&str]])| ((*name).to_owned(), rules.iter().map(rule).collect());
        Seen::new(&network(), chains.iter().map(chain).collect())
    }

    pub const CHAIN: &str = "PODWIRE-MASQ-podnet";
    pub const ONE: [&str; 2] = ["podnet c1 eth0", "10.244.1.2"];
    const TWO: [&str; 2] = ["podnet c2 eth0", "10.244.1.3"];
    const ELSEWHERE: [&str; 2] = ["other c3 eth0", "10.9.0.4"];

    fn of_owner(owner: &str) -> impl Fn(&Owned) -> bool {
        move |rule| rule.owner == owner
    }

    #[test]
    fn the_last_pod_takes_the_chains_along() {
        let mark = frame().mark(Family::Ip);
        let shared: &[&str] = &[&mark];
        let all = seen(&[(HOOK, &[&[HOOKED]]), (PODS, &[&ONE, &TWO]), (CHAIN, &[&TWO, &ONE, shared, shared])]);
        let expected = format!("*nat\n-D {PODS} 2\n-D {CHAIN} 1\nCOMMIT\n");
        assert_eq!(all.removal(of_owner(TWO[0]), &all.hooked()), Some(expected));
        let last = seen(&[(HOOK, &[&["x"], &[HOOKED]]), (PODS, &[&ONE]), (CHAIN, &[&ONE, shared, shared])]);
        let text = last.removal(of_owner(ONE[0]), &last.hooked()).unwrap();
        for line in [&format!("-D {HOOK} -m comment"), &format!("-X {PODS}"), &format!("-X {CHAIN}")] {
            assert!(text.contains(line.as_str()), "{line}: {text}");
        }
        assert_eq!(all.removal(of_owner("podnet c9 eth0"), &all.hooked()), None);
    }

    #[test]
    fn another_networks_pods_keep_what_all_share() {
        let all = seen(&[(HOOK, &[&[HOOKED]]), (PODS, &[&ONE, &ELSEWHERE]), (CHAIN, &[&ONE])]);
        let text = all.removal(of_owner(ONE[0]), &all.hooked()).unwrap();
        assert!(text.contains(&format!("-X {CHAIN}")) && !text.contains(&format!("-X {PODS}")), "{text}");
        assert!(!text.contains(HOOK), "{text}");
    }

    #[test]
    fn what_is_left_of_an_owner_or_an_address_is_replaced() {
        let mark = frame().mark(Family::Ip);
        let shared: &[&str] = &[&mark];
        let all = seen(&[(HOOK, &[&[HOOKED]]), (PODS, &[&ONE, &TWO]), (CHAIN, &[&ONE, &TWO, shared, shared])]);
        let member = frame().member("10.244.1.2".parse().unwrap(), "podnet c4 eth0");
        let text = frame().addition(Family::Ip, &all, &[member]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..3], [format!("-D {CHAIN} 1"), format!("-D {PODS} 1")]);
        assert_eq!(lines.len(), 6, "{text}");
    }

    #[test]
    fn an_owner_that_misses_one_address_keeps_the_other() {
        let mark = frame().mark(Family::Ip);
        let shared: &[&str] = &[&mark];
        let all = seen(&[(HOOK, &[&[HOOKED]]), (PODS, &[&ONE, &TWO]), (CHAIN, &[&TWO, &ONE, shared, shared])]);
        let member = |address: &str, owner: &[&str; 2]| frame().member(address.parse().unwrap(), owner[0]);
        let members = [member("10.244.1.2", &ONE), member("10.244.1.9", &ONE), member("10.244.1.3", &TWO)];
        let (missing, _) = frame().missing(Family::Ip, &all, &members);
        assert_eq!(missing, members[..2], "an addition takes whatever an owner has");
    }

    #[test]
    fn a_flushed_chain_is_filled_again() {
        let all = seen(&[(HOOK, &[&[HOOKED]]), (PODS, &[&ONE, &ELSEWHERE])]);
        let member = frame().member("10.244.1.3".parse().unwrap(), TWO[0]);
        let text = frame().addition(Family::Ip, &all, &[member]);
        assert!(text.contains("-A PODWIRE-MASQ-podnet -d 10.244.1.2/32"), "{text}");
        assert!(!text.contains("10.9.0.4") && text.contains("-j MASQUERADE"), "{text}");
    }

    #[test]
    fn pods_that_nothing_leads_from_are_led_again() {
        let mark = frame().mark(Family::Ip);
        let shared: &[&str] = &[&mark];
        let all = seen(&[(HOOK, &[&[HOOKED]]), (CHAIN, &[&ONE, &TWO, shared, shared])]);
        let member = frame().member("10.244.1.3".parse().unwrap(), "podnet c4 eth0");
        let text = frame().addition(Family::Ip, &all, &[member]);
        assert!(text.contains("-A PODWIRE-PODS -s 10.244.1.2/32"), "{text}");
        assert!(!text.contains(TWO[0]) && text.contains(&format!("-D {CHAIN} 2")), "{text}");
    }
}
