//! What the kernel holds, as model values.

use std::collections::HashMap;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, Hook as HookAttribute, HookNumber, InetHookNumber, RuleAttribute, SetAttribute,
    SetDescription, SetElementAttribute, SetFlags, TableAttribute,
};
use nft_model::{Base, Chain, Element, Family, Hook, Kind, Policy, Rule, Set};

use super::op::Op;
use super::{rule, value};

/// A table without what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableHead {
    pub(super) name: String,
    pub(super) comment: Option<String>,
    pub(super) unknown: Vec<String>,
}

pub(super) fn table(attributes: &[TableAttribute]) -> TableHead {
    let mut head = TableHead { name: String::new(), comment: None, unknown: Vec::new() };
    for attribute in attributes {
        match attribute {
            TableAttribute::Name(name) => head.name.clone_from(name),
            TableAttribute::UserData(bytes) => head.comment = value::decode_comment(bytes),
            TableAttribute::Flags(flags) if !flags.is_empty() => {
                head.unknown.push(format!("flags {:#x}", flags.bits()));
            }
            TableAttribute::Owner(port) => head.unknown.push(format!("owner {port}")),
            _ => {}
        }
    }
    head
}

/// A set without its elements, if it belongs to the table.
pub(super) fn set(family: Family, table: &str, attributes: &[SetAttribute]) -> Option<Set> {
    let mut set = Set::new("", []);
    let (mut key, mut data) = ((0, 0), (0, 0));
    let mut is_map = false;
    for attribute in attributes {
        match attribute {
            SetAttribute::Table(name) if name != table => return None,
            SetAttribute::Name(name) => set.name.clone_from(name),
            SetAttribute::KeyType(number) => key.0 = *number,
            SetAttribute::KeyLen(len) => key.1 = *len,
            SetAttribute::DataType(number) => data.0 = *number,
            SetAttribute::DataLen(len) => data.1 = *len,
            SetAttribute::Flags(flags) => {
                is_map = flags.contains(SetFlags::Map);
                let other = flags.difference(SetFlags::Map);
                set.unknown.extend((!other.is_empty()).then(|| format!("flags {:#x}", other.bits())));
            }
            SetAttribute::Description(parts) => set.unknown.extend(parts.iter().filter_map(size)),
            SetAttribute::Timeout(ms) => set.unknown.push(format!("timeout {ms}ms")),
            SetAttribute::ObjectType(number) => set.unknown.push(format!("objects of type {number}")),
            SetAttribute::Expression(_) | SetAttribute::ListExpressions(_) => set.unknown.push("expressions".into()),
            _ => {}
        }
    }
    set.key = value::types(family, key.0, key.1);
    if is_map {
        set.data = value::types(family, data.0, data.1);
    }
    Some(set)
}

fn size(part: &SetDescription) -> Option<String> {
    match part {
        SetDescription::Size(size) => Some(format!("size {size}")),
        _ => None,
    }
}

/// An element of a set with these types.
pub(super) fn element(family: Family, set: &Set, attributes: &[SetElementAttribute]) -> Element {
    let mut element = Element::new([]);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => {
                element.key = value::decode(family, &set.key, bytes);
            }
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => {
                element.data = value::decode(family, &set.data, bytes);
            }
            SetElementAttribute::UserData(bytes) => element.comment = value::decode_comment(bytes),
            _ => {}
        }
    }
    element
}

/// A chain without its rules, and the table that it belongs to.
pub(super) fn any_chain(attributes: &[ChainAttribute]) -> Option<(String, Chain)> {
    let table = attributes.iter().find_map(|attribute| match attribute {
        ChainAttribute::Table(name) => Some(name),
        _ => None,
    })?;
    Some((table.clone(), chain(table, attributes)?))
}

/// A chain without its rules, if it belongs to the table.
pub(super) fn chain(table: &str, attributes: &[ChainAttribute]) -> Option<Chain> {
    let mut chain = Chain::new("");
    let (mut hook, mut priority, mut kind, mut policy) = (None, None, None, Policy::Accept);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(name) if name != table => return None,
            ChainAttribute::Name(name) => chain.name.clone_from(name),
            ChainAttribute::Type(name) => kind = kind_of(name),
            ChainAttribute::Policy(0) => policy = Policy::Drop,
            ChainAttribute::Hook(parts) => {
                hook = parts.iter().find_map(hook_of);
                priority = parts.iter().find_map(|part| match part {
                    HookAttribute::Priority(priority) => Some(priority.cast_signed()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if let (Some(kind), Some(hook), Some(priority)) = (kind, hook, priority) {
        chain.base = Some(Base { kind, hook, priority, policy });
    }
    Some(chain)
}

fn kind_of(name: &str) -> Option<Kind> {
    [Kind::Filter, Kind::Nat, Kind::Route].into_iter().find(|kind| kind.to_string() == name)
}

fn hook_of(part: &HookAttribute) -> Option<Hook> {
    let HookAttribute::Number(HookNumber::Inet(number)) = part else { return None };
    match number {
        InetHookNumber::PreRouting => Some(Hook::Prerouting),
        InetHookNumber::LocalIn => Some(Hook::Input),
        InetHookNumber::Forward => Some(Hook::Forward),
        InetHookNumber::LocalOut => Some(Hook::Output),
        InetHookNumber::PostRouting => Some(Hook::Postrouting),
        _ => None,
    }
}

/// A rule and the chain it belongs to, if that belongs to the table.
pub(super) fn rule(family: Family, table: &str, attributes: &[RuleAttribute]) -> Option<(String, Rule)> {
    let mut chain = String::new();
    let mut ops = Vec::new();
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) => chain.clone_from(name),
            RuleAttribute::Expressions(expressions) => ops = expressions.iter().map(Op::decode).collect(),
            _ => {}
        }
    }
    Some((chain, rule::decode(family, &ops)))
}

/// The chain that a rule belongs to, if that belongs to the table.
pub(super) fn rule_place(table: &str, attributes: &[RuleAttribute]) -> Option<String> {
    let mut chain = None;
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) => chain = Some(name.clone()),
            _ => {}
        }
    }
    chain
}

/// Gives every chain its rules, which come in order.
pub(super) fn assign(chains: &mut [Chain], rules: impl IntoIterator<Item = (String, Rule)>) {
    let mut by_chain: HashMap<String, Vec<Rule>> = HashMap::new();
    for (chain, rule) in rules {
        by_chain.entry(chain).or_default().push(rule);
    }
    for chain in chains {
        chain.rules = by_chain.remove(&chain.name).unwrap_or_default();
    }
}
