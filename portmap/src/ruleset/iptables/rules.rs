//! The rules of one attachment. Nothing here does any I/O.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nft_model::{Element, Family, Statement, Value};

use super::{EXACT_CHAIN, MASQ_CHAIN, WILDCARD_CHAIN};
use crate::config::Config;
use crate::ruleset::{self, EXACT, Entry, HAIRPIN, MASQ_ALL, NO_LOOPBACK, OWNERS, WILDCARD, condition_id, loopback};
use crate::settings::Mark;

/// The conditions that the mappings of `config` are under, as comments name them.
#[must_use]
pub fn condition(config: &Config, family: Family) -> Option<String> {
    let conditions = config.settings.conditions(family);
    (!conditions.is_empty()).then(|| condition_id(config.owner.network(), family, conditions))
}

/// A rule and the chain that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// One of our chains.
    pub chain: &'static str,
    /// As iptables(8) takes it.
    pub text: String,
    /// Whether it takes packets only that meet the network's conditions.
    pub is_conditional: bool,
}

/// The rules of one attachment.
#[must_use]
pub fn rules(config: &Config, family: Family) -> Vec<Rule> {
    let entries = ruleset::entries(config, family);
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
    rules: &mut Vec<Rule>,
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
    let is_conditional = condition(config, family).is_some();
    let rule = |text: String| Rule { chain, text, is_conditional };
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
        rules.extend(sources.iter().map(|source| rule(format!("{} {jump}", matched(source, "mark")))));
    }
    let target = std::net::SocketAddr::new(*pod, *pod_port);
    let plain = Element { comment: None, ..element.clone() };
    rules.push(rule(format!("{} -j DNAT --to-destination {target}", matched("", &plain.to_string()))));
}

fn masquerade(config: &Config, entry: &Entry, rules: &mut Vec<Rule>) {
    let plain = Element { comment: None, ..entry.element.clone() };
    let comments = |text: &str| comments(config, text);
    let mut push = |matches: String, text: &str| {
        let text = format!("{matches} {} -j MASQUERADE", comments(text));
        rules.push(Rule { chain: MASQ_CHAIN, text, is_conditional: false });
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
