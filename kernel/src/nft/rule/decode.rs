//! Rules out of lists of expressions.
//!
//! What an expression may be is guessed, and the guess encoded: it is right if that gives the same expressions. So
//! nothing is ever taken for one of our statements that differs from it in any way.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_netfilter::nftables::{MetaKey, Verdict};
use nft_model::{Family, Field, Proto, Rule, Statement};

use super::{ACCEPT, DROP, IFNAMSIZ, encode_statement, load};
use crate::nft::op::Op;
use crate::nft::value::words;

/// The rule that encodes to these expressions. What no statement encodes to becomes [`Statement::Unknown`].
pub(in crate::nft) fn decode(family: Family, mut ops: &[Op]) -> Rule {
    let mut statements = Vec::new();
    while let Some(first) = ops.first() {
        let found = candidates(family, ops).into_iter().find_map(|statement| {
            let encoded = encode_statement(family, &statement);
            ops.starts_with(&encoded).then_some((statement, encoded.len()))
        });
        let (statement, length) = found.unwrap_or_else(|| (Statement::Unknown(unknown(first)), 1));
        statements.push(statement);
        ops = &ops[length..];
    }
    Rule(statements)
}

fn unknown(op: &Op) -> String {
    match op {
        Op::Other(what) => what.clone(),
        op => format!("{op:?}"),
    }
}

/// Statements that may be what `ops` begins with. The one that is encodes to the same expressions.
fn candidates(family: Family, ops: &[Op]) -> Vec<Statement> {
    let mut found = key_candidates(family, ops);
    match ops {
        [Op::Fib { .. }, ..] => found.push(Statement::FibDaddrTypeLocal),
        [Op::Ct { .. }, ..] => found.extend([Statement::CtStatusDnat, Statement::CtStateInvalid]),
        [Op::Meta { key: MetaKey::Mark, .. }, Op::Mask { mask, xor, .. }, ..] => {
            found.extend(host_number(mask).map(Statement::MarkHas));
            found.extend(host_number(xor).map(Statement::MarkSet));
        }
        [Op::Meta { key: MetaKey::L4Proto, .. }, Op::Cmp { .. }, Op::Payload { .. }, Op::Cmp { data, .. }, ..]
            if data.len() == 1 =>
        {
            found.extend(data.first().map(|kind| Statement::Icmpv6Type(*kind)));
            if let [Op::Meta { key, .. }, Op::Cmp { equal, data, .. }, ..] = ops {
                found.extend(meta_candidate(*key, *equal, data));
            }
        }
        [Op::Meta { key, .. }, Op::Cmp { equal, data, .. }, ..] => found.extend(meta_candidate(*key, *equal, data)),
        [Op::Payload { .. }, Op::Cmp { equal, data, .. }, ..] => {
            found.extend(network_candidates(family, *equal, data, data.len() * 8));
        }
        [Op::Payload { .. }, Op::Mask { mask, .. }, Op::Cmp { equal, data, .. }, ..] => {
            let prefix = mask.iter().map(|byte| byte.count_ones() as usize).sum();
            found.extend(network_candidates(family, *equal, data, prefix));
        }
        [Op::Value { data, .. }, Op::Snat { .. }, ..] => found.extend(address(data).map(Statement::Snat)),
        [Op::Counter, ..] => found.push(Statement::Counter),
        [Op::Masquerade, ..] => found.push(Statement::Masquerade),
        [Op::Verdict { code, chain }, ..] => found.extend(verdict_candidate(*code, chain.as_ref())),
        _ => {}
    }
    found
}

fn host_number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn meta_candidate(key: MetaKey, equal: bool, data: &[u8]) -> Option<Statement> {
    if key == MetaKey::L4Proto {
        return data.first().and_then(|number| Proto::from_number(*number)).map(Statement::L4proto);
    }
    let text = std::str::from_utf8(data).ok()?;
    let name = match data.len() {
        IFNAMSIZ => text.trim_end_matches('\0').to_owned(),
        _ => format!("{text}*"),
    };
    match (key, equal) {
        (MetaKey::Iifname, true) => Some(Statement::Iifname(name)),
        (MetaKey::Iifname, false) => Some(Statement::IifnameNot(name)),
        (MetaKey::Oifname, true) => Some(Statement::Oifname(name)),
        (MetaKey::Oifname, false) => Some(Statement::OifnameNot(name)),
        _ => None,
    }
}

fn network_candidates(family: Family, equal: bool, data: &[u8], prefix: usize) -> Vec<Statement> {
    let address = match family {
        Family::Ip => padded(data).map(|octets: [u8; 4]| IpAddr::from(octets)),
        Family::Ip6 => padded(data).map(|octets: [u8; 16]| IpAddr::from(octets)),
    };
    let network = address.zip(u8::try_from(prefix).ok());
    match network.and_then(|(address, prefix)| IpNetwork::new(address, prefix).ok()) {
        None => vec![],
        Some(network) if equal => vec![Statement::SaddrIn(network), Statement::DaddrIn(network)],
        Some(network) => vec![Statement::SaddrNotIn(network), Statement::DaddrNotIn(network)],
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The bytes with zeroes behind them, if they are not too many.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(whole)
}

fn verdict_candidate(code: Verdict, chain: Option<&String>) -> Option<Statement> {
    match (code, chain) {
        (Verdict::Jump, Some(chain)) => Some(Statement::Jump(chain.clone())),
        (Verdict::Goto, Some(chain)) => Some(Statement::Goto(chain.clone())),
        (Verdict::Return, None) => Some(Statement::Return),
        (ACCEPT, None) => Some(Statement::Accept),
        (DROP, None) => Some(Statement::Drop),
        _ => None,
    }
}

/// Key fields, one behind the other, and then a lookup.
fn key_candidates(family: Family, ops: &[Op]) -> Vec<Statement> {
    const FIELDS: [Field; 6] =
        [Field::Iifname, Field::EtherSaddr, Field::Saddr, Field::Daddr, Field::L4proto, Field::ThDport];
    let ops = match ops {
        [Op::Meta { key: MetaKey::Iftype, .. }, Op::Cmp { .. }, rest @ ..] => rest,
        _ => ops,
    };
    let mut fields = Vec::new();
    let mut to = 0;
    for op in ops {
        if let Op::Lookup { set, negate, .. } = op {
            let lookup = Statement::Lookup { fields: fields.clone(), set: set.clone(), negate: *negate };
            return vec![Statement::DnatMap { fields, map: set.clone() }, lookup];
        }
        let Some(field) = FIELDS.into_iter().find(|field| load(family, *field, to) == *op) else { break };
        fields.push(field);
        to += words(family, field.value_type());
    }
    vec![]
}
