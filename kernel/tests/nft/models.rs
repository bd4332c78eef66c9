//! Tables to test with.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use macaddr::MacAddr6;
use nft_model::{
    Base, Chain, Element, Family, Field, Hook, Kind, Policy, Proto, Rule, Set, Statement, Table, Type, Value,
};

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

/// A key of the exact map: address, protocol, port.
pub fn exact_key(address: &str, proto: Proto, port: u16) -> Vec<Value> {
    vec![ip(address).into(), proto.into(), port.into()]
}

/// A key of the wildcard map: protocol, port.
pub fn wild_key(proto: Proto, port: u16) -> Vec<Value> {
    vec![proto.into(), port.into()]
}

/// Where a host port leads.
pub fn target(address: &str, port: u16) -> Vec<Value> {
    vec![ip(address).into(), port.into()]
}

/// An address of a family, numbered.
pub fn address(family: Family, number: u8) -> String {
    match family {
        Family::Ip => format!("10.88.0.{number}"),
        Family::Ip6 => format!("fd88::{number:x}"),
    }
}

/// The example of host ports: exact addresses beat wildcards, pods reach themselves, the host reaches pods by
/// 127.0.0.1.
pub fn hostport(family: Family) -> Table {
    let pod = address(family, 2);
    let exact = Set::map("exact", [Type::Addr, Type::InetProto, Type::InetService], [Type::Addr, Type::InetService])
        .with_element(Element::map(exact_key(&address(family, 100), Proto::Tcp, 8080), target(&pod, 80)))
        .with_element(
            Element::map(exact_key(&address(family, 9), Proto::Sctp, 1), target(&pod, 65535))
                .with_comment("net 1f a.b/c eth0"),
        );
    let wild = Set::map("wild", [Type::InetProto, Type::InetService], [Type::Addr, Type::InetService])
        .with_element(Element::map(wild_key(Proto::Udp, 53), target(&pod, 53)).with_comment("x"));
    let hairpin = Set::new("hairpin", [Type::Addr, Type::Addr])
        .with_element(Element::new([ip(&pod).into(), ip(&pod).into()]).with_comment("pod"));
    Table::new(family, "hp", Some("host ports"), vec![exact, wild, hairpin], hostport_chains(family)).expect("valid")
}

fn hostport_chains(family: Family) -> Vec<Chain> {
    use Field::{Daddr, L4proto, Saddr, ThDport};
    let jump = || [Statement::jump("hostports")];
    let mut postrouting = Chain::base("postrouting", Base::srcnat())
        .with_rule([Statement::lookup([Saddr, Daddr], "hairpin"), Statement::Masquerade]);
    if family == Family::Ip {
        postrouting = postrouting.with_rule([
            Statement::SaddrIn(net("127.0.0.0/8")),
            Statement::CtStatusDnat,
            Statement::Masquerade,
        ]);
    }
    vec![
        Chain::new("maps")
            .with_rule([Statement::dnat_map([Daddr, L4proto, ThDport], "exact")])
            .with_rule([Statement::dnat_map([L4proto, ThDport], "wild")]),
        Chain::new("hostports").with_rule([Statement::FibDaddrTypeLocal, Statement::jump("maps")]),
        Chain::base("prerouting", Base::dstnat()).with_rule(jump()),
        Chain::base("output", Base::dstnat_output()).with_rule(jump()),
        postrouting,
    ]
}

/// Every statement and every kind of set there is.
pub fn everything(family: Family) -> Table {
    let one = ip(&address(family, 1));
    let sets = vec![
        Set::new("addrs", [Type::Addr]).with_elements((1..8).map(|n| Element::new([ip(&address(family, n)).into()]))),
        Set::new("protos", [Type::InetProto]).with_elements(Proto::ALL.map(|proto| Element::new([proto.into()]))),
        Set::new("ports", [Type::InetService]).with_elements((1..13).map(|port| Element::new([port.into()]))),
        Set::new("three", [Type::Addr, Type::InetService, Type::Addr]).with_element(
            Element::new([one.into(), 7.into(), one.into()]).with_comment("a 'quoted' comment: #1, {ok}"),
        ),
        Set::new("links", [Type::Ifname])
            .with_elements(["pwabcdefghijklm", "eth0.5", "a"].map(|name| Element::new([Value::Ifname(name.into())]))),
        Set::new("senders", [Type::Ifname, Type::EtherAddr, Type::Addr])
            .with_element(Element::new([Value::Ifname("eth0".into()), mac(1).into(), one.into()]).with_comment("who"))
            .with_element(Element::new([Value::Ifname("eth1".into()), mac(2).into(), one.into()])),
        Set::map("macs", [Type::EtherAddr], [Type::EtherAddr])
            .with_elements([1, 2].map(|n| Element::map([mac(n).into()], [mac(n + 1).into()]))),
        Set::map("to_addr", [Type::InetService], [Type::Addr]).with_element(Element::map([9.into()], [one.into()])),
        Set::map("to_proto", [Type::Addr], [Type::InetProto])
            .with_element(Element::map([one.into()], [Proto::Udp.into()])),
        Set::map("to_port", [Type::InetProto], [Type::InetService])
            .with_elements([(Proto::Udp, 5), (Proto::Tcp, 6)].map(|(p, n)| Element::map([p.into()], [n.into()]))),
        Set::map("dnats", [Type::Addr, Type::Addr, Type::InetProto], [Type::Addr, Type::InetService]),
    ];
    let snat = Chain::base("source", Base::srcnat())
        .with_rule([Statement::lookup([Field::Iifname], "links"), Statement::Snat(one)]);
    let chains = [bases(), vec![matches(family), discovery(family), translations(family), snat]].concat();
    Table::new(family, "podwire-all.of_it/x", None, sets, chains).expect("valid")
}

fn mac(number: u8) -> MacAddr6 {
    MacAddr6::new(0x0a, 0, 0, 0xff, 0, number)
}

/// Types of neighbour discovery, with and without a name of nft(8).
fn discovery(family: Family) -> Chain {
    let types: &[u8] = if family == Family::Ip6 { &[133, 134, 135, 136, 137, 200] } else { &[] };
    let rule = |number: &u8| Rule(vec![Statement::Icmpv6Type(*number), Statement::Counter, Statement::Drop]);
    Chain::new("discovery").with_rules(types.iter().map(rule))
}

fn bases() -> Vec<Chain> {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let bases = [
        (Kind::Filter, Prerouting, -300, Policy::Accept),
        (Kind::Filter, Input, 0, Policy::Drop),
        (Kind::Filter, Forward, -145, Policy::Accept),
        (Kind::Filter, Forward, -161, Policy::Accept),
        (Kind::Filter, Output, -100, Policy::Drop),
        (Kind::Filter, Postrouting, 60, Policy::Accept),
        (Kind::Filter, Postrouting, i32::MAX, Policy::Accept),
        (Kind::Filter, Input, i32::MIN, Policy::Accept),
        (Kind::Nat, Prerouting, -100, Policy::Accept),
        (Kind::Nat, Prerouting, -90, Policy::Accept),
        (Kind::Nat, Input, 100, Policy::Accept),
        (Kind::Nat, Output, -100, Policy::Accept),
        (Kind::Nat, Output, 5, Policy::Accept),
        (Kind::Nat, Postrouting, 95, Policy::Accept),
        (Kind::Nat, Postrouting, 100, Policy::Accept),
        (Kind::Route, Output, -150, Policy::Accept),
    ];
    let chain = |(number, (kind, hook, priority, policy))| {
        Chain::base(format!("base{number}"), Base { kind, hook, priority, policy })
    };
    bases.into_iter().enumerate().map(chain).collect()
}

/// Networks of every kind: whole bytes, parts of bytes, everything, one address.
fn networks(family: Family) -> Vec<IpNetwork> {
    let texts: &[&str] = match family {
        Family::Ip => {
            &["10.0.0.0/8", "10.128.0.0/9", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.2/31", "10.1.2.3/32", "0.0.0.0/0"]
        }
        Family::Ip6 => {
            &["fd00::/8", "fd00::/9", "fd01:2::/32", "fd00:1::/49", "fd00::/120", "fd00::1/128", "::/0", "::1/128"]
        }
    };
    texts.iter().map(|text| net(text)).collect()
}

fn matches(family: Family) -> Chain {
    use Field::{Daddr, L4proto, Saddr, ThDport};
    use Statement::{
        Accept, Counter, CtStateInvalid, CtStatusDnat, DaddrIn, DaddrNotIn, Drop, FibDaddrTypeLocal, Iifname,
        IifnameNot, MarkHas, MarkSet, Oifname, OifnameNot, Return, SaddrIn, SaddrNotIn,
    };
    let by_network = networks(family).into_iter().flat_map(|network| {
        [SaddrIn(network), SaddrNotIn(network), DaddrIn(network), DaddrNotIn(network)]
            .map(|part| Rule(vec![part, Return]))
    });
    Chain::new("matches")
        .with_rules(by_network)
        .with_rule([FibDaddrTypeLocal, Iifname("eth0".into()), Oifname("eth1".into()), Accept])
        .with_rule([IifnameNot("pw*".into()), OifnameNot("abcdefghijklmno".into()), CtStatusDnat, Counter, Drop])
        .with_rule([CtStateInvalid, Counter, Drop])
        .with_rule([Statement::L4proto(Proto::Tcp), Return])
        .with_rule([MarkHas(0x2000), Accept])
        .with_rule([MarkHas(0xffff_0001), MarkSet(0x8000_0000), Counter])
        .with_rule([Statement::lookup([Saddr], "addrs"), Statement::goto("translations")])
        .with_rule([Statement::lookup_not([Daddr], "addrs"), Statement::lookup([L4proto], "protos"), Return])
        .with_rule([Statement::lookup([ThDport], "ports"), Return])
        .with_rule([Statement::lookup_not([ThDport], "ports"), Return])
        .with_rule([Statement::lookup_not([Field::Iifname, Field::EtherSaddr, Saddr], "senders"), Counter, Drop])
        .with_rule([Statement::lookup_not([Saddr, ThDport, Daddr], "three"), Statement::jump("translations")])
}

fn translations(family: Family) -> Chain {
    let everywhere = Statement::SaddrIn(networks(family)[6]);
    Chain::new("translations")
        .with_rule([everywhere, Statement::dnat_map([Field::Daddr, Field::Saddr, Field::L4proto], "dnats")])
}
