//! What makes a table or a change impossible.

use crate::change::Change;
use crate::check_rules::{self, rule};
use crate::invalid::Invalid;
use crate::name::check_name;
use crate::set::{Element, Set};
use crate::table::Table;
use crate::value::{Family, Type, Value};

/// The longest comment, in bytes. The kernel keeps the length of an element's user data and of its own header in a byte
/// (`struct nft_set_ext_tmpl` of net/netfilter/nf_tables.h); Linux 6.18 refuses one byte more and loses a comment two
/// bytes longer. nft(8) lists such a comment but reads no more than 128 bytes.
const COMMENT_MAX: usize = 251;

/// The longest key, and the longest data, in bytes: `NFT_DATA_VALUE_MAXLEN` of linux/netfilter/nf_tables.h.
const KEY_MAX: usize = 64;

/// The most fields of a key or of data: nft(8) writes six bits for each of their types into one number of 32.
const FIELDS_MAX: usize = 5;

pub(crate) fn table(table: &Table) -> Result<(), Invalid> {
    name(table.name())?;
    table.comment().map_or(Ok(()), comment)?;
    if !table.unknown().is_empty() {
        return Err(Invalid::ReadOnly(table.name().to_owned()));
    }
    unique(table.sets().iter().map(|set| &set.name))?;
    unique(table.chains().iter().map(|chain| &chain.name))?;
    table.sets().iter().try_for_each(|definition| set(table.family(), definition))?;
    check_rules::chains(table)
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
            (Type::Ifname, Value::Ifname(name)) => check_rules::is_interface_name(name),
            (Type::EtherAddr, Value::Mac(_))
            | (Type::InetProto, Value::Proto(_))
            | (Type::InetService, Value::Port(_)) => true,
            _ => false,
        })
}

/// What can be said of an element without its set's definition.
fn loose_element(family: Family, set: &str, element: &Element) -> Result<(), Invalid> {
    let mut values = element.key.iter().chain(&element.data);
    let possible = values.all(|value| match value {
        Value::Addr(address) => Family::of(*address) == family,
        Value::Ifname(name) => check_rules::is_interface_name(name),
        Value::Mac(_) | Value::Proto(_) | Value::Port(_) => true,
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
    let too_many = |types: &[Type]| {
        types.len() > FIELDS_MAX || types.iter().map(|part| width(family, *part)).sum::<usize>() > KEY_MAX
    };
    if set.key.is_empty() || too_many(&set.key) || too_many(&set.data) {
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
        (Type::Addr, Family::Ip6) | (Type::Ifname, _) => 16,
        (Type::EtherAddr, _) => 8,
        _ => 4,
    }
}

pub(crate) fn name(name: &str) -> Result<(), Invalid> {
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
