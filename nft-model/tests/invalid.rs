//! What cannot be is refused, by its own error.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

use nft_model::{
    Base, Chain, Change, Element, Family, Field, Hook, Invalid, Kind, Proto, Rule, Set, Statement, Table, Type, Value,
};

fn table(sets: Vec<Set>, chains: Vec<Chain>) -> Result<Table, Invalid> {
    Table::new(Family::Ip, "t", None, sets, chains)
}

fn chain(statements: impl Into<Rule>) -> Vec<Chain> {
    vec![Chain::new("c").with_rule(statements)]
}

fn addrs() -> Set {
    Set::new("addrs", [Type::Addr])
}

fn v4(last: u8) -> Value {
    Value::Addr([10, 0, 0, last].into())
}

fn v6() -> Value {
    Value::Addr("fd00::1".parse().expect("an address"))
}

fn net(text: &str) -> ipnetwork::IpNetwork {
    text.parse().expect("a network")
}

/// The message of the error that must come.
fn error(result: Result<Table, Invalid>) -> String {
    result.map_or_else(|invalid| invalid.to_string(), |table| panic!("valid: {table}"))
}

#[test]
fn names_and_comments() {
    for name in ["", "dnat", "a b", "1x"] {
        assert_eq!(Table::new(Family::Ip, name, None, vec![], vec![]), Err(Invalid::Name(name.into())));
        assert_eq!(table(vec![Set::new(name, [Type::Addr])], vec![]), Err(Invalid::Name(name.into())));
        assert_eq!(table(vec![], vec![Chain::new(name)]), Err(Invalid::Name(name.into())));
        assert_eq!(table(vec![], chain([Statement::jump(name)])), Err(Invalid::Name(name.into())));
    }
    let twice = Err(Invalid::DuplicateName("addrs".into()));
    assert_eq!(table(vec![addrs(), Set::map("addrs", [Type::InetProto], [Type::Addr])], vec![]), twice);
    assert_eq!(table(vec![], vec![Chain::new("addrs"), Chain::new("addrs")]), twice);
    assert!(table(vec![addrs()], vec![Chain::new("addrs")]).is_ok(), "sets and chains do not share names");
    for comment in ["", "a\"b", "a\\b", "a\nb", &"c".repeat(252)] {
        let invalid = Err(Invalid::Comment(comment.into()));
        assert_eq!(Table::new(Family::Ip, "t", Some(comment), vec![], vec![]), invalid);
        let element = Element::new([v4(1)]).with_comment(comment);
        assert_eq!(table(vec![addrs().with_element(element)], vec![]), invalid);
    }
}

#[test]
fn sets_and_elements() {
    let wide = vec![Type::Addr; 6];
    assert_eq!(table(vec![Set::new("s", [])], vec![]), Err(Invalid::Key("s".into())));
    assert_eq!(table(vec![Set::new("s", wide.clone())], vec![]), Err(Invalid::Key("s".into())));
    assert_eq!(table(vec![Set::map("s", [Type::Addr], wide)], vec![]), Err(Invalid::Key("s".into())));
    let six = Table::new(Family::Ip6, "t", None, vec![Set::new("s", vec![Type::Addr; 5])], vec![]);
    assert_eq!(six, Err(Invalid::Key("s".into())));
    assert_eq!(table(vec![Set::new("s", [Type::Other(19)])], vec![]), Err(Invalid::ReadOnly("s".into())));
    let flagged = Set { unknown: vec!["flags 0x4".into()], ..addrs() };
    assert_eq!(table(vec![flagged], vec![]), Err(Invalid::ReadOnly("addrs".into())));
    for wrong in [
        Element::new([]),
        Element::new([v6()]),
        Element::new([Value::Port(1)]),
        Element::new([v4(1), v4(2)]),
        Element::map([v4(1)], [v4(2)]),
        Element::new([Value::Raw(vec![10, 0, 0, 1])]),
    ] {
        let text = format!("the element `{wrong}` does not fit set `addrs`");
        assert_eq!(error(table(vec![addrs().with_element(wrong.clone())], vec![])), text);
        let valid = table(vec![addrs()], vec![]).expect("valid");
        let refused = valid.add_elements("addrs", vec![Element::new([v4(1)]), wrong]).expect_err("it does not fit");
        assert_eq!(refused.to_string(), text);
    }
    let twice = addrs().with_elements([v4(1), v4(2), v4(1)].map(|value| Element::new([value]).with_comment("c")));
    let element = "10.0.0.1 comment \"c\"".to_owned();
    assert_eq!(table(vec![twice], vec![]), Err(Invalid::DuplicateElement { element, set: "addrs".into() }));
}

#[test]
fn changes_of_a_table_fit_it() {
    let ports = Set::map("ports", [Type::InetProto, Type::InetService], [Type::Addr, Type::InetService]);
    let table = table(vec![ports], vec![]).expect("valid");
    assert_eq!(table.add_elements("none", vec![]), Err(Invalid::NoSet("none".into())));
    assert_eq!(table.destroy_elements("none", vec![]), Err(Invalid::NoSet("none".into())));
    let key = vec![Proto::Tcp.into(), Value::Port(80)];
    let change = table.destroy_elements("ports", vec![key.clone()]).expect("fits");
    assert_eq!(change.to_string(), "destroy element ip t ports { tcp . 80 }");
    let reversed = key.iter().rev().cloned().collect();
    assert!(matches!(table.destroy_elements("ports", vec![reversed]), Err(Invalid::Element { .. })));
    assert!(matches!(table.add_elements("ports", vec![Element::new(key)]), Err(Invalid::Element { .. })));
}

#[test]
fn statements() {
    let family = |value: &str| Err(Invalid::Family { value: value.into(), family: Family::Ip });
    assert_eq!(table(vec![], chain([Statement::SaddrIn(net("fd00::/8"))])), family("fd00::/8"));
    assert_eq!(table(vec![], chain([Statement::DaddrNotIn(net("::/0"))])), family("::/0"));
    assert!(matches!(table(vec![], chain([])), Err(Invalid::Rule(_))));
    let on = chain([Statement::Accept, Statement::Counter]);
    assert_eq!(table(vec![], on), Err(Invalid::Rule("accept counter".into())));
    assert_eq!(table(vec![], chain([Statement::MarkHas(0)])), Err(Invalid::NoBits));
    assert_eq!(table(vec![], chain([Statement::MarkSet(0)])), Err(Invalid::NoBits));
    assert_eq!(table(vec![], chain([Statement::Unknown("x".into())])), Err(Invalid::ReadOnly("x".into())));
    for name in ["", "*", "a/b", "a b", "a\"b", "0123456789abcdef", "0123456789abcdef*", "a*b", ".", ".."] {
        let invalid = Err(Invalid::Interface(name.into()));
        assert_eq!(table(vec![], chain([Statement::Iifname(name.into())])), invalid);
        assert_eq!(table(vec![], chain([Statement::OifnameNot(name.into())])), invalid);
    }
    for name in ["a", "pw*", "0123456789abcde", "0123456789abcde*", "eth0.7"] {
        assert!(table(vec![], chain([Statement::Oifname(name.into())])).is_ok(), "{name}");
    }
}

#[test]
fn lookups() {
    use Field::{Daddr, L4proto, Saddr, ThDport};
    let sets = || {
        vec![
            addrs(),
            Set::map("plain", [Type::Addr], [Type::Addr]),
            Set::map("dnats", [Type::InetProto, Type::InetService], [Type::Addr, Type::InetService]),
            Set::map("portless", [Type::Addr, Type::InetService], [Type::Addr, Type::InetService]),
            Set::map("single", [Type::InetProto], [Type::Addr, Type::InetService]),
        ]
    };
    assert!(table(sets(), chain([Statement::lookup([Daddr], "addrs")])).is_ok());
    assert!(table(sets(), chain([Statement::dnat_map([L4proto, ThDport], "dnats")])).is_ok());
    assert_eq!(table(sets(), chain([Statement::lookup([Saddr], "none")])), Err(Invalid::NoSet("none".into())));
    assert_eq!(
        error(table(sets(), chain([Statement::lookup_not([Saddr, Daddr], "addrs")]))),
        "`ip saddr . ip daddr != @addrs` does not fit the types of `addrs`"
    );
    for wrong in [
        Statement::lookup([], "addrs"),
        Statement::lookup([ThDport], "addrs"),
        Statement::lookup([Saddr], "plain"),
        Statement::dnat_map([Saddr], "plain"),
        Statement::dnat_map([], "dnats"),
        Statement::dnat_map([ThDport, L4proto], "dnats"),
        // nft(8) wants to know the protocol before it takes a port, and from a concatenation.
        Statement::dnat_map([Saddr, ThDport], "portless"),
        Statement::dnat_map([L4proto], "single"),
    ] {
        let result = table(sets(), chain([wrong.clone()]));
        assert!(matches!(result, Err(Invalid::LookupTypes { .. })), "{wrong:?}: {result:?}");
    }
}

#[test]
fn chains() {
    let jump = |from: &str, to: &str| Chain::new(from).with_rule([Statement::jump(to)]);
    assert_eq!(table(vec![], vec![jump("a", "b")]), Err(Invalid::NoChain("b".into())));
    let base = Chain::base("b", Base::dstnat());
    assert_eq!(table(vec![], vec![jump("a", "b"), base]), Err(Invalid::NoChain("b".into())));
    assert_eq!(table(vec![], vec![jump("a", "a")]), Err(Invalid::Loop("a".into())));
    let circle = vec![jump("a", "b"), jump("b", "c"), jump("c", "b")];
    assert_eq!(table(vec![], circle), Err(Invalid::Loop("b".into())));
    let diamond = vec![jump("a", "b").with_rule([Statement::goto("c")]), jump("b", "c"), Chain::new("c")];
    assert!(table(vec![], diamond).is_ok());
    for (kind, hook, priority) in
        [(Kind::Nat, Hook::Forward, 0), (Kind::Nat, Hook::Prerouting, -200), (Kind::Route, Hook::Input, 0)]
    {
        let impossible = Base::new(kind, hook, priority);
        let result = table(vec![], vec![Chain::base("b", impossible)]);
        assert_eq!(result, Err(Invalid::Base(impossible.to_string())));
    }
}

#[test]
fn translations_where_they_can_be() {
    let masquerade = || Chain::new("m").with_rule([Statement::Masquerade]);
    let from = |base: Base| vec![masquerade(), Chain::base("b", base).with_rule([Statement::jump("m")])];
    assert!(table(vec![], vec![masquerade()]).is_ok(), "nothing leads there");
    assert!(table(vec![], from(Base::srcnat())).is_ok());
    for base in [Base::dstnat(), Base::dstnat_output(), Base::new(Kind::Filter, Hook::Postrouting, 0)] {
        let text = format!("`masquerade` cannot be reached from base chain `b ({base})`");
        assert_eq!(error(table(vec![], from(base))), text);
    }
}

#[test]
fn loose_changes_are_checked() {
    let (family, table, set) = (Family::Ip6, "t".to_owned(), "s".to_owned());
    let add = |elements| Change::AddElements { family, table: table.clone(), set: set.clone(), elements };
    assert_eq!(add(vec![Element::new([v6()])]).check(), Ok(()));
    for wrong in [Element::new([v4(1)]), Element::new([]), Element::new([Value::Raw(vec![1])])] {
        assert!(matches!(add(vec![wrong]).check(), Err(Invalid::Element { .. })));
    }
    let comment = Element::new([v6()]).with_comment("\"");
    assert_eq!(add(vec![comment]).check(), Err(Invalid::Comment("\"".into())));
    let name = Change::DeleteTable { family, name: "dnat".into() };
    assert_eq!(name.check(), Err(Invalid::Name("dnat".into())));
    let rules = |rule: Rule| Change::AddRules { family, table: table.clone(), chain: "c".into(), rules: vec![rule] };
    assert_eq!(rules([Statement::SaddrIn(net("fd00::/8"))].into()).check(), Ok(()));
    assert!(matches!(rules([Statement::SaddrIn(net("10.0.0.0/8"))].into()).check(), Err(Invalid::Family { .. })));
}

#[test]
fn equal_tables_are_equal_values() {
    let with = |elements: [u8; 3], network: &str| {
        let set = addrs().with_elements(elements.map(|last| Element::new([v4(last)])));
        table(vec![set], chain([Statement::SaddrIn(net(network))])).expect("valid")
    };
    assert_eq!(with([1, 2, 3], "10.0.0.0/8"), with([3, 1, 2], "10.9.9.9/8"));
    assert_ne!(with([1, 2, 3], "10.0.0.0/8"), with([1, 2, 4], "10.0.0.0/8"));
    assert_eq!(with([1, 2, 3], "10.0.0.0/8").without_elements(), with([4, 5, 6], "10.0.0.0/8").without_elements());
}
