//! What makes a table or a change impossible.

use ipnetwork::IpNetwork;

use crate::chain::{Base, Chain, Hook, Kind, Rule};
use crate::change::Change;
use crate::name::check_name;
use crate::set::{Element, Set};
use crate::statement::{Field, Statement};
use crate::table::Table;
use crate::value::{Family, Type, Value};

/// Why the kernel or nft(8) would refuse a table or a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A table, set or chain has a name that nft(8) cannot read.
    #[error("`{0}` cannot be a name in nft(8)")]
    Name(String),
    /// Two sets or two chains have the same name.
    #[error("the name `{0}` is used twice")]
    DuplicateName(String),
    /// A comment is empty, too long, or has characters nft(8) cannot quote.
    #[error("`{0}` cannot be a comment in nft(8)")]
    Comment(String),
    /// A table, set, value or statement is of a kind this crate only reads.
    #[error("`{0}` has properties that can be read, not written")]
    ReadOnly(String),
    /// A set has no key, or a longer one than the kernel's 64 bytes.
    #[error("the key of set `{0}` has no fields or too many")]
    Key(String),
    /// An element does not fit the set's types or the table's family.
    #[error("the element `{element}` does not fit set `{set}`")]
    Element {
        /// The element as it prints.
        element: String,
        /// The set's name.
        set: String,
    },
    /// A set has two elements with the same key.
    #[error("the element `{element}` is in set `{set}` twice")]
    DuplicateElement {
        /// The second element as it prints.
        element: String,
        /// The set's name.
        set: String,
    },
    /// An address or network of the other family.
    #[error("`{value}` is no {family} address")]
    Family {
        /// The address or network.
        value: String,
        /// The family of the table.
        family: Family,
    },
    /// A rule or a change refers to a set or map that is not there.
    #[error("there is no set or map `{0}`")]
    NoSet(String),
    /// A rule looks up fields in a set or map of other types.
    #[error("`{statement}` does not fit the types of `{set}`")]
    LookupTypes {
        /// The statement as it prints.
        statement: String,
        /// The set's or map's name.
        set: String,
    },
    /// A rule jumps to a chain that is not there, or to a base chain.
    #[error("there is no chain `{0}` to jump to")]
    NoChain(String),
    /// Chains jump in a circle.
    #[error("chain `{0}` can jump to itself")]
    Loop(String),
    /// A base chain that cannot be: a nat chain in the forward hook, or before connection tracking.
    #[error("there can be no chain of `{0}`")]
    Base(String),
    /// An address is translated where it cannot be.
    #[error("`{statement}` cannot be reached from base chain `{base}`")]
    Hook {
        /// The statement as it prints.
        statement: String,
        /// The base chain it is reached from.
        base: String,
    },
    /// A rule is empty, or goes on after a statement nothing can follow.
    #[error("the rule `{0}` is empty, or goes on after its end")]
    Rule(String),
    /// An interface name Linux cannot have.
    #[error("`{0}` cannot be an interface's name")]
    Interface(String),
    /// A mark without bits.
    #[error("a mark needs at least one bit")]
    NoBits,
}

/// The longest comment, in bytes. The kernel keeps the length of an element's user data and of its own header in a byte
/// (`struct nft_set_ext_tmpl` of net/netfilter/nf_tables.h); Linux 6.18 refuses one byte more and loses a comment two
/// bytes longer. nft(8) lists such a comment but reads no more than 128 bytes.
const COMMENT_MAX: usize = 251;

/// The longest key, and the longest data, in bytes: `NFT_DATA_VALUE_MAXLEN` of linux/netfilter/nf_tables.h.
const KEY_MAX: usize = 64;

/// The lowest priority of a nat chain is above that of connection tracking, `NF_IP_PRI_CONNTRACK` of
/// linux/netfilter_ipv4.h.
const CONNTRACK: i32 = -200;

pub(crate) fn table(table: &Table) -> Result<(), Invalid> {
    name(table.name())?;
    table.comment().map_or(Ok(()), comment)?;
    if !table.unknown().is_empty() {
        return Err(Invalid::ReadOnly(table.name().to_owned()));
    }
    unique(table.sets().iter().map(|set| &set.name))?;
    unique(table.chains().iter().map(|chain| &chain.name))?;
    table.sets().iter().try_for_each(|definition| set(table.family(), definition))?;
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

pub(crate) fn change(change: &Change) -> Result<(), Invalid> {
    name(change.table().1)?;
    match change {
        Change::AddTable(whole) => table(whole),
        Change::DeleteTable { .. } | Change::DestroyTable { .. } => Ok(()),
        Change::AddElements { family, set, elements, .. } => {
            name(set)?;
            elements.iter().try_for_each(|element| loose_element(*family, set, element))
        }
        Change::DestroyElements { family, set, keys, .. } => {
            name(set)?;
            keys.iter().try_for_each(|key| loose_element(*family, set, &Element::new(key.clone())))
        }
        Change::FlushChain { chain, .. } => name(chain),
        Change::AddRules { family, chain, rules, .. } => {
            name(chain)?;
            rules.iter().try_for_each(|line| rule(*family, line))
        }
    }
}

pub(crate) fn find_set<'a>(table: &'a Table, name: &str) -> Result<&'a Set, Invalid> {
    table.set(name).ok_or_else(|| Invalid::NoSet(name.to_owned()))
}

/// That an element fits a set's definition.
pub(crate) fn element(family: Family, set: &Set, element: &Element) -> Result<(), Invalid> {
    let fits = fits(family, &set.key, &element.key) && fits(family, &set.data, &element.data);
    if !fits {
        return Err(Invalid::Element { element: element.to_string(), set: set.name.clone() });
    }
    element.comment.as_deref().map_or(Ok(()), comment)
}

/// That a key fits a set's definition.
pub(crate) fn key(family: Family, set: &Set, key: &[Value]) -> Result<(), Invalid> {
    match fits(family, &set.key, key) {
        true => Ok(()),
        false => Err(Invalid::Element { element: Element::new(key).to_string(), set: set.name.clone() }),
    }
}

fn fits(family: Family, types: &[Type], values: &[Value]) -> bool {
    types.len() == values.len()
        && types.iter().zip(values).all(|(expected, value)| match (expected, value) {
            (Type::Addr, Value::Addr(address)) => Family::of(*address) == family,
            (Type::InetProto, Value::Proto(_)) | (Type::InetService, Value::Port(_)) => true,
            _ => false,
        })
}

/// What can be said of an element without its set's definition.
fn loose_element(family: Family, set: &str, element: &Element) -> Result<(), Invalid> {
    let mut values = element.key.iter().chain(&element.data);
    let possible = values.all(|value| match value {
        Value::Addr(address) => Family::of(*address) == family,
        Value::Proto(_) | Value::Port(_) => true,
        Value::Raw(_) => false,
    });
    if !possible || element.key.is_empty() {
        return Err(Invalid::Element { element: element.to_string(), set: set.to_owned() });
    }
    element.comment.as_deref().map_or(Ok(()), comment)
}

fn set(family: Family, set: &Set) -> Result<(), Invalid> {
    name(&set.name)?;
    if !set.unknown.is_empty() || set.key.iter().chain(&set.data).any(|part| matches!(part, Type::Other(_))) {
        return Err(Invalid::ReadOnly(set.name.clone()));
    }
    let width = |types: &[Type]| types.iter().map(|part| width(family, *part)).sum::<usize>();
    if set.key.is_empty() || width(&set.key) > KEY_MAX || width(&set.data) > KEY_MAX {
        return Err(Invalid::Key(set.name.clone()));
    }
    set.elements.iter().try_for_each(|item| element(family, set, item))?;
    match set.elements.windows(2).find(|pair| pair[0].key == pair[1].key) {
        None => Ok(()),
        Some(pair) => Err(Invalid::DuplicateElement { element: pair[1].to_string(), set: set.name.clone() }),
    }
}

/// Bytes of a field in a concatenation, where every field takes whole registers of four bytes.
fn width(family: Family, part: Type) -> usize {
    match (part, family) {
        (Type::Addr, Family::Ip6) => 16,
        _ => 4,
    }
}

fn name(name: &str) -> Result<(), Invalid> {
    if check_name(name) { Ok(()) } else { Err(Invalid::Name(name.to_owned())) }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Invalid> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Invalid::DuplicateName(pair[0].clone())),
    }
}

fn comment(comment: &str) -> Result<(), Invalid> {
    let readable = !comment.chars().any(|char| char == '"' || char == '\\' || char.is_control());
    match readable && (1..=COMMENT_MAX).contains(&comment.len()) {
        true => Ok(()),
        false => Err(Invalid::Comment(comment.to_owned())),
    }
}

fn base(base: &Base) -> Result<(), Invalid> {
    let possible = match base.kind {
        Kind::Filter => true,
        Kind::Nat => base.hook != Hook::Forward && base.priority > CONNTRACK,
        Kind::Route => base.hook == Hook::Output,
    };
    if possible { Ok(()) } else { Err(Invalid::Base(base.to_string())) }
}

fn rule(family: Family, rule: &Rule) -> Result<(), Invalid> {
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
        Statement::MarkHas(0) | Statement::MarkSet(0) => Err(Invalid::NoBits),
        Statement::Unknown(what) => Err(Invalid::ReadOnly(what.clone())),
        Statement::FibDaddrTypeLocal
        | Statement::L4proto(_)
        | Statement::CtStatusDnat
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
    let possible = (1..=15).contains(&exact.len())
        && exact.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'"' | b'\\' | b'*'))
        && !matches!(name, "." | "..");
    if possible { Ok(()) } else { Err(Invalid::Interface(name.to_owned())) }
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
        Statement::Masquerade => *kind == Kind::Nat && *hook == Hook::Postrouting,
        _ => true,
    }
}
