//! nf_tables expressions, the instructions of a rule, and how they look in a netlink message.
//!
//! Numbers are those of linux/netfilter/nf_tables.h. The kernel reads registers by two sets of names and gives them
//! back by the other one where it can, so here a register is the number of its first word of four bytes.

mod decode;

pub(super) use self::decode::word;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// `NFT_PAYLOAD_LL_HEADER`.
pub(super) const LINK_HEADER: u32 = 0;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(super) const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub(super) const TRANSPORT_HEADER: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_RESULT_ADDRTYPE: u32 = 3;
/// `NFTA_FIB_F_DADDR`.
pub(super) const FIB_F_DADDR: u32 = 1 << 1;
/// `NFT_CT_STATE`.
pub(super) const CT_STATE: u32 = 0;
/// `NFT_CT_STATUS`.
pub(super) const CT_STATUS: u32 = 2;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_F_INV: u32 = 1;
/// `NFT_NAT_SNAT`.
const NAT_SNAT: u32 = 0;
/// `NF_NAT_RANGE_MAP_IPS`, which the kernel sets itself for an address.
const NAT_ADDRESS: u32 = 1 << 0;
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
    /// Loads a value.
    Value { data: Vec<u8>, to: u32 },
    /// Translates the source to the address in a register.
    Snat { family: u32, addr: u32 },
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
            Self::Value { data, to } => {
                Expressions::Immediate(vec![Immediate::DestinationRegister(name(*to)), Immediate::Data(value(data))])
            }
            Self::Snat { family, addr } => {
                other("nat", vec![number(1, NAT_SNAT), number(2, *family), number(3, name(*addr).into())])
            }
            Self::Masquerade => other("masq", vec![]),
            Self::Counter => other("counter", vec![]),
            Self::Verdict { code, chain } => Expressions::Immediate(encode_verdict(*code, chain.as_ref())),
            Self::Other(what) => other(what, vec![]),
        }
        .into()
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
