//! The rule set in the words of iptables: the text that one `iptables-restore --noflush` turns a table from what was
//! seen into what is wanted by. Nothing here does any I/O.
//!
//! Each mapping is a rule in the chain for exact addresses or in that for all, so that an exact one wins. A rule has
//! two comments: its owner, as in nftables, and the element that it would be there. By these it is found again.

mod hooks;
mod listed;
mod pieces;
mod rules;
mod seen;

use std::collections::BTreeMap;
use std::fmt::Write;

use nft_model::Family;

pub use self::hooks::Hooked;
use self::hooks::{guard_hook, hooks};
pub use self::listed::Listed;
pub use self::pieces::{Piece, pieces, tables};
pub use self::rules::{Rule, condition, rules};
use self::seen::is_static;
pub use self::seen::{Comments, Owned, Seen};
use super::loopback;
use crate::config::Config;

/// The comment of every rule that is no attachment's.
pub const STATIC: &str = "podwire-hostport";

/// The chain that everything begins with.
pub const TOP: &str = "PODWIRE-HOSTPORT";
const EXACT_CHAIN: &str = "PODWIRE-EXACT";
const WILDCARD_CHAIN: &str = "PODWIRE-WILDCARD";
const MASQ_CHAIN: &str = "PODWIRE-MASQ";
const GUARD: &str = "PODWIRE-GUARD";

/// The chains of attachments' rules.
const OWNED: [&str; 3] = [EXACT_CHAIN, WILDCARD_CHAIN, MASQ_CHAIN];

/// Our chains of table nat.
pub const OWN_CHAINS: [&str; 4] = [TOP, EXACT_CHAIN, WILDCARD_CHAIN, MASQ_CHAIN];
/// The chains of table nat that have, or may have, rules of ours.
pub const NAT_CHAINS: [&str; 7] = ["PREROUTING", "OUTPUT", "POSTROUTING", TOP, EXACT_CHAIN, WILDCARD_CHAIN, MASQ_CHAIN];
/// The same for table raw, in IPv4.
pub const RAW_CHAINS: [&str; 2] = ["PREROUTING", GUARD];

/// What makes the frame whole, removes the rules `gone` and adds `new`, all at once for each table. `None` if there is nothing to do.
#[must_use]
pub fn change(family: Family, seen: &Seen, gone: &[Owned], new: &[Rule]) -> Option<String> {
    let mut nat = String::new();
    for chain in OWNED.iter().filter(|chain| seen.rules(chain).is_empty()) {
        line(&mut nat, &format!(":{chain} - [0:0]"));
    }
    let top = top_rules();
    if seen.rules(TOP).len() != top.len() || !seen.rules(TOP).iter().all(|comments| is_static(comments)) {
        line(&mut nat, &format!(":{TOP} - [0:0]"));
        top.iter().for_each(|rule| line(&mut nat, rule));
    }
    for (chain, rule, place) in hooks() {
        if !seen.rules(chain).iter().any(|comments| is_static(comments)) {
            line(&mut nat, &format!("{place} {rule}"));
        }
    }
    nat += &removals(gone);
    // Rules under conditions come first, before what would take all packets of their ports.
    let mut places = BTreeMap::new();
    for Rule { chain, text, .. } in new.iter().filter(|rule| rule.is_conditional) {
        let place = places.entry(*chain).or_insert(0);
        *place += 1;
        line(&mut nat, &format!("-I {chain} {place} {text}"));
    }
    for Rule { chain, text, .. } in new.iter().filter(|rule| !rule.is_conditional) {
        line(&mut nat, &format!("-A {chain} {text}"));
    }
    let mut raw = String::new();
    if family == Family::Ip {
        let guard = guard_rules();
        if seen.raw.get(GUARD).is_none_or(|rules| rules.len() != guard.len()) {
            line(&mut raw, &format!(":{GUARD} - [0:0]"));
            guard.iter().for_each(|rule| line(&mut raw, rule));
        }
        let hooked = seen.raw.get("PREROUTING").is_some_and(|rules| rules.iter().any(|rule| is_static(rule)));
        if !hooked {
            line(&mut raw, &format!("-I PREROUTING 1 {}", guard_hook()));
        }
    }
    // The guard comes before what makes it necessary.
    text(&[("raw", raw), ("nat", nat)])
}

/// What makes the chains of the frame as an ADD makes them, whatever is in them, takes rules that are nobody's out of
/// those of attachments, and mends what leads into them from built-in chains, of tables nat and raw ([`Listed::hooks`]).
/// What does not lead there at all is left to [`change`]. `None` if there is nothing to do.
#[must_use]
pub fn repair(family: Family, seen: &Seen, hooked_nat: &[String], hooked_raw: &[String]) -> Option<String> {
    let mut nat = format!(":{TOP} - [0:0]\n");
    top_rules().iter().for_each(|rule| line(&mut nat, rule));
    let mut raw = String::new();
    if family == Family::Ip {
        line(&mut raw, &format!(":{GUARD} - [0:0]"));
        guard_rules().iter().for_each(|rule| line(&mut raw, rule));
        raw += &hooks::mend(hooked_raw, &seen.raw, &[("PREROUTING", guard_hook(), "-I PREROUTING 1")]);
    }
    // A jump needs its chain; one that has rules is there.
    for chain in OWNED.iter().filter(|chain| seen.rules(chain).is_empty()) {
        nat.insert_str(0, &format!(":{chain} - [0:0]\n"));
    }
    for chain in OWNED {
        let rules = seen.rules(chain).iter().enumerate().rev();
        for (index, _) in rules.filter(|(_, comments)| comments.len() != 2) {
            line(&mut nat, &format!("-D {chain} {}", index + 1));
        }
    }
    nat += &hooks::mend(hooked_nat, &seen.nat, &hooks());
    text(&[("raw", raw), ("nat", nat)])
}

/// What removes the rules `gone`, and the frame if no other is left, with what leads there; the guard of IPv4 only if what it
/// guards is `closed`. `None` if there is nothing to do.
#[must_use]
pub fn removal(family: Family, seen: &Seen, gone: &[Owned], hooked: &Hooked, closed: bool) -> Option<String> {
    // Rules that are nobody's keep nothing.
    if !is_last(seen, gone) {
        return without_frame(gone);
    }
    let mut nat = removals(gone);
    hooked.nat.iter().for_each(|rule| line(&mut nat, &format!("-D {rule}")));
    // A chain is made before it is emptied and deleted: whether an empty one is there was not to be seen.
    for action in [":", "-F ", "-X "] {
        for chain in [TOP].iter().chain(&OWNED) {
            let end = if action == ":" { " - [0:0]" } else { "" };
            line(&mut nat, &format!("{action}{chain}{end}"));
        }
    }
    let mut raw = String::new();
    if family == Family::Ip && closed {
        hooked.raw.iter().for_each(|rule| line(&mut raw, &format!("-D {rule}")));
        if seen.raw.contains_key(GUARD) {
            line(&mut raw, &format!("-F {GUARD}"));
            line(&mut raw, &format!("-X {GUARD}"));
        }
    }
    text(&[("nat", nat), ("raw", raw)])
}

/// Whether no other attachment's rule is left.
#[must_use]
pub fn is_last(seen: &Seen, gone: &[Owned]) -> bool {
    seen.owned().len() <= gone.len()
}

/// What removes the rules `gone` and leaves the frame, whoever else has some. `None` if there is nothing to do.
#[must_use]
pub fn without_frame(gone: &[Owned]) -> Option<String> {
    text(&[("nat", removals(gone))])
}

/// By number, the last one first, so that each is still right when its turn comes.
fn removals(gone: &[Owned]) -> String {
    let mut gone: Vec<&Owned> = gone.iter().collect();
    gone.sort_by_key(|rule| (rule.chain, std::cmp::Reverse(rule.number)));
    let mut text = String::new();
    gone.iter().for_each(|rule| line(&mut text, &format!("-D {} {}", rule.chain, rule.number)));
    text
}

/// Whether a rule, as `iptables -S` lists it, is in a chain of ours. Elsewhere rules of other plugins may name the same
/// owner: those of `podwire` have comments like these.
fn is_in_chain_of_ours(line: &str) -> bool {
    OWNED.iter().chain(&[TOP, GUARD]).any(|chain| line.starts_with(&format!("-A {chain} ")))
}

/// Whether it is there and no attachment's.
fn is_stray(line: &str) -> bool {
    is_in_chain_of_ours(line) && line.matches("--comment ").count() < 2
}

/// A rule without quotes, which iptables prints only where it must.
fn plain(line: &str) -> String {
    line.replace('"', "")
}

/// Whether a rule, as `iptables -S` lists it, is in the chain that everything begins with.
fn is_top(line: &str) -> bool {
    line.starts_with(&format!("-A {TOP} "))
}

/// Everything that a node without other host ports holds after an ADD, as `iptables -S` lists it.
#[must_use]
pub fn listing(config: &Config, family: Family) -> String {
    let change = change(family, &Seen::default(), &[], &rules(config, family)).unwrap_or_default();
    let mut listing = String::new();
    for change in change.lines() {
        // An inserted rule is listed like any other.
        let inserted = change.strip_prefix("-I ").and_then(|rest| rest.split_once(' '));
        match inserted.and_then(|(chain, rest)| Some((chain, rest.split_once(' ')?.1))) {
            Some((chain, rule)) => line(&mut listing, &format!("-A {chain} {rule}")),
            None => line(&mut listing, change),
        }
    }
    listing
}

fn top_rules() -> Vec<String> {
    let jump = |chain| format!("-A {TOP} -m comment --comment \"{STATIC}\" -j {chain}");
    vec![jump(EXACT_CHAIN), jump(WILDCARD_CHAIN)]
}

/// As in nftables: what makes answers to 127.0.0.1 possible must let no neighbour in.
fn guard_rules() -> Vec<String> {
    let loopback = loopback(Family::Ip);
    let drop = |end| format!("-A {GUARD} {end} {loopback} -m comment --comment \"{STATIC}\" -j DROP");
    vec![drop("-d"), drop("-s")]
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn text(tables: &[(&str, String)]) -> Option<String> {
    let parts = tables.iter().filter(|(_, lines)| !lines.is_empty());
    let text: String = parts.map(|(table, lines)| format!("*{table}\n{lines}COMMIT\n")).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(chains: &[(&str, &[&[&str]])]) -> Seen {
        let rule = |comments: &&[&str]| comments.iter().map(|comment| (*comment).to_owned()).collect();
        let chain = |(name, rules): &(&str, &[&[&str]])| ((*name).to_owned(), rules.iter().map(rule).collect());
        let mut seen = Seen { nat: chains.iter().map(chain).collect(), raw: Comments::new() };
        if let Some(guard) = seen.nat.remove(GUARD) {
            seen.raw.insert(GUARD.to_owned(), guard);
            seen.raw.insert("PREROUTING".to_owned(), vec![vec![STATIC.to_owned()]]);
        }
        seen
    }

    fn removed(seen: &Seen, gone: &[Owned], closed: bool) -> Option<String> {
        removal(Family::Ip, seen, gone, &Hooked::as_made(seen), closed)
    }

    const WHOLE: [(&str, &[&[&str]]); 5] = [
        ("PREROUTING", &[&["of somebody else"], &[STATIC]]),
        ("OUTPUT", &[&[STATIC]]),
        ("POSTROUTING", &[&[STATIC], &[]]),
        (TOP, &[&[STATIC], &[STATIC]]),
        (GUARD, &[&[STATIC], &[STATIC]]),
    ];

    #[test]
    fn rules_are_found_by_their_comments_and_removed_from_the_last_to_the_first() {
        let mine = ["n c1 eth0", "tcp . 80 : 10.0.0.1 . 80"];
        let marked = ["n c1 eth0", "mark"];
        let other = ["n c2 eth0", "tcp . 81 : 10.0.0.2 . 80 if 0123abcd"];
        let all = seen(&[&WHOLE[..], &[(WILDCARD_CHAIN, &[&marked, &mine, &[], &other])]].concat());
        let owned = all.owned();
        let texts: Vec<String> =
            owned.iter().filter_map(|rule| Some(rule.entry.as_ref()?.element.to_string())).collect();
        assert_eq!(
            texts,
            ["tcp . 80 comment \"n c1 eth0\" : 10.0.0.1 . 80", "tcp . 81 comment \"n c2 eth0\" : 10.0.0.2 . 80"]
        );
        assert_eq!(owned.last().and_then(|rule| rule.condition.as_deref()), Some("0123abcd"));
        let (one, two): (Vec<Owned>, Vec<Owned>) = owned.into_iter().partition(|rule| rule.owner == "n c1 eth0");
        let expected = "*nat\n-D PODWIRE-WILDCARD 2\n-D PODWIRE-WILDCARD 1\nCOMMIT\n";
        assert_eq!(removed(&all, &one, true).as_deref(), Some(expected));
        // A rule that is nobody's keeps the chains.
        let expected = "*nat\n-D PODWIRE-WILDCARD 4\nCOMMIT\n";
        assert_eq!(removed(&all, &two, true).as_deref(), Some(expected));
    }

    #[test]
    fn the_last_one_takes_the_frame_along() {
        let mine = ["n c1 eth0", "tcp . 80 : 10.0.0.1 . 80"];
        let all = seen(&[&WHOLE[..], &[(WILDCARD_CHAIN, &[&mine])]].concat());
        let open = removed(&all, &all.owned(), false).unwrap_or_default();
        assert!(open.starts_with("*nat\n") && !open.contains("PODWIRE-GUARD"), "{open}");
        let text = removed(&all, &all.owned(), true).unwrap_or_default();
        for line in
            ["-D PODWIRE-WILDCARD 1", "-D PREROUTING -m addrtype", "-X PODWIRE-HOSTPORT", "*raw", "-X PODWIRE-GUARD"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.find("*nat") < text.find("*raw"), "the guard goes last: {text}");
    }

    #[test]
    fn a_hook_that_was_changed_goes_by_its_own_text() {
        let mine = ["n c1 eth0", "tcp . 80 : 10.0.0.1 . 80"];
        let all = seen(&[&WHOLE[..], &[(WILDCARD_CHAIN, &[&mine])]].concat());
        let nat = [
            "-P OUTPUT ACCEPT",
            "-A OUTPUT -p tcp -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT",
            "-A OUTPUT -j PODWIRE-HOSTPORT",
        ];
        let hooked = Hooked::as_listed(&nat.map(str::to_owned), &[]);
        let text = removal(Family::Ip, &all, &all.owned(), &hooked, true).unwrap_or_default();
        let deleted: Vec<&str> = text.lines().filter(|line| line.starts_with("-D OUTPUT")).collect();
        assert_eq!(deleted, ["-D OUTPUT -p tcp -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT"]);
        assert_eq!(without_frame(&all.owned()).as_deref(), Some("*nat\n-D PODWIRE-WILDCARD 1\nCOMMIT\n"));
    }

    #[test]
    fn what_is_whole_stays_and_what_is_missing_comes() {
        assert_eq!(
            change(
                Family::Ip6,
                &seen(
                    &[&WHOLE[..4], &[(EXACT_CHAIN, &[&[]]), (WILDCARD_CHAIN, &[&[]]), (MASQ_CHAIN, &[&[]])]].concat()
                ),
                &[],
                &[]
            ),
            None
        );
        let text = change(Family::Ip, &seen(&WHOLE[1..4]), &[], &[]).unwrap_or_default();
        assert!(
            text.contains("-A PREROUTING -m addrtype")
                && !text.contains("OUTPUT")
                && !text.contains(":PODWIRE-HOSTPORT")
        );
        assert!(text.find(":PODWIRE-GUARD") < text.find("*nat"), "the guard comes first: {text}");
        assert!(seen(&[(TOP, &[&["of somebody else"]])]).is_foreign() && !seen(&WHOLE).is_foreign());
    }
}
