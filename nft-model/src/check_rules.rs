//! What makes a chain or a rule impossible.

use ipnetwork::IpNetwork;

use crate::base::{Base, Hook, Kind};
use crate::chain::{Chain, Rule};
use crate::check::{find_set, name};
use crate::field::Field;
use crate::invalid::Invalid;
use crate::statement::Statement;
use crate::table::Table;
use crate::value::{Family, Type};

/// The lowest priority of a nat chain is above that of connection tracking, `NF_IP_PRI_CONNTRACK` of
/// linux/netfilter_ipv4.h.
const CONNTRACK: i32 = -200;

/// That the chains are possible, and what they refer to is there.
pub(crate) fn chains(table: &Table) -> Result<(), Invalid> {
    for chain in table.chains() {
        name(&chain.name)?;
        chain.base.as_ref().map_or(Ok(()), base)?;
        for line in &chain.rules {
            rule(table.family(), line)?;
            line.0.iter().try_for_each(|statement| refers(table, statement))?;
        }
    }
    table.chains().iter().try_for_each(|chain| reach(table, chain, chain, &mut Vec::new()))
}

fn base(base: &Base) -> Result<(), Invalid> {
    let possible = match base.kind {
        Kind::Filter => true,
        Kind::Nat => base.hook != Hook::Forward && base.priority > CONNTRACK,
        Kind::Route => base.hook == Hook::Output,
    };
    if possible { Ok(()) } else { Err(Invalid::Base(base.to_string())) }
}

/// What can be said of a rule without the table's definition.
pub(crate) fn rule(family: Family, rule: &Rule) -> Result<(), Invalid> {
    let end = rule.0.iter().position(Statement::is_final).map_or(rule.0.len(), |at| at + 1);
    if rule.0.is_empty() || end != rule.0.len() {
        return Err(Invalid::Rule(rule.in_family(family).to_string()));
    }
    rule.0.iter().try_for_each(|part| statement(family, part))
}

/// What can be said of a statement without the table's definition.
fn statement(family: Family, statement: &Statement) -> Result<(), Invalid> {
    match statement {
        Statement::SaddrIn(network)
        | Statement::SaddrNotIn(network)
        | Statement::DaddrIn(network)
        | Statement::DaddrNotIn(network) => of_family(family, *network),
        Statement::Lookup { fields, set: other, .. } | Statement::DnatMap { fields, map: other } => {
            if fields.is_empty() {
                let statement = statement.in_family(family).to_string();
                return Err(Invalid::LookupTypes { statement, set: other.clone() });
            }
            name(other)
        }
        Statement::Jump(chain) | Statement::Goto(chain) => name(chain),
        Statement::Iifname(interface)
        | Statement::IifnameNot(interface)
        | Statement::Oifname(interface)
        | Statement::OifnameNot(interface) => interface_name(interface),
        Statement::Snat(address) => of_family(family, IpNetwork::from(*address)),
        Statement::Icmpv6Type(kind) => match family {
            Family::Ip6 => Ok(()),
            Family::Ip => Err(Invalid::Family { value: format!("icmpv6 type {kind}"), family }),
        },
        Statement::MarkHas(0) | Statement::MarkSet(0) => Err(Invalid::NoBits),
        Statement::Unknown(what) => Err(Invalid::ReadOnly(what.clone())),
        Statement::FibDaddrTypeLocal
        | Statement::L4proto(_)
        | Statement::CtStatusDnat
        | Statement::CtStateInvalid
        | Statement::MarkHas(_)
        | Statement::MarkSet(_)
        | Statement::Counter
        | Statement::Masquerade
        | Statement::Return
        | Statement::Accept
        | Statement::Drop => Ok(()),
    }
}

fn of_family(family: Family, network: IpNetwork) -> Result<(), Invalid> {
    match Family::of_network(network) == family {
        true => Ok(()),
        false => Err(Invalid::Family { value: network.to_string(), family }),
    }
}

/// An interface name is 1 to 15 bytes; a `*` at its end stands for any rest, as in nft(8).
fn interface_name(name: &str) -> Result<(), Invalid> {
    let exact = name.strip_suffix('*').unwrap_or(name);
    if is_interface_name(exact) { Ok(()) } else { Err(Invalid::Interface(name.to_owned())) }
}

/// The whole name of an interface.
pub(crate) fn is_interface_name(exact: &str) -> bool {
    (1..=15).contains(&exact.len())
        && exact.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'"' | b'\\' | b'*'))
        && !matches!(exact, "." | "..")
}

/// That the sets and chains a statement names are there, and fit.
fn refers(table: &Table, statement: &Statement) -> Result<(), Invalid> {
    let types = |fields: &[Field]| fields.iter().map(|field| field.value_type()).collect::<Vec<_>>();
    let (set, fits) = match statement {
        Statement::Jump(to) | Statement::Goto(to) => {
            return match table.chain(to) {
                Some(Chain { base: None, .. }) => Ok(()),
                _ => Err(Invalid::NoChain(to.clone())),
            };
        }
        Statement::Lookup { fields, set, .. } => {
            let definition = find_set(table, set)?;
            (set, definition.key == types(fields) && !definition.is_map())
        }
        Statement::DnatMap { fields, map } => {
            let definition = find_set(table, map)?;
            let data = [Type::Addr, Type::InetService];
            // nft(8) takes ports only from a concatenation that has the protocol in it.
            let ports = fields.contains(&Field::L4proto) && fields.len() > 1;
            (map, definition.key == types(fields) && definition.data == data && ports)
        }
        _ => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    Err(Invalid::LookupTypes { statement: statement.in_family(table.family()).to_string(), set: set.clone() })
}

/// Follows jumps from `chain`, which `from` leads to by way of `path`: finds circles, and translations where there
/// can be none.
fn reach<'a>(table: &'a Table, from: &Chain, chain: &'a Chain, path: &mut Vec<&'a str>) -> Result<(), Invalid> {
    if path.contains(&chain.name.as_str()) {
        return Err(Invalid::Loop(chain.name.clone()));
    }
    path.push(&chain.name);
    for statement in chain.rules.iter().flat_map(|rule| &rule.0) {
        if let (Some(base), false) = (&from.base, possible_in(from.base.as_ref(), statement)) {
            let statement = statement.in_family(table.family()).to_string();
            return Err(Invalid::Hook { statement, base: format!("{} ({base})", from.name) });
        }
        if let Statement::Jump(to) | Statement::Goto(to) = statement
            && let Some(next) = table.chain(to)
        {
            reach(table, from, next, path)?;
        }
    }
    path.pop();
    Ok(())
}

/// Whether a statement can stand in a chain reached from a base chain; the kernel's `nft_chain_validate_hooks`.
fn possible_in(base: Option<&Base>, statement: &Statement) -> bool {
    let Some(Base { kind, hook, .. }) = base else { return true };
    match statement {
        Statement::DnatMap { .. } => *kind == Kind::Nat && matches!(hook, Hook::Prerouting | Hook::Output),
        Statement::Masquerade | Statement::Snat(_) => *kind == Kind::Nat && *hook == Hook::Postrouting,
        _ => true,
    }
}
