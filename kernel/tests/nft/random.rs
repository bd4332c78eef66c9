//! Any table of the model: what is committed is what is read back, and what nft(8) would have loaded.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use kernel::nft::Nft;
use nft_model::{
    Base, Chain, Change, Element, Family, Field, Hook, Kind, Policy, Proto, Rule, Set, Statement, Table, Type, Value,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::oracle::{flush, load, see};

fn addresses(family: Family) -> BoxedStrategy<std::net::IpAddr> {
    match family {
        Family::Ip => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()).boxed(),
        Family::Ip6 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()).boxed(),
    }
}

fn networks(family: Family) -> impl Strategy<Value = IpNetwork> {
    let longest = if family == Family::Ip { 32_u8 } else { 128 };
    (addresses(family), 0..=longest)
        .prop_map(|(address, prefix)| IpNetwork::new(address, prefix).expect("short enough"))
}

fn values(family: Family, types: &[Type]) -> BoxedStrategy<Vec<Value>> {
    let fields: Vec<BoxedStrategy<Value>> = types
        .iter()
        .map(|part| match part {
            Type::Addr => addresses(family).prop_map(Value::Addr).boxed(),
            Type::Ifname => "[a-z][a-z0-9.-]{0,14}".prop_map(Value::Ifname).boxed(),
            Type::EtherAddr => any::<[u8; 6]>().prop_map(|bytes| Value::Mac(bytes.into())).boxed(),
            Type::InetProto => select(Proto::ALL.to_vec()).prop_map(Value::Proto).boxed(),
            Type::InetService => any::<u16>().prop_map(Value::Port).boxed(),
            Type::Other(_) => Just(Value::Raw(vec![])).boxed(),
        })
        .collect();
    fields.boxed()
}

/// A set or map of these types with a few elements.
fn filled(family: Family, name: String, key: Vec<Type>, data: Vec<Type>) -> impl Strategy<Value = Set> {
    // Quotation marks and backslashes cannot be in a comment; nft(8) reads no more than 128 bytes.
    let comment = option::of("[ -!#-\\[\\]-~]{1,128}");
    let elements = btree_map(values(family, &key), (values(family, &data), comment), 0..8);
    elements.prop_map(move |elements| {
        let elements = elements.into_iter().map(|(key, (data, comment))| Element { key, data, comment });
        Set::map(name.clone(), key.clone(), data.clone()).with_elements(elements)
    })
}

fn any_types(most: usize) -> impl Strategy<Value = Vec<Type>> {
    vec(select(vec![Type::Addr, Type::Ifname, Type::EtherAddr, Type::InetProto, Type::InetService]), 1..=most)
        .prop_filter("keys have at most 64 bytes", |types| {
            types.iter().filter(|part| **part == Type::Ifname).count() < 2
        })
}

fn any_fields(most: usize) -> impl Strategy<Value = Vec<Field>> {
    vec(select(vec![Field::Iifname, Field::Saddr, Field::Daddr, Field::L4proto, Field::ThDport]), 1..=most)
}

/// What is looked up, with the set it is looked up in.
fn lookups(family: Family) -> impl Strategy<Value = Vec<(Vec<Field>, bool, Set)>> {
    let lookup = move |number: usize| {
        (any_fields(4), any::<bool>()).prop_flat_map(move |(fields, negate)| {
            let types = fields.iter().map(|field| field.value_type()).collect();
            filled(family, format!("lookup{number}"), types, vec![]).prop_map(move |set| (fields.clone(), negate, set))
        })
    };
    (0..4_usize).prop_flat_map(move |count| (0..count).map(lookup).collect::<Vec<_>>())
}

fn simple(family: Family) -> impl Strategy<Value = Statement> {
    let interface = "[a-z][a-z0-9.-]{0,13}[*a-z]";
    prop_oneof![
        Just(Statement::FibDaddrTypeLocal),
        Just(Statement::CtStatusDnat),
        Just(Statement::CtStateInvalid),
        Just(Statement::Counter),
        networks(family).prop_map(Statement::SaddrIn),
        networks(family).prop_map(Statement::SaddrNotIn),
        networks(family).prop_map(Statement::DaddrIn),
        networks(family).prop_map(Statement::DaddrNotIn),
        select(Proto::ALL.to_vec()).prop_map(Statement::L4proto),
        any::<u8>().prop_map(move |kind| match family {
            Family::Ip6 => Statement::Icmpv6Type(kind),
            Family::Ip => Statement::Counter,
        }),
        interface.prop_map(Statement::Iifname),
        interface.prop_map(Statement::IifnameNot),
        interface.prop_map(Statement::Oifname),
        interface.prop_map(Statement::OifnameNot),
        (1..=u32::MAX).prop_map(Statement::MarkHas),
        (1..=u32::MAX).prop_map(Statement::MarkSet),
    ]
}

/// A rule that ends in one of `ends`, or in none.
fn rules(family: Family, middles: Vec<Statement>, ends: Vec<Statement>) -> BoxedStrategy<Rule> {
    let middle = match middles.is_empty() {
        true => simple(family).boxed(),
        false => prop_oneof![3 => simple(family), 1 => select(middles)].boxed(),
    };
    let rule = (vec(middle, 0..4), option::weighted(0.8, select(ends)));
    rule.prop_map(|(middles, end)| middles.into_iter().chain(end).collect::<Rule>())
        .prop_filter("a rule has something in it", |rule| !rule.0.is_empty())
        .prop_filter("nft(8) refuses two protocols in a rule", |rule| {
            let is_icmp = |statement: &&Statement| matches!(statement, Statement::Icmpv6Type(_));
            let names_protocol = |statement: &Statement| {
                let text = format!("{statement:?}");
                text.contains("L4proto") || text.contains("ThDport")
            };
            let icmp = rule.0.iter().filter(is_icmp).count();
            icmp == 0 || icmp == 1 && !rule.0.iter().filter(|one| !is_icmp(one)).any(names_protocol)
        })
        .boxed()
}

fn bases() -> impl Strategy<Value = Base> {
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let policy = prop_oneof![Just(Policy::Accept), Just(Policy::Drop)];
    let near = prop_oneof![any::<i32>(), -320..120_i32];
    (select(hooks.to_vec()), near, policy).prop_map(|(hook, priority, policy)| Base {
        kind: Kind::Filter,
        hook,
        priority,
        policy,
    })
}

fn tables() -> impl Strategy<Value = Table> {
    select(Family::ALL.to_vec()).prop_flat_map(|family| {
        let maps = vec((any_types(4), any_types(3)), 0..3).prop_flat_map(move |types| {
            let maps = types.into_iter().enumerate();
            maps.map(|(number, (key, data))| filled(family, format!("map{number}"), key, data)).collect::<Vec<_>>()
        });
        let dnats =
            any_fields(3).prop_map(|fields| [fields, vec![Field::L4proto]].concat()).prop_flat_map(move |fields| {
                let key = fields.iter().map(|field| field.value_type()).collect();
                filled(family, "dnats".to_owned(), key, vec![Type::Addr, Type::InetService])
                    .prop_map(move |map| (fields.clone(), map))
            });
        (lookups(family), maps, dnats).prop_flat_map(move |(lookups, maps, dnats)| table(family, lookups, maps, dnats))
    })
}

fn table(
    family: Family,
    lookups: Vec<(Vec<Field>, bool, Set)>,
    maps: Vec<Set>,
    (fields, dnats): (Vec<Field>, Set),
) -> impl Strategy<Value = Table> {
    let middles: Vec<_> = lookups
        .iter()
        .map(|(fields, negate, set)| Statement::Lookup {
            fields: fields.clone(),
            set: set.name.clone(),
            negate: *negate,
        })
        .collect();
    let sets: Vec<_> = lookups.into_iter().map(|(_, _, set)| set).chain(maps).chain([dnats]).collect();
    let verdicts = [Statement::Accept, Statement::Drop, Statement::Return];
    let to_chains = [Statement::jump("leaf"), Statement::goto("leaf")];
    let with = |more: &[Statement]| [&verdicts, more].concat();
    let leaf = vec(rules(family, middles.clone(), with(&[])), 0..5);
    let base = vec(rules(family, middles.clone(), with(&to_chains)), 0..5);
    let translate = vec(rules(family, middles.clone(), with(&[Statement::dnat_map(fields, "dnats")])), 0..4);
    let masquerade = vec(rules(family, middles, with(&[Statement::Masquerade])), 0..4);
    let comment = option::of("[a-z ]{1,40}");
    (bases(), leaf, base, translate, masquerade, comment).prop_map(
        move |(filter, leaf, base, translate, masquerade, comment)| {
            let chains = vec![
                Chain::base("filtering", filter).with_rules(base),
                Chain::base("arriving", Base::dstnat()).with_rules(translate),
                Chain::base("leaving", Base::srcnat()).with_rules(masquerade),
                Chain::new("leaf").with_rules(leaf),
            ];
            Table::new(family, "made-up", comment.as_deref(), sets.clone(), chains).expect("valid")
        },
    )
}

#[test]
fn any_table_is_read_back() {
    sandbox::private_host(|| {
        let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, ..Config::default() });
        let result = runner.run(&tables(), |table| {
            flush();
            let mut nft = Nft::open().expect("a socket");
            let committed = nft.commit(&[Change::AddTable(table.clone())]);
            prop_assert!(committed.is_ok(), "{:?}\n{}", committed, table);
            let read = nft.read_table(table.family(), table.name()).expect("readable");
            prop_assert_eq!(read.as_ref(), Some(&table));
            let committed = see(&table);
            flush();
            load(&table.to_string());
            let loaded = see(&table);
            prop_assert_eq!(committed.listing, loaded.listing);
            prop_assert_eq!(committed.json, loaded.json);
            Ok(())
        });
        if let Err(failure) = result {
            panic!("{failure}");
        }
    });
}
