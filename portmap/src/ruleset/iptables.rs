//! The rule set in the words of iptables: the text that one `iptables-restore --noflush` turns a table from what was
//! seen into what is wanted by. Nothing here does any I/O.
//!
//! Each mapping is a rule in the chain for exact addresses or in that for all, so that an exact one wins. A rule has
//! two comments: its owner, as in nftables, and the element that it would be there. By these it is found again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nft_model::{Element, Family, Proto, Statement, Value};

use super::{EXACT, Entry, HAIRPIN, MASQ_ALL, NO_LOOPBACK, OWNERS, WILDCARD, condition_id, loopback};
use crate::config::Config;
use crate::settings::Mark;

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

/// The chains of table nat that have, or may have, rules of ours.
pub const NAT_CHAINS: [&str; 7] = ["PREROUTING", "OUTPUT", "POSTROUTING", TOP, EXACT_CHAIN, WILDCARD_CHAIN, MASQ_CHAIN];
/// The same for table raw, in IPv4.
pub const RAW_CHAINS: [&str; 2] = ["PREROUTING", GUARD];

/// The comments of each rule of some chains, in order; without chains that are empty.
pub type Comments = BTreeMap<String, Vec<Vec<String>>>;

/// What there is of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of [`NAT_CHAINS`].
    pub nat: Comments,
    /// Of [`RAW_CHAINS`]; nothing in IPv6.
    pub raw: Comments,
}

/// A rule that somebody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Where it is.
    chain: &'static str,
    /// From 1, as `-D` takes it.
    number: usize,
    /// Whose it is.
    pub owner: String,
    /// What it does, unless it is one of the rules that stand beside another one.
    pub entry: Option<Entry>,
    /// The conditions it is under.
    pub condition: Option<String>,
}

impl Seen {
    fn rules(&self, chain: &str) -> &[Vec<String>] {
        self.nat.get(chain).map_or(&[], Vec::as_slice)
    }

    /// Whether anything of ours is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let ours = |comments: &Vec<String>| comments.iter().any(|comment| comment == STATIC);
        let own = OWNED.iter().chain(&[TOP]).any(|chain| !self.rules(chain).is_empty());
        !own && !self.nat.values().chain(self.raw.values()).flatten().any(ours)
    }

    /// Whether the chain that everything begins with has rules, none of which is ours.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let rules = self.rules(TOP);
        !rules.is_empty() && !rules.iter().any(|comments| is_static(comments))
    }

    /// All rules of attachments.
    #[must_use]
    pub fn owned(&self) -> Vec<Owned> {
        let of_chain = |chain: &'static str| {
            let rules = self.rules(chain).iter().enumerate();
            rules.filter_map(move |(index, comments)| {
                let [owner, text] = comments.as_slice() else { return None };
                let (text, condition) = match text.split_once(" if ") {
                    Some((text, condition)) => (text, Some(condition.to_owned())),
                    None => (text.as_str(), None),
                };
                let entry = entry(chain, text).map(|entry| entry.of(owner));
                Some(Owned { chain, number: index + 1, owner: owner.clone(), entry, condition })
            })
        };
        OWNED.into_iter().flat_map(of_chain).collect()
    }
}

impl Entry {
    fn of(mut self, owner: &str) -> Self {
        self.element.comment = Some(owner.to_owned());
        self
    }
}

fn is_static(comments: &[String]) -> bool {
    comments.first().is_some_and(|comment| comment == STATIC)
}

/// The element that a comment says.
fn entry(chain: &str, text: &str) -> Option<Entry> {
    let values = |text: &str| text.split(" . ").map(value).collect::<Option<Vec<Value>>>();
    let (key, data) = match text.split_once(" : ") {
        Some((key, data)) => (values(key)?, values(data)?),
        None => (values(text)?, Vec::new()),
    };
    let set = match (chain, key.as_slice()) {
        (EXACT_CHAIN, [Value::Addr(_), Value::Proto(_), Value::Port(_)]) => EXACT,
        (WILDCARD_CHAIN, [Value::Proto(_), Value::Port(_)]) => WILDCARD,
        (MASQ_CHAIN, [Value::Addr(_), Value::Addr(_)]) => HAIRPIN,
        (MASQ_CHAIN, [Value::Addr(_), Value::Proto(_), Value::Port(_)]) => MASQ_ALL,
        _ => return None,
    };
    Some(Entry { set, element: Element::map(key, data) })
}

fn value(text: &str) -> Option<Value> {
    let proto = || Proto::ALL.into_iter().find(|proto| proto.to_string() == text);
    let port = || text.parse().ok().map(Value::Port);
    let address = || text.parse::<IpAddr>().ok().map(Value::Addr);
    proto().map(Value::Proto).or_else(port).or_else(address)
}

/// The conditions that the mappings of `config` are under, as comments name them.
#[must_use]
pub fn condition(config: &Config, family: Family) -> Option<String> {
    let conditions = config.settings.conditions(family);
    (!conditions.is_empty()).then(|| condition_id(config.owner.network(), family, conditions))
}

/// What makes the frame whole, removes the rules `gone` and adds `new`, each a chain and a rule, all at once for each
/// table. `None` if there is nothing to do.
#[must_use]
pub fn change(family: Family, seen: &Seen, gone: &[Owned], new: &[(&'static str, String)]) -> Option<String> {
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
    let (first, last): (Vec<_>, Vec<_>) = new.iter().partition(|(_, rule)| rule.contains(" if "));
    let mut places = BTreeMap::new();
    for (chain, rule) in first {
        let place = places.entry(*chain).or_insert(0);
        *place += 1;
        line(&mut nat, &format!("-I {chain} {place} {rule}"));
    }
    last.iter().for_each(|(chain, rule)| line(&mut nat, &format!("-A {chain} {rule}")));
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

/// What makes the chains of the frame as an ADD makes them, whatever is in them, and takes rules that are nobody's out of
/// those of attachments. What leads into them from built-in chains is left to [`change`]. `None` if there is nothing to
/// do.
#[must_use]
pub fn repair(family: Family, seen: &Seen) -> Option<String> {
    let mut nat = format!(":{TOP} - [0:0]\n");
    top_rules().iter().for_each(|rule| line(&mut nat, rule));
    let mut raw = String::new();
    if family == Family::Ip {
        line(&mut raw, &format!(":{GUARD} - [0:0]"));
        guard_rules().iter().for_each(|rule| line(&mut raw, rule));
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
    text(&[("raw", raw), ("nat", nat)])
}

/// What removes the rules `gone`, and the frame if no other is left. `None` if there is nothing to do.
#[must_use]
pub fn removal(family: Family, seen: &Seen, gone: &[Owned]) -> Option<String> {
    let mut nat = removals(gone);
    let left: usize = OWNED.iter().map(|chain| seen.rules(chain).len()).sum();
    if left > gone.len() {
        return text(&[("nat", nat)]);
    }
    for (chain, rule, _) in hooks() {
        for _ in seen.rules(chain).iter().filter(|comments| is_static(comments)) {
            line(&mut nat, &format!("-D {chain} {rule}"));
        }
    }
    // A chain is made before it is emptied and deleted: whether an empty one is there was not to be seen.
    for action in [":", "-F ", "-X "] {
        for chain in [TOP].iter().chain(&OWNED) {
            let end = if action == ":" { " - [0:0]" } else { "" };
            line(&mut nat, &format!("{action}{chain}{end}"));
        }
    }
    let mut raw = String::new();
    if family == Family::Ip {
        for _ in seen.raw.get("PREROUTING").into_iter().flatten().filter(|comments| is_static(comments)) {
            line(&mut raw, &format!("-D PREROUTING {}", guard_hook()));
        }
        if seen.raw.contains_key(GUARD) {
            line(&mut raw, &format!("-F {GUARD}"));
            line(&mut raw, &format!("-X {GUARD}"));
        }
    }
    text(&[("nat", nat), ("raw", raw)])
}

/// By number, the last one first, so that each is still right when its turn comes.
fn removals(gone: &[Owned]) -> String {
    let mut gone: Vec<&Owned> = gone.iter().collect();
    gone.sort_by_key(|rule| (rule.chain, std::cmp::Reverse(rule.number)));
    let mut text = String::new();
    gone.iter().for_each(|rule| line(&mut text, &format!("-D {} {}", rule.chain, rule.number)));
    text
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

/// The rules of one attachment, with the chain of each.
#[must_use]
pub fn rules(config: &Config, family: Family) -> Vec<(&'static str, String)> {
    let entries = super::entries(config, family);
    let no_loopback: Vec<&[Value]> =
        entries.iter().filter(|entry| entry.set == NO_LOOPBACK).map(|entry| entry.element.key.as_slice()).collect();
    let mut rules = Vec::new();
    for entry in &entries {
        match entry.set {
            EXACT => translate(config, family, EXACT_CHAIN, &entry.element, false, &mut rules),
            WILDCARD => {
                let limited = no_loopback.contains(&entry.element.key.as_slice());
                translate(config, family, WILDCARD_CHAIN, &entry.element, limited, &mut rules);
            }
            HAIRPIN | MASQ_ALL => masquerade(config, entry, &mut rules),
            // The owner is in every comment, and the loopback left out by the rule itself.
            NO_LOOPBACK | OWNERS => {}
            _ => {}
        }
    }
    rules
}

/// One mapping: where it leads, and before that, if asked for, a mark for what is to be masqueraded.
fn translate(
    config: &Config,
    family: Family,
    chain: &'static str,
    element: &Element,
    no_loopback: bool,
    rules: &mut Vec<(&'static str, String)>,
) {
    let (address, proto, port) = match element.key.as_slice() {
        [Value::Addr(address), Value::Proto(proto), Value::Port(port)] => (Some(*address), *proto, *port),
        [Value::Proto(proto), Value::Port(port)] => (None, *proto, *port),
        _ => return,
    };
    let [Value::Addr(pod), Value::Port(pod_port)] = element.data.as_slice() else { return };
    let mut to = address.map_or_else(String::new, |address| format!("-d {} ", IpNetwork::from(address)));
    if no_loopback {
        to = format!("! -d {} ", loopback(family));
    }
    let (interface, others) = conditions(config.settings.conditions(family));
    let matched = |source: &str, text: &str| {
        let source = if source.is_empty() { String::new() } else { format!("-s {source} ") };
        let comments = comments(config, &format!("{text}{}", suffix(config, family)));
        format!("{source}{to}{interface}-p {proto} -m {proto} --dport {port} {others}{comments}")
    };
    if let (Some(mark), true) = (&config.settings.mark, config.settings.snat) {
        let jump = match mark {
            Mark::Bit(bit) => format!("-j MARK --set-xmark {0:#x}/{0:#x}", 1_u32 << bit),
            Mark::Chain(name) => format!("-j {name}"),
        };
        let from_loopback = config.settings.reaches_from_loopback();
        let sources = match config.settings.masq_all {
            true => vec![String::new()],
            false => {
                let own = IpNetwork::from(*pod).to_string();
                [own].into_iter().chain(from_loopback.then(|| loopback(family).to_string())).collect()
            }
        };
        rules.extend(sources.iter().map(|source| (chain, format!("{} {jump}", matched(source, "mark")))));
    }
    let target = std::net::SocketAddr::new(*pod, *pod_port);
    let plain = Element { comment: None, ..element.clone() };
    rules.push((chain, format!("{} -j DNAT --to-destination {target}", matched("", &plain.to_string()))));
}

fn masquerade(config: &Config, entry: &Entry, rules: &mut Vec<(&'static str, String)>) {
    let plain = Element { comment: None, ..entry.element.clone() };
    let comments = |text: &str| comments(config, text);
    let mut push = |matches: String, text: &str| {
        rules.push((MASQ_CHAIN, format!("{matches} {} -j MASQUERADE", comments(text))));
    };
    match (entry.element.key.as_slice(), &config.settings.mark) {
        // Somebody else's chain marks, and somebody else masquerades.
        (_, Some(Mark::Chain(_))) => {}
        ([Value::Addr(pod), Value::Addr(_)], Some(Mark::Bit(bit))) => {
            let pod = IpNetwork::from(*pod);
            push(format!("-d {pod} -m mark --mark {0:#x}/{0:#x}", 1_u32 << bit), &plain.to_string());
        }
        ([Value::Addr(pod), Value::Addr(_)], None) => {
            let network = IpNetwork::from(*pod);
            push(format!("-s {network} -d {network}"), &plain.to_string());
            if config.settings.reaches_from_loopback() {
                let (translated, loopback) = ("-m conntrack --ctstate DNAT", loopback(Family::of(*pod)));
                push(format!("-s {loopback} -d {network} {translated}"), &format!("{loopback} : {pod}"));
            }
        }
        ([Value::Addr(pod), Value::Proto(proto), Value::Port(port)], None) => {
            let pod = IpNetwork::from(*pod);
            let translated = "-m conntrack --ctstate DNAT";
            push(format!("-d {pod} -p {proto} -m {proto} --dport {port} {translated}"), &plain.to_string());
        }
        _ => {}
    }
}

fn comments(config: &Config, text: &str) -> String {
    format!("-m comment --comment \"{}\" -m comment --comment \"{text}\"", config.owner.comment())
}

fn suffix(config: &Config, family: Family) -> String {
    condition(config, family).map_or_else(String::new, |id| format!(" if {id}"))
}

/// The incoming interface, and everything else: a rule has one `-s` and one `-d`, which are taken.
fn conditions(conditions: &[Statement]) -> (String, String) {
    let (mut interface, mut others) = (String::new(), String::new());
    for condition in conditions {
        match condition {
            Statement::SaddrIn(network) => others += &format!("-m iprange --src-range {} ", range(*network)),
            Statement::SaddrNotIn(network) => others += &format!("-m iprange ! --src-range {} ", range(*network)),
            Statement::DaddrIn(network) => others += &format!("-m iprange --dst-range {} ", range(*network)),
            Statement::DaddrNotIn(network) => others += &format!("-m iprange ! --dst-range {} ", range(*network)),
            Statement::Iifname(name) => interface = format!("-i {} ", name.replace('*', "+")),
            Statement::IifnameNot(name) => interface = format!("! -i {} ", name.replace('*', "+")),
            _ => {}
        }
    }
    (interface, others)
}

fn range(network: IpNetwork) -> String {
    let last = match network {
        IpNetwork::V4(network) => IpAddr::V4(network.broadcast()),
        IpNetwork::V6(network) => IpAddr::V6(network.broadcast()),
    };
    format!("{}-{last}", network.network())
}

/// The rules of built-in chains: the chain, the rule, and how it is added. Translations come after those of others,
/// such as Services; the masquerade before those of others, which may end the chain.
fn hooks() -> [(&'static str, String, &'static str); 3] {
    let comment = format!("-m comment --comment \"{STATIC}\"");
    let local = format!("-m addrtype --dst-type LOCAL {comment} -j {TOP}");
    [
        ("PREROUTING", local.clone(), "-A PREROUTING"),
        ("OUTPUT", local, "-A OUTPUT"),
        ("POSTROUTING", format!("{comment} -j {MASQ_CHAIN}"), "-I POSTROUTING 1"),
    ]
}

fn top_rules() -> Vec<String> {
    let jump = |chain| format!("-A {TOP} -m comment --comment \"{STATIC}\" -j {chain}");
    vec![jump(EXACT_CHAIN), jump(WILDCARD_CHAIN)]
}

fn guard_hook() -> String {
    format!("! -i lo -m comment --comment \"{STATIC}\" -j {GUARD}")
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
