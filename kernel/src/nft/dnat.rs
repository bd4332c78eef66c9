//! Rules of others that translate one port to one address and port, such as `tcp dport 8080 dnat to 10.0.0.2:80`, and what
//! the other rules beside them are about.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::{
    DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, MetaKey, NfTablesMessage, RuleAttribute,
    RuleMessage,
};
use nft_model::{Family, Proto};

use super::message::Content;
use super::op::{NETWORK_HEADER, Op, TRANSPORT_HEADER};
use super::{Nft, value};
use crate::Error;

/// Where the destination port is in the header of every protocol with ports.
const DESTINATION_PORT: u32 = 2;
/// Where the source address is in the header of IPv4, and of IPv6.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;

/// Such a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnatRule {
    /// The rule's comment.
    pub comment: Option<String>,
    /// The only address it is for; `None` for every one.
    pub daddr: Option<IpAddr>,
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
    /// The port it is for.
    pub port: u16,
    /// Where it leads.
    pub to: SocketAddr,
}

/// Any rule, as far as it matters to the ones above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRule {
    /// The rule's comment.
    pub comment: Option<String>,
    /// Whether it asks packets for anything but the type of their destination (`fib daddr type`).
    pub is_limited: bool,
    /// Whether it asks them where they come from: `ip saddr 0.0.0.0/0` does not.
    pub has_source: bool,
}

impl Nft {
    /// All rules of a chain, in order. Nothing if there is no such chain.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn plain_rules(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<PlainRule>, Error> {
        let rules = self.rules_of(family, table, chain)?;
        Ok(rules.iter().filter_map(|attributes| plain(family, table, chain, attributes)).collect())
    }

    /// The rules of this kind in a chain, in order; others are left out. Nothing if there is no such chain.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn dnat_rules(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<DnatRule>, Error> {
        let rules = self.rules_of(family, table, chain)?;
        Ok(rules.iter().filter_map(|attributes| rule(table, chain, attributes)).collect())
    }

    fn rules_of(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<Vec<RuleAttribute>>, Error> {
        let attributes = || vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
        let request = || NfTablesMessage::GetRule(RuleMessage { attributes: attributes() });
        let contents = self.socket.dump(&format!("the rules of chain {family} {table} {chain}"), family, request)?;
        let rules = contents.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewRule(message)) => Some(message.attributes),
            _ => None,
        });
        Ok(rules.collect())
    }
}

fn plain(family: Family, table: &str, chain: &str, attributes: &[RuleAttribute]) -> Option<PlainRule> {
    let (mut comment, mut ops) = (None, Vec::new());
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) if name != chain => return None,
            RuleAttribute::UserData(bytes) => comment = value::decode_comment(bytes),
            RuleAttribute::Expressions(expressions) => ops.extend(expressions.iter().map(Op::decode)),
            _ => {}
        }
    }
    let is_limited =
        ops.iter().any(|op| !matches!(op, Op::Fib { .. } | Op::Cmp { .. } | Op::Verdict { .. } | Op::Counter));
    Some(PlainRule { comment, is_limited, has_source: has_source(family, &ops) })
}

/// Whether the source address is compared with anything. nft(8) writes `0.0.0.0/0` and `::/0` as a mask of no bits.
fn has_source(family: Family, ops: &[Op]) -> bool {
    let source = if family == Family::Ip { SOURCE_V4 } else { SOURCE_V6 };
    let mut is_loaded = false;
    ops.iter().any(|op| match op {
        Op::Payload { base, offset, .. } => {
            is_loaded = *base == NETWORK_HEADER && *offset == source;
            false
        }
        Op::Mask { mask, .. } => {
            is_loaded &= mask.iter().any(|byte| *byte != 0);
            false
        }
        Op::Cmp { .. } | Op::Lookup { .. } => is_loaded,
        _ => false,
    })
}

fn rule(table: &str, chain: &str, attributes: &[RuleAttribute]) -> Option<DnatRule> {
    let (mut comment, mut seen) = (None, Seen::default());
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) if name != chain => return None,
            RuleAttribute::UserData(bytes) => comment = value::decode_comment(bytes),
            RuleAttribute::Expressions(expressions) => expressions.iter().for_each(|expression| seen.add(expression)),
            _ => {}
        }
    }
    let Seen { daddr, protocol, port, to, .. } = seen;
    Some(DnatRule { comment, daddr, protocol: protocol?, port: port?, to: to? })
}

/// What the expressions of a rule have said so far.
#[derive(Default)]
struct Seen {
    /// What the next comparison is about.
    loaded: Option<Loaded>,
    /// Numbers in registers.
    registers: BTreeMap<u32, Vec<u8>>,
    daddr: Option<IpAddr>,
    protocol: Option<Proto>,
    port: Option<u16>,
    to: Option<SocketAddr>,
}

#[derive(Clone, Copy)]
enum Loaded {
    Daddr,
    Protocol,
    Port,
}

impl Seen {
    fn add(&mut self, expression: &ListAttribute<ExpressionAttribute>) {
        if let Some((register, bytes)) = immediate(expression) {
            self.registers.insert(register, bytes);
            return;
        }
        match Op::decode(expression) {
            Op::Payload { base: NETWORK_HEADER, offset: 16 | 24, len: 4 | 16, .. } => self.loaded = Some(Loaded::Daddr),
            Op::Payload { base: TRANSPORT_HEADER, offset: DESTINATION_PORT, len: 2, .. } => {
                self.loaded = Some(Loaded::Port);
            }
            Op::Meta { key: MetaKey::L4Proto, .. } => self.loaded = Some(Loaded::Protocol),
            Op::Cmp { equal: true, data, .. } => match self.loaded.take() {
                Some(Loaded::Daddr) => self.daddr = address(&data),
                Some(Loaded::Protocol) => self.protocol = data.first().copied().and_then(Proto::from_number),
                Some(Loaded::Port) => self.port = port(&data),
                None => {}
            },
            Op::Dnat { addr, port: at, .. } => {
                let address = self.registers.get(&addr).and_then(|bytes| address(bytes));
                let port = self.registers.get(&at).and_then(|bytes| port(bytes));
                self.to = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
            }
            _ => {}
        }
    }
}

/// A value that is put into a register, which is named by its first word.
fn immediate(expression: &ListAttribute<ExpressionAttribute>) -> Option<(u32, Vec<u8>)> {
    let ListAttribute::Element(attributes) = expression else { return None };
    let attributes = attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Immediate(attributes)) => Some(attributes),
        _ => None,
    })?;
    let register = attributes.iter().find_map(|attribute| match attribute {
        Immediate::DestinationRegister(register) => super::op::word(*register),
        _ => None,
    })?;
    attributes.iter().find_map(|attribute| match attribute {
        Immediate::Data(DataAttribute::Value(bytes)) => Some((register, bytes.clone())),
        _ => None,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_be_bytes)
}
