//! Questions with many answers.
//!
//! What does not fit into one message the kernel goes on with where it stopped, by counting what it has passed
//! (`nf_tables_dump_set` and its like of net/netfilter/nf_tables_api.c). Two things make it count wrong, and it says so
//! in neither case, as both leave the generation as it was: a hash table that is being enlarged changes the order of
//! its elements, and what a transaction had put in goes again when it is refused. See ADR 0067.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, NfTablesMessage, RuleAttribute, SetAttribute, SetElementAttribute, TableAttribute,
};
use nft_model::Family;

use super::{NfSocket, silent, unreadable};
use crate::Error;
use crate::nft::message::{Content, Reply};

/// How often a dump that others' changes cut through is begun again: with somebody's commit every three milliseconds about
/// one in twenty is not, of 5,000 elements.
const DUMP_ATTEMPTS: u32 = 1000;

/// The answers of a dump that nobody's commit cut through.
struct Dump {
    contents: Vec<Content>,
    /// How many messages they came in.
    messages: usize,
}

impl NfSocket {
    /// A question with any number of answers, which are consistent with each other: nothing is there twice, and what came
    /// in several messages was given twice in a row.
    pub(in crate::nft) fn dump(
        &mut self,
        what: &str,
        family: Family,
        request: impl Fn() -> NfTablesMessage,
    ) -> Result<Vec<Content>, Error> {
        let mut last = None;
        for _ in 0..DUMP_ATTEMPTS {
            let Some(dump) = self.dump_once(what, family, request())? else { continue };
            let names = dump.names();
            if names.windows(2).all(|pair| pair[0] != pair[1]) {
                if dump.messages <= 1 || last.as_ref().is_some_and(|last: &Dump| last.names() == names) {
                    return Ok(dump.contents);
                }
                last = Some(dump);
            }
        }
        Err(Error::NftUnsettled { what: what.to_owned() })
    }

    /// `None` if a change by somebody else came in between.
    fn dump_once(&mut self, what: &str, family: Family, request: NfTablesMessage) -> Result<Option<Dump>, Error> {
        let sequence = self.begin_dump(family, request)?;
        let (mut dump, mut settled) = (Dump { contents: Vec::new(), messages: 0 }, true);
        while let Some(replies) = self.dump_part(what, sequence)? {
            dump.messages += usize::from(!replies.is_empty());
            for reply in replies {
                settled &= !reply.interrupted;
                dump.contents.push(reply.content);
            }
        }
        Ok(settled.then_some(dump))
    }

    /// Whether a question has any answer at all. The rest is left in the kernel, with the socket.
    pub(in crate::nft) fn dump_has(
        &mut self,
        what: &str,
        family: Family,
        request: NfTablesMessage,
        wanted: impl Fn(&Content) -> bool,
    ) -> Result<bool, Error> {
        let sequence = self.begin_dump(family, request)?;
        while let Some(replies) = self.dump_part(what, sequence)? {
            if replies.iter().any(|reply| wanted(&reply.content)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin_dump(&mut self, family: Family, request: NfTablesMessage) -> Result<u32, Error> {
        let sequence = self.ask(Some(family), request, NLM_F_DUMP)?;
        self.unfinished = Some(sequence);
        Ok(sequence)
    }

    /// The next answers of a dump; `None` at its end.
    fn dump_part(&mut self, what: &str, sequence: u32) -> Result<Option<Vec<Reply>>, Error> {
        if self.unfinished != Some(sequence) {
            return Ok(None);
        }
        let replies = self.receive(sequence..sequence + 1)?.ok_or_else(|| silent(what))?;
        let mut data = Vec::with_capacity(replies.len());
        for reply in replies {
            match reply.content {
                Content::Error { errno, .. } | Content::Done { errno: Some(errno) } => {
                    self.unfinished = None;
                    return Err(unreadable(what, errno));
                }
                Content::Done { errno: None } | Content::Ack => {
                    self.unfinished = None;
                    // The end can be marked as cut through as well as any part of the dump.
                    data.extend(reply.interrupted.then_some(reply));
                }
                _ => data.push(reply),
            }
        }
        Ok(Some(data))
    }
}

impl Dump {
    /// What tells the answers apart, in order.
    fn names(&self) -> Vec<Name<'_>> {
        let mut names: Vec<_> = self.contents.iter().flat_map(names).collect();
        names.sort_unstable();
        names
    }
}

/// What only one answer of a dump has, with defaults for what it lacks. Counters and the like, which may change between
/// two dumps, are not part of it.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a> {
    table: &'a str,
    /// Of a set or chain.
    name: &'a str,
    /// Of a rule, unique in its table.
    handle: u64,
    /// Of an element.
    key: &'a [u8],
    /// Of an element; the end of an interval may have the same key as the beginning of the next.
    flags: u32,
}

fn names(content: &Content) -> Vec<Name<'_>> {
    let mut name = Name::default();
    match content {
        Content::Elements(elements) => return elements.iter().map(|element| name_of_element(element)).collect(),
        Content::Message(NfTablesMessage::NewTable(message)) => {
            for attribute in &message.attributes {
                if let TableAttribute::Name(table) = attribute {
                    name.table = table;
                }
            }
        }
        Content::Message(NfTablesMessage::NewSet(message)) => {
            for attribute in &message.attributes {
                match attribute {
                    SetAttribute::Table(table) => name.table = table,
                    SetAttribute::Name(set) => name.name = set,
                    _ => {}
                }
            }
        }
        Content::Message(NfTablesMessage::NewChain(message)) => {
            for attribute in &message.attributes {
                match attribute {
                    ChainAttribute::Table(table) => name.table = table,
                    ChainAttribute::Name(chain) => name.name = chain,
                    _ => {}
                }
            }
        }
        Content::Message(NfTablesMessage::NewRule(message)) => {
            for attribute in &message.attributes {
                match attribute {
                    RuleAttribute::Table(table) => name.table = table,
                    RuleAttribute::Handle(handle) => name.handle = *handle,
                    _ => {}
                }
            }
        }
        _ => return Vec::new(),
    }
    vec![name]
}

fn name_of_element(attributes: &[SetElementAttribute]) -> Name<'_> {
    let mut name = Name::default();
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => name.key = bytes,
            SetElementAttribute::Flags(flags) => name.flags = flags.bits(),
            _ => {}
        }
    }
    name
}
