//! Rules as lists of expressions, the way nft(8) writes them.

mod decode;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_netfilter::nftables::{MetaKey, Verdict};
use nft_model::{Family, Field, Rule, Statement, Type};

pub(super) use self::decode::decode;
use super::op::{
    CT_STATE, CT_STATUS, FIB_F_DADDR, FIB_RESULT_ADDRTYPE, LINK_HEADER, NETWORK_HEADER, Op, TRANSPORT_HEADER,
};
use super::value::{IFNAMSIZ, family_number, words};

/// `RTN_LOCAL` of linux/rtnetlink.h.
const RTN_LOCAL: u32 = 2;
/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const IPS_DST_NAT: u32 = 1 << 5;
/// `NF_CT_STATE_INVALID_BIT` of the same.
const STATE_INVALID: u32 = 1 << 0;
/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const DROP: Verdict = Verdict::Other(0);
const ACCEPT: Verdict = Verdict::Other(1);
/// `ARPHRD_ETHER` of linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
/// `IPPROTO_ICMPV6` of linux/in6.h.
const ICMPV6: u8 = 58;

/// The expressions of a rule, all starting at the first register.
pub(super) fn encode(family: Family, rule: &Rule) -> Vec<Op> {
    rule.0.iter().flat_map(|statement| encode_statement(family, statement)).collect()
}

fn encode_statement(family: Family, statement: &Statement) -> Vec<Op> {
    match statement {
        Statement::FibDaddrTypeLocal => vec![
            Op::Fib { result: FIB_RESULT_ADDRTYPE, flags: FIB_F_DADDR, to: 0 },
            compare(true, &RTN_LOCAL.to_ne_bytes()),
        ],
        Statement::SaddrIn(network) => encode_network(family, Field::Saddr, true, *network),
        Statement::SaddrNotIn(network) => encode_network(family, Field::Saddr, false, *network),
        Statement::DaddrIn(network) => encode_network(family, Field::Daddr, true, *network),
        Statement::DaddrNotIn(network) => encode_network(family, Field::Daddr, false, *network),
        Statement::L4proto(proto) => vec![load(family, Field::L4proto, 0), compare(true, &[proto.number()])],
        Statement::Lookup { fields, set, negate } => {
            let mut ops = load_key(family, fields);
            ops.push(Op::Lookup { set: set.clone(), from: 0, to: None, negate: *negate });
            ops
        }
        Statement::DnatMap { fields, map } => {
            let mut ops = load_key(family, fields);
            ops.push(Op::Lookup { set: map.clone(), from: 0, to: Some(0), negate: false });
            ops.push(Op::Dnat { family: family_number(family), addr: 0, port: words(family, Type::Addr) });
            ops
        }
        Statement::Icmpv6Type(kind) => vec![
            load(family, Field::L4proto, 0),
            compare(true, &[ICMPV6]),
            load_header(TRANSPORT_HEADER, 0, 1, 0),
            compare(true, &[*kind]),
        ],
        Statement::CtStatusDnat => tracked(CT_STATUS, IPS_DST_NAT),
        Statement::CtStateInvalid => tracked(CT_STATE, STATE_INVALID),
        Statement::Iifname(name) => encode_interface(MetaKey::Iifname, true, name),
        Statement::IifnameNot(name) => encode_interface(MetaKey::Iifname, false, name),
        Statement::Oifname(name) => encode_interface(MetaKey::Oifname, true, name),
        Statement::OifnameNot(name) => encode_interface(MetaKey::Oifname, false, name),
        Statement::MarkHas(bits) => vec![
            Op::Meta { key: MetaKey::Mark, to: 0 },
            Op::Mask { register: 0, mask: bits.to_ne_bytes().into(), xor: vec![0; 4] },
            compare(true, &bits.to_ne_bytes()),
        ],
        Statement::MarkSet(bits) => vec![
            Op::Meta { key: MetaKey::Mark, to: 0 },
            Op::Mask { register: 0, mask: (!bits).to_ne_bytes().into(), xor: bits.to_ne_bytes().into() },
            Op::SetMeta { key: MetaKey::Mark, from: 0 },
        ],
        Statement::Counter => vec![Op::Counter],
        Statement::Masquerade => vec![Op::Masquerade],
        Statement::Snat(address) => {
            vec![Op::Value { data: octets(*address), to: 0 }, Op::Snat { family: family_number(family), addr: 0 }]
        }
        Statement::Jump(chain) => vec![verdict(Verdict::Jump, Some(chain))],
        Statement::Goto(chain) => vec![verdict(Verdict::Goto, Some(chain))],
        Statement::Return => vec![verdict(Verdict::Return, None)],
        Statement::Accept => vec![verdict(ACCEPT, None)],
        Statement::Drop => vec![verdict(DROP, None)],
        Statement::Unknown(what) => vec![Op::Other(what.clone())],
    }
}

/// What connection tracking says of a packet has these bits.
fn tracked(key: u32, bits: u32) -> Vec<Op> {
    vec![
        Op::Ct { key, to: 0 },
        Op::Mask { register: 0, mask: bits.to_ne_bytes().into(), xor: vec![0; 4] },
        compare(false, &[0; 4]),
    ]
}

fn compare(equal: bool, data: &[u8]) -> Op {
    Op::Cmp { equal, from: 0, data: data.to_vec() }
}

fn verdict(code: Verdict, chain: Option<&String>) -> Op {
    Op::Verdict { code, chain: chain.cloned() }
}

/// Where an address is in the IP header, and how many bytes it has.
fn address(family: Family, field: Field) -> (u32, usize) {
    match (family, field) {
        (Family::Ip, Field::Saddr) => (12, 4),
        (Family::Ip, _) => (16, 4),
        (Family::Ip6, Field::Saddr) => (8, 16),
        (Family::Ip6, _) => (24, 16),
    }
}

fn load(family: Family, field: Field, to: u32) -> Op {
    match field {
        Field::Iifname => Op::Meta { key: MetaKey::Iifname, to },
        // Behind the destination's six bytes.
        Field::EtherSaddr => load_header(LINK_HEADER, 6, 6, to),
        Field::Saddr | Field::Daddr => {
            let (offset, len) = address(family, field);
            load_header(NETWORK_HEADER, offset, len, to)
        }
        Field::L4proto => Op::Meta { key: MetaKey::L4Proto, to },
        // Two bytes behind the source port in TCP, UDP and SCTP alike.
        Field::ThDport => load_header(TRANSPORT_HEADER, 2, 2, to),
    }
}

fn load_header(base: u32, offset: u32, len: usize, to: u32) -> Op {
    Op::Payload { base, offset, len: u32::try_from(len).unwrap_or(u32::MAX), to }
}

/// Loads the fields of a concatenation one behind the other, each into registers of its own. What is asked about an
/// Ethernet header is asked of Ethernet frames only.
fn load_key(family: Family, fields: &[Field]) -> Vec<Op> {
    let mut to = 0;
    let mut ops = Vec::with_capacity(fields.len() + 4);
    if fields.contains(&Field::EtherSaddr) {
        ops.extend([Op::Meta { key: MetaKey::Iftype, to: 0 }, compare(true, &ARPHRD_ETHER.to_ne_bytes())]);
    }
    for field in fields {
        ops.push(load(family, *field, to));
        to += words(family, field.value_type());
    }
    ops
}

/// Compares as many whole bytes as the prefix has, or masks the address.
fn encode_network(family: Family, field: Field, equal: bool, network: IpNetwork) -> Vec<Op> {
    let (offset, len) = address(family, field);
    let bytes = octets(network.network());
    let mask = octets(network.mask());
    let prefix = usize::from(network.prefix());
    if prefix > 0 && prefix % 8 == 0 {
        let whole = (prefix / 8).min(bytes.len());
        return vec![load_header(NETWORK_HEADER, offset, whole, 0), compare(equal, &bytes[..whole])];
    }
    vec![
        load_header(NETWORK_HEADER, offset, len, 0),
        Op::Mask { register: 0, xor: vec![0; mask.len()], mask },
        compare(equal, &bytes),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// Compares the whole name with its NULs, or what stands before a final `*`.
fn encode_interface(key: MetaKey, equal: bool, name: &str) -> Vec<Op> {
    let data = match name.strip_suffix('*') {
        Some(start) => start.as_bytes().to_vec(),
        None => {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(IFNAMSIZ, 0);
            padded
        }
    };
    vec![Op::Meta { key, to: 0 }, compare(equal, &data)]
}
