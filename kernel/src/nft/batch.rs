//! Changes as a batch of messages.

mod describe;

use std::ops::Range;

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_netfilter::nftables::{
    ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use nft_model::{Change, Element, Family, Value};

pub(super) use self::describe::describe_change;
use super::encode;
use super::message::append;

/// `NFNL_SUBSYS_NFTABLES`, which a batch names in the resource id of its first and last message.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and, of its attributes, `NFNL_BATCH_GENID` (linux/netfilter/nfnetlink.h).
const BATCH_BEGIN: u8 = 16;
const BATCH_GENID: u16 = 1;
/// `NFT_MSG_DESTROYSETELEM`, Linux 6.3 and later.
const DESTROYSETELEM: u8 = 30;
/// An attribute, header included, is shorter than 64 KiB.
const LIST_LEN: usize = 65_000;

/// How keys that may not be there are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// DESTROYSETELEM: a key that is not there is no failure.
    Destroy,
    /// DELSETELEM, which every kernel has: a key that is not there is a failure.
    Delete,
}

/// What a message of a batch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// It begins or ends the batch.
    Frame,
    /// All of a change, or what is left of one.
    Change(usize),
    /// A set, a chain, or a rule of a chain, of an added table.
    Set(usize, usize),
    Chain(usize, usize),
    Rule(usize, usize, usize),
    /// Elements: of an added table's set, or of a change that adds some.
    Elements {
        change: usize,
        set: Option<usize>,
        range: Range<usize>,
    },
    /// Removed keys.
    Keys {
        change: usize,
        range: Range<usize>,
    },
}

struct Message {
    part: Part,
    family: Family,
    flags: u16,
    body: NfTablesMessage,
}

/// A batch ready to be sent.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    changes: &'a [Change],
    pub(super) bytes: Vec<u8>,
    first: u32,
    parts: Vec<Part>,
}

impl<'a> Batch<'a> {
    /// The messages of some changes; `None` if there is nothing to do. `sequence` gives the first of so many free
    /// numbers.
    pub(super) fn new(
        changes: &'a [Change],
        generation: Option<u32>,
        removal: Removal,
        sequence: impl FnOnce(usize) -> u32,
    ) -> Option<Self> {
        let mut messages = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            add_change(&mut messages, index, change, removal);
        }
        // Errors come for every message, but one acknowledgement is enough.
        messages.last_mut()?.flags |= NLM_F_ACK;
        let first = sequence(messages.len() + 2);
        let (mut bytes, mut parts) = (Vec::new(), Vec::with_capacity(messages.len() + 2));
        append(&mut bytes, None, SUBSYSTEM, begin(generation), 0, first);
        parts.push(Part::Frame);
        let mut next = first + 1;
        for message in messages {
            append(&mut bytes, Some(message.family), 0, message.body, message.flags, next);
            parts.push(message.part);
            next += 1;
        }
        append(&mut bytes, None, SUBSYSTEM, ControlMessage::BatchEnd, 0, next);
        parts.push(Part::Frame);
        Some(Self { changes, bytes, first, parts })
    }

    /// The numbers of its messages.
    pub(super) fn sequences(&self) -> Range<u32> {
        self.first..self.first.saturating_add(u32::try_from(self.parts.len()).unwrap_or(u32::MAX))
    }

    /// The part that the message with this sequence number does.
    pub(super) fn part(&self, sequence: u32) -> Option<&Part> {
        self.parts.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    /// Whether this is the number of the message that asks to be acknowledged.
    pub(super) fn is_last(&self, sequence: u32) -> bool {
        sequence.checked_sub(self.first).is_some_and(|index| index as usize + 2 == self.parts.len())
    }
}

fn begin(generation: Option<u32>) -> ControlMessage {
    match generation {
        None => ControlMessage::BatchBegin,
        Some(generation) => {
            let attributes = vec![DefaultNla::new(BATCH_GENID, generation.to_be_bytes().to_vec())];
            ControlMessage::Other { message_type: BATCH_BEGIN, attributes }
        }
    }
}

/// A set by family, table and name.
type Place = (Family, String, String);

fn elements(change: &Change, set: Option<usize>) -> (Place, &[Element]) {
    match (change, set) {
        (Change::AddTable(table), Some(set)) => {
            let set = &table.sets()[set];
            ((table.family(), table.name().to_owned(), set.name.clone()), &set.elements)
        }
        (Change::AddElements { family, table, set, elements }, None) => {
            ((*family, table.clone(), set.clone()), elements)
        }
        (change, _) => ((change.table().0, change.table().1.to_owned(), String::new()), &[]),
    }
}

fn keys(change: &Change) -> (Place, &[Vec<Value>]) {
    match change {
        Change::DestroyElements { family, table, set, keys } => ((*family, table.clone(), set.clone()), keys),
        change => ((change.table().0, change.table().1.to_owned(), String::new()), &[]),
    }
}

fn add_change(messages: &mut Vec<Message>, index: usize, change: &Change, removal: Removal) {
    let family = change.table().0;
    let mut whole = |body, flags| messages.push(Message { part: Part::Change(index), family, flags, body });
    match change {
        Change::AddTable(_) => add_table(messages, index, change),
        Change::DeleteTable { name, .. } => whole(encode::delete_table(name), 0),
        Change::DestroyTable { name, .. } => {
            // DESTROYTABLE is new in Linux 6.3; this is the same everywhere.
            whole(encode::new_table(name, None), NLM_F_CREATE);
            whole(encode::delete_table(name), 0);
        }
        Change::AddElements { .. } => add_elements(messages, index, change, None),
        Change::DestroyElements { .. } => add_keys(messages, index, change, removal),
        Change::FlushChain { table, chain, .. } => whole(encode::flush_chain(table, chain), 0),
        Change::AddRules { table, chain, rules, .. } => {
            for rule in rules {
                whole(encode::new_rule(family, table, chain, rule), NLM_F_CREATE | NLM_F_APPEND);
            }
        }
    }
}

/// Sets and chains come before what refers to them.
fn add_table(messages: &mut Vec<Message>, index: usize, change: &Change) {
    let Change::AddTable(table) = change else { return };
    let (family, name) = (table.family(), table.name());
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let mut push = |part, flags, body| messages.push(Message { part, family, flags, body });
    push(Part::Change(index), new, encode::new_table(name, table.comment()));
    for (at, set) in table.sets().iter().enumerate() {
        push(Part::Set(index, at), new, encode::new_set(family, name, at, set));
    }
    for (at, chain) in table.chains().iter().enumerate() {
        push(Part::Chain(index, at), new, encode::new_chain(name, chain));
    }
    for (at, chain) in table.chains().iter().enumerate() {
        for (line, rule) in chain.rules.iter().enumerate() {
            let body = encode::new_rule(family, name, &chain.name, rule);
            push(Part::Rule(index, at, line), NLM_F_CREATE | NLM_F_APPEND, body);
        }
    }
    for at in 0..table.sets().len() {
        add_elements(messages, index, change, Some(at));
    }
}

fn add_elements(messages: &mut Vec<Message>, index: usize, change: &Change, set: Option<usize>) {
    let ((family, table, name), elements) = elements(change, set);
    for (range, list) in chunks(elements.iter().map(encode::element)) {
        let attributes = [place(&table, &name), vec![SetElementList::Elements(list)]].concat();
        let body = NfTablesMessage::NewSetElement(SetElementMessage { attributes });
        let part = Part::Elements { change: index, set, range };
        messages.push(Message { part, family, flags: NLM_F_CREATE | NLM_F_EXCL, body });
    }
}

/// No keys must become no message: a DELSETELEM without any empties the set.
fn add_keys(messages: &mut Vec<Message>, index: usize, change: &Change, removal: Removal) {
    let ((family, table, name), keys) = keys(change);
    for (range, list) in chunks(keys.iter().map(|key| encode::key(key))) {
        let attributes = [place(&table, &name), vec![SetElementList::Elements(list)]].concat();
        let body = match removal {
            Removal::Delete => NfTablesMessage::DeleteSetElement(SetElementMessage { attributes }),
            Removal::Destroy => {
                let attributes = attributes.iter().map(raw).collect();
                NfTablesMessage::Other { message_type: DESTROYSETELEM, attributes }
            }
        };
        messages.push(Message { part: Part::Keys { change: index, range }, family, flags: 0, body });
    }
}

fn place(table: &str, set: &str) -> Vec<SetElementList> {
    vec![SetElementList::Table(table.to_owned()), SetElementList::Set(set.to_owned())]
}

/// An attribute as bytes, for a message that netlink-packet-netfilter does not know.
fn raw(attribute: &impl Nla) -> DefaultNla {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    DefaultNla::new(attribute.kind(), bytes)
}

type ElementNla = ListAttribute<SetElementAttribute>;

/// Cuts a list into such as fit into an attribute.
fn chunks(elements: impl Iterator<Item = ElementNla>) -> Vec<(Range<usize>, Vec<ElementNla>)> {
    let mut chunks: Vec<(Range<usize>, Vec<ElementNla>)> = Vec::new();
    let mut room = 0;
    for (index, element) in elements.enumerate() {
        let len = element.buffer_len();
        match chunks.last_mut() {
            Some((range, list)) if len <= room => {
                range.end = index + 1;
                list.push(element);
                room -= len;
            }
            _ => {
                chunks.push((index..index + 1, vec![element]));
                room = LIST_LEN.saturating_sub(len);
            }
        }
    }
    chunks
}
