//! Model values as attributes of messages.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook as HookAttribute, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetFlags, SetMessage,
    TableAttribute, TableMessage,
};
use nft_model::{Base, Chain, Element, Family, Hook, Policy, Rule, Set, Value};

use super::op::Op;
use super::{rule, value};

/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

pub(super) fn new_table(name: &str, comment: Option<&str>) -> NfTablesMessage {
    let mut attributes = vec![TableAttribute::Name(name.to_owned())];
    attributes.extend(comment.map(|comment| TableAttribute::UserData(value::encode_comment(comment))));
    NfTablesMessage::NewTable(TableMessage { attributes })
}

pub(super) fn delete_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] })
}

/// A set; the kernel wants every set of a batch to have another `id`.
pub(super) fn new_set(family: Family, table: &str, id: usize, set: &Set) -> NfTablesMessage {
    let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let flags = if set.is_map() { SetFlags::Map } else { SetFlags::empty() };
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(value::types_number(family, &set.key)),
        SetAttribute::KeyLen(number(value::types_len(family, &set.key))),
        SetAttribute::Id(number(id + 1)),
    ];
    if set.is_map() {
        attributes.push(SetAttribute::DataType(value::types_number(family, &set.data)));
        attributes.push(SetAttribute::DataLen(number(value::types_len(family, &set.data))));
    }
    let orders = value::byte_orders(set);
    if !orders.is_empty() {
        attributes.push(SetAttribute::UserData(orders));
    }
    NfTablesMessage::NewSet(SetMessage { attributes })
}

pub(super) fn new_chain(table: &str, chain: &Chain) -> NfTablesMessage {
    let mut attributes = vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(chain.name.clone())];
    if let Some(Base { kind, hook, priority, policy }) = &chain.base {
        let number = HookNumber::Inet(hook_number(*hook));
        attributes.push(ChainAttribute::Hook(vec![
            HookAttribute::Number(number),
            HookAttribute::Priority(priority.cast_unsigned()),
        ]));
        attributes.push(ChainAttribute::Type(kind.to_string()));
        attributes.push(ChainAttribute::Policy(match policy {
            Policy::Accept => ACCEPT,
            Policy::Drop => DROP,
        }));
    }
    NfTablesMessage::NewChain(ChainMessage { attributes })
}

fn hook_number(hook: Hook) -> InetHookNumber {
    match hook {
        Hook::Prerouting => InetHookNumber::PreRouting,
        Hook::Input => InetHookNumber::LocalIn,
        Hook::Forward => InetHookNumber::Forward,
        Hook::Output => InetHookNumber::LocalOut,
        Hook::Postrouting => InetHookNumber::PostRouting,
    }
}

pub(super) fn new_rule(family: Family, table: &str, chain: &str, rule: &Rule) -> NfTablesMessage {
    let expressions = rule::encode(family, rule).iter().map(Op::encode).collect();
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ],
    })
}

/// A DELRULE that names no rule means all of the chain's.
pub(super) fn flush_chain(table: &str, chain: &str) -> NfTablesMessage {
    let attributes = vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
    NfTablesMessage::DeleteRule(RuleMessage { attributes })
}

pub(super) fn element(element: &Element) -> ListAttribute<SetElementAttribute> {
    let data = |values: &[Value]| DataAttribute::Value(value::encode(values));
    let mut attributes = vec![SetElementAttribute::Key(data(&element.key))];
    attributes.extend((!element.data.is_empty()).then(|| SetElementAttribute::Data(data(&element.data))));
    attributes.extend(element.comment.as_deref().map(value::encode_comment).map(SetElementAttribute::UserData));
    ListAttribute::Element(attributes)
}

pub(super) fn key(key: &[Value]) -> ListAttribute<SetElementAttribute> {
    ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(value::encode(key)))])
}
