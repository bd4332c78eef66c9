//! Tables and changes as text: `tests/golden/CASE.nft`, rewritten with UPDATE_GOLDEN=1.

#![expect(clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nft_model::{
    Base, Chain, Change, Element, Family, Field, Hook, Kind, Policy, Proto, Set, Statement, Table, Type, Value,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn hostport(family: Family, node: &str, pod: &str) -> Table {
    use Field::{Daddr, L4proto, Saddr, ThDport};
    let target = [Type::Addr, Type::InetService];
    let sets = vec![
        Set::map("exact", [Type::Addr, Type::InetProto, Type::InetService], target)
            .with_element(
                Element::map(
                    [ip(node).into(), Proto::Udp.into(), Value::Port(53)],
                    [ip(pod).into(), Value::Port(5353)],
                )
                .with_comment("mynet 0123abcd eth0"),
            )
            .with_element(Element::map(
                [ip(node).into(), Proto::Tcp.into(), Value::Port(8080)],
                [ip(pod).into(), Value::Port(80)],
            )),
        Set::map("wild", [Type::InetProto, Type::InetService], target),
        Set::new("hairpin", [Type::Addr, Type::Addr]).with_element(Element::new([ip(pod).into(), ip(pod).into()])),
    ];
    let chains = vec![
        Chain::new("maps")
            .with_rule([Statement::dnat_map([Daddr, L4proto, ThDport], "exact")])
            .with_rule([Statement::dnat_map([L4proto, ThDport], "wild")]),
        Chain::new("hostports").with_rule([Statement::FibDaddrTypeLocal, Statement::jump("maps")]),
        Chain::base("prerouting", Base::dstnat()).with_rule([Statement::jump("hostports")]),
        Chain::base("output", Base::dstnat_output()).with_rule([Statement::jump("hostports")]),
        Chain::base("postrouting", Base::srcnat())
            .with_rule([Statement::lookup([Saddr, Daddr], "hairpin"), Statement::Masquerade]),
    ];
    Table::new(family, "podwire-hostport", Some("host ports of pods"), sets, chains).expect("valid")
}

fn masquerade() -> Table {
    let net = |text: &str| text.parse().expect("a network");
    let chains = vec![
        Chain::base("postrouting", Base::srcnat())
            .with_rule([Statement::SaddrIn(net("10.88.7.9/16")), Statement::goto("leaving")]),
        Chain::new("leaving")
            .with_rule([Statement::DaddrIn(net("10.0.0.0/8")), Statement::Return])
            .with_rule([Statement::DaddrIn(net("224.0.0.0/4")), Statement::Return])
            .with_rule([Statement::DaddrIn(net("192.0.2.1/32")), Statement::Return])
            .with_rule([Statement::DaddrNotIn(net("0.0.0.0/0")), Statement::Accept])
            .with_rule([Statement::OifnameNot("pw*".into()), Statement::Counter, Statement::Masquerade]),
        Chain::base("guard", Base { policy: Policy::Drop, ..Base::new(Kind::Filter, Hook::Forward, -5) }).with_rule([
            Statement::MarkHas(0x2000),
            Statement::MarkSet(0x4000),
            Statement::Iifname("eth0".into()),
            Statement::L4proto(Proto::Sctp),
            Statement::lookup_not([Field::ThDport], "ports"),
            Statement::Drop,
        ]),
    ];
    let ports = Set::new("ports", [Type::InetService])
        .with_elements([443, 80, 8080, 22, 53, 7, 179].map(|port| Element::new([Value::Port(port)])));
    let nodes = Set::new("nodes", [Type::Addr])
        .with_elements(["10.1.0.9", "10.1.0.10", "9.9.9.9"].map(|node| Element::new([ip(node).into()])));
    Table::new(Family::Ip, "podwire-mynet", None, vec![ports, nodes], chains).expect("valid")
}

fn changes() -> String {
    let table = hostport(Family::Ip6, "fd50::1", "fd88::2");
    let exact = &table.set("exact").expect("there").elements;
    let (family, name) = (Family::Ip6, table.name().to_owned());
    let chain = "maps".to_owned();
    let changes = [
        Change::DestroyTable { family, name: name.clone() },
        Change::AddTable(table.without_elements()),
        table.add_elements("exact", exact.clone()).expect("fits"),
        table.destroy_elements("exact", exact.iter().map(|element| element.key.clone()).collect()).expect("fits"),
        Change::FlushChain { family, table: name.clone(), chain: chain.clone() },
        Change::AddRules {
            family,
            table: name.clone(),
            chain,
            rules: table.chain("maps").expect("there").rules.clone(),
        },
        Change::DeleteTable { family, name },
    ];
    changes.iter().map(|change| format!("{}\n", change.to_string().trim_end())).collect()
}

#[test]
fn text_is_as_agreed() {
    let cases = [
        ("hostport-ip", hostport(Family::Ip, "192.168.50.1", "10.88.0.2").to_string()),
        ("hostport-ip6", hostport(Family::Ip6, "fd50::1", "fd88::2").to_string()),
        ("masquerade", masquerade().to_string()),
        ("changes", changes()),
    ];
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for new golden files")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut failed = Vec::new();
    for (name, text) in cases {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.nft"));
        if update {
            fs::write(&path, &text).expect("writable");
        }
        let agreed = fs::read_to_string(&path).unwrap_or_default();
        if agreed != text {
            failed.push(format!("--- {name}: agreed\n{agreed}--- {name}: printed\n{text}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
