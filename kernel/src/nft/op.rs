//! nf_tables expressions, the instructions of a rule, and how they look in a netlink message.
//!
//! Numbers are those of linux/netfilter/nf_tables.h. The kernel reads registers by two sets of names and gives them
//! back by the other one where it can, so here a register is the number of its first word of four bytes.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(super) const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub(super) const TRANSPORT_HEADER: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_RESULT_ADDRTYPE: u32 = 3;
/// `NFTA_FIB_F_DADDR`.
pub(super) const FIB_F_DADDR: u32 = 1 << 1;
/// `NFT_CT_STATUS`.
pub(super) const CT_STATUS: u32 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_F_INV: u32 = 1;
/// `NFT_NAT_DNAT`.
const NAT_DNAT: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, which the kernel sets itself for an address and a port.
const NAT_FLAGS: u32 = 1 << 0 | 1 << 1;

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Loads `len` bytes of a header into a register.
    Payload { base: u32, offset: u32, len: u32, to: u32 },
    /// Loads something the kernel knows about the packet.
    Meta { key: MetaKey, to: u32 },
    /// Sets something the kernel knows about the packet.
    SetMeta { key: MetaKey, from: u32 },
    /// Loads something about the connection.
    Ct { key: u32, to: u32 },
    /// Asks the routing tables.
    Fib { result: u32, flags: u32, to: u32 },
    /// Goes on if a register holds `data`, or does not.
    Cmp { equal: bool, from: u32, data: Vec<u8> },
    /// register = (register & mask) ^ xor.
    Mask { register: u32, mask: Vec<u8>, xor: Vec<u8> },
    /// Asks a set, or with `to` a map.
    Lookup { set: String, from: u32, to: Option<u32>, negate: bool },
    /// Translates the destination to the address and the port in registers. The family is `NFPROTO_*`.
    Dnat { family: u32, addr: u32, port: u32 },
    /// Translates the source to an address of the outgoing interface.
    Masquerade,
    /// Counts.
    Counter,
    /// Decides, or goes to a chain.
    Verdict { code: Verdict, chain: Option<String> },
    /// Anything else, described.
    Other(String),
}

type Expression = ListAttribute<ExpressionAttribute>;

/// A register by the name that fits every one of them: `NFT_REG32_00` and up.
fn name(word: u32) -> Register {
    Register::from(8 + word)
}

/// The first word of a register, by either of its names.
fn word(register: Register) -> Option<u32> {
    match u32::from(register) {
        big @ 1..=4 => Some((big - 1) * 4),
        small @ 8..=23 => Some(small - 8),
        _ => None,
    }
}

/// An attribute that holds a number, big endian as all numbers of nf_tables.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn other(expression_type: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: expression_type.to_owned(), attributes }
}

fn value(bytes: &[u8]) -> DataAttribute {
    DataAttribute::Value(bytes.to_vec())
}

impl Op {
    /// The expression as an element of `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn encode(&self) -> Expression {
        match self {
            Self::Payload { base, offset, len, to } => Expressions::Payload(vec![
                Payload::DestinationRegister(name(*to)),
                Payload::Base(*base),
                Payload::Offset(*offset),
                Payload::Len(*len),
            ]),
            Self::Meta { key, to } => Expressions::Meta(vec![Meta::Key(*key), Meta::DestinationRegister(name(*to))]),
            Self::SetMeta { key, from } => Expressions::Meta(vec![Meta::Key(*key), Meta::SourceRegister(name(*from))]),
            Self::Ct { key, to } => other("ct", vec![number(1, name(*to).into()), number(2, *key)]),
            Self::Fib { result, flags, to } => {
                other("fib", vec![number(1, name(*to).into()), number(2, *result), number(3, *flags)])
            }
            Self::Cmp { equal, from, data } => Expressions::Cmp(vec![
                Cmp::SourceRegister(name(*from)),
                Cmp::Op(if *equal { Operator::Equal } else { Operator::NotEqual }),
                Cmp::Data(value(data)),
            ]),
            Self::Mask { register, mask, xor } => Expressions::Bitwise(vec![
                Bitwise::SourceRegister(name(*register)),
                Bitwise::DestinationRegister(name(*register)),
                Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
                Bitwise::Mask(value(mask)),
                Bitwise::Xor(value(xor)),
            ]),
            Self::Lookup { set, from, to, negate } => Expressions::Lookup(encode_lookup(set, *from, *to, *negate)),
            Self::Dnat { family, addr, port } => {
                let registers = [number(3, name(*addr).into()), number(5, name(*port).into())];
                other("nat", [vec![number(1, NAT_DNAT), number(2, *family)], registers.to_vec()].concat())
            }
            Self::Masquerade => other("masq", vec![]),
            Self::Counter => other("counter", vec![]),
            Self::Verdict { code, chain } => Expressions::Immediate(encode_verdict(*code, chain.as_ref())),
            Self::Other(what) => other(what, vec![]),
        }
        .into()
    }

    /// The expression of an element of `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn decode(expression: &Expression) -> Self {
        let ListAttribute::Element(attributes) = expression else { return Self::Other("no expression".to_owned()) };
        let data = attributes.iter().find_map(|attribute| match attribute {
            ExpressionAttribute::Data(data) => Some(data),
            _ => None,
        });
        let name = attributes.iter().find_map(|attribute| match attribute {
            ExpressionAttribute::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let known = data.and_then(|data| match data {
            Expressions::Payload(attributes) => decode_payload(attributes),
            Expressions::Meta(attributes) => decode_meta(attributes),
            Expressions::Cmp(attributes) => decode_cmp(attributes),
            Expressions::Bitwise(attributes) => decode_bitwise(attributes),
            Expressions::Lookup(attributes) => decode_lookup(attributes),
            Expressions::Immediate(attributes) => decode_immediate(attributes),
            Expressions::Other { expression_type, attributes } => decode_other(expression_type, attributes),
            _ => None,
        });
        known.unwrap_or_else(|| Self::Other(describe(name, data)))
    }
}

fn encode_lookup(set: &str, from: u32, to: Option<u32>, negate: bool) -> Vec<Lookup> {
    let mut attributes = vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(name(from))];
    attributes.extend(to.map(|to| Lookup::DestinationRegister(name(to))));
    attributes.extend(negate.then_some(Lookup::Flags(LOOKUP_F_INV)));
    attributes
}

fn encode_verdict(code: Verdict, chain: Option<&String>) -> Vec<Immediate> {
    let mut verdict = vec![VerdictAttribute::Code(code)];
    verdict.extend(chain.map(|chain| VerdictAttribute::Chain(chain.clone())));
    vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(DataAttribute::Verdict(verdict))]
}

fn decode_payload(attributes: &[Payload]) -> Option<Op> {
    let (mut base, mut offset, mut len, mut to) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Payload::Base(value) => base = Some(*value),
            Payload::Offset(value) => offset = Some(*value),
            Payload::Len(value) => len = Some(*value),
            Payload::DestinationRegister(register) => to = word(*register),
            _ => return None,
        }
    }
    Some(Op::Payload { base: base?, offset: offset?, len: len?, to: to? })
}

fn decode_meta(attributes: &[Meta]) -> Option<Op> {
    let (mut key, mut to, mut from) = (None, None, None);
    for attribute in attributes {
        match attribute {
            Meta::Key(value) => key = Some(*value),
            Meta::DestinationRegister(register) => to = word(*register),
            Meta::SourceRegister(register) => from = word(*register),
            _ => return None,
        }
    }
    match (to, from) {
        (Some(to), None) => Some(Op::Meta { key: key?, to }),
        (None, Some(from)) => Some(Op::SetMeta { key: key?, from }),
        _ => None,
    }
}

fn decode_cmp(attributes: &[Cmp]) -> Option<Op> {
    let (mut equal, mut from, mut data) = (None, None, None);
    for attribute in attributes {
        match attribute {
            Cmp::SourceRegister(register) => from = word(*register),
            Cmp::Op(Operator::Equal) => equal = Some(true),
            Cmp::Op(Operator::NotEqual) => equal = Some(false),
            Cmp::Data(DataAttribute::Value(bytes)) => data = Some(bytes.clone()),
            _ => return None,
        }
    }
    Some(Op::Cmp { equal: equal?, from: from?, data: data? })
}

fn decode_bitwise(attributes: &[Bitwise]) -> Option<Op> {
    let (mut from, mut to, mut mask, mut xor) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Bitwise::SourceRegister(register) => from = word(*register),
            Bitwise::DestinationRegister(register) => to = word(*register),
            Bitwise::Mask(DataAttribute::Value(bytes)) => mask = Some(bytes.clone()),
            Bitwise::Xor(DataAttribute::Value(bytes)) => xor = Some(bytes.clone()),
            // NFT_BITWISE_BOOL, the operation that masks; the length is that of the mask.
            Bitwise::Op(0) | Bitwise::Length(_) => {}
            _ => return None,
        }
    }
    (from == to).then_some(Op::Mask { register: from?, mask: mask?, xor: xor? })
}

fn decode_lookup(attributes: &[Lookup]) -> Option<Op> {
    let (mut set, mut from, mut to, mut negate) = (None, None, None, false);
    for attribute in attributes {
        match attribute {
            Lookup::Set(name) => set = Some(name.clone()),
            Lookup::SourceRegister(register) => from = word(*register),
            Lookup::DestinationRegister(register) => to = Some(word(*register)?),
            Lookup::Flags(flags @ (0 | LOOKUP_F_INV)) => negate = *flags == LOOKUP_F_INV,
            _ => return None,
        }
    }
    Some(Op::Lookup { set: set?, from: from?, to, negate })
}

fn decode_immediate(attributes: &[Immediate]) -> Option<Op> {
    let (mut code, mut chain) = (None, None);
    for attribute in attributes {
        match attribute {
            Immediate::DestinationRegister(Register::Verdict) => {}
            Immediate::Data(DataAttribute::Verdict(verdict)) => {
                for part in verdict {
                    match part {
                        VerdictAttribute::Code(value) => code = Some(*value),
                        VerdictAttribute::Chain(name) => chain = Some(name.clone()),
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
    }
    Some(Op::Verdict { code: code?, chain })
}

/// The expressions that netlink-packet-netfilter has no types for.
fn decode_other(expression: &str, attributes: &[DefaultNla]) -> Option<Op> {
    let numbers = attributes.iter().map(|attribute| {
        let mut bytes = vec![0; attribute.value_len()];
        attribute.emit_value(&mut bytes);
        Some((attribute.kind(), u32::from_be_bytes(bytes.try_into().ok()?)))
    });
    // What a counter counts is no part of the rule, and does not fit into 32 bits.
    if expression == "counter" {
        return Some(Op::Counter);
    }
    let numbers: Vec<(u16, u32)> = numbers.collect::<Option<_>>()?;
    let register = |number: u32| word(Register::from(number));
    match (expression, numbers.as_slice()) {
        ("masq", []) => Some(Op::Masquerade),
        ("ct", [(1, to), (2, key)] | [(2, key), (1, to)]) => Some(Op::Ct { key: *key, to: register(*to)? }),
        ("fib", [(1, to), (2, result), (3, flags)]) => {
            Some(Op::Fib { result: *result, flags: *flags, to: register(*to)? })
        }
        // The kernel gives back the ends of the ranges too, which are their beginnings.
        ("nat", [(1, NAT_DNAT), (2, family), (3, addr), (4, addr_end), (5, port), (6, port_end), (7, NAT_FLAGS)])
            if addr == addr_end && port == port_end =>
        {
            Some(Op::Dnat { family: *family, addr: register(*addr)?, port: register(*port)? })
        }
        _ => None,
    }
}

/// An expression nobody here knows: its name and its attributes, as `number=hex`.
fn describe(name: Option<&str>, data: Option<&Expressions>) -> String {
    let mut text = name.unwrap_or("nameless").to_owned();
    match data {
        Some(Expressions::Other { attributes, .. }) => {
            for attribute in attributes {
                let mut bytes = vec![0; attribute.value_len()];
                attribute.emit_value(&mut bytes);
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                text.push_str(&format!(" {}={hex}", attribute.kind()));
            }
        }
        Some(data) => text.push_str(&format!(" {data:?}")),
        None => {}
    }
    text
}
