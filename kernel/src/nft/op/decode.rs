//! Expressions out of a netlink message.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, Operator,
    Payload, Register, VerdictAttribute,
};

use super::{Expression, LOOKUP_F_INV, NAT_ADDRESS, NAT_DNAT, NAT_FLAGS, NAT_SNAT, Op};

impl Op {
    /// The expression of an element of `NFTA_RULE_EXPRESSIONS`.
    pub(in crate::nft) fn decode(expression: &Expression) -> Self {
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

/// The first word of a register, by either of its names.
pub(in crate::nft) fn word(register: Register) -> Option<u32> {
    match u32::from(register) {
        big @ 1..=4 => Some((big - 1) * 4),
        small @ 8..=23 => Some(small - 8),
        _ => None,
    }
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
    if let [Immediate::DestinationRegister(register), Immediate::Data(DataAttribute::Value(data))] = attributes {
        return Some(Op::Value { data: data.clone(), to: word(*register)? });
    }
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
        ("nat", [(1, NAT_SNAT), (2, family), (3, addr), (4, end), (7, NAT_ADDRESS)]) if addr == end => {
            Some(Op::Snat { family: *family, addr: register(*addr)? })
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
