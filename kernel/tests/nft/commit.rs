//! All or nothing, and errors that say what and why.

use std::error::Error as _;

use kernel::Error;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Element, Family, Invalid, Proto, Rule, Statement, Table, Value};

use crate::models::{address, exact_key, hostport, ip, target, wild_key};
use crate::oracle::{list, load};

const TABLE: &str = "hp";

fn frame() -> Table {
    hostport(Family::Ip).without_elements()
}

fn mapping(port: u16) -> Element {
    Element::map(exact_key("10.0.0.1", Proto::Tcp, port), target(&address(Family::Ip, 2), port))
}

fn add(elements: Vec<Element>) -> Change {
    frame().add_elements("exact", elements).expect("fits")
}

fn destroy(ports: impl IntoIterator<Item = u16>) -> Change {
    let keys = ports.into_iter().map(|port| mapping(port).key).collect();
    frame().destroy_elements("exact", keys).expect("fits")
}

fn ports(nft: &mut Nft) -> Vec<u16> {
    let elements = nft.elements(Family::Ip, TABLE, "exact").expect("a set");
    elements.iter().map(|element| if let Some(Value::Port(port)) = element.key.last() { *port } else { 0 }).collect()
}

/// The change and the refusal of an error that must be one.
fn refused(result: Result<(), Error>) -> (String, Option<Vec<Value>>, Refusal) {
    match result {
        Err(Error::NftRefused { change, key, refusal }) => (change, key, refusal),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_second_table_of_the_same_name_is_refused() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(hostport(Family::Ip))]).expect("commit");
        let before = list(Family::Ip, TABLE);
        let error = nft.commit(&[Change::AddTable(frame())]).expect_err("it exists");
        assert_eq!(error.to_string(), "cannot add table ip hp");
        assert_eq!(error.source().expect("why").to_string(), "it exists already");
        assert_eq!(refused(Err(error)).2, Refusal::AlreadyExists);
        assert_eq!(list(Family::Ip, TABLE), before);
    });
}

#[test]
fn a_taken_key_is_refused_by_name_and_nothing_happens() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame()), add(vec![mapping(80)])]).expect("commit");
        let taken = Element::map(mapping(80).key, target(&address(Family::Ip, 3), 80));
        let changes = [destroy([80]), add([mapping(81), mapping(82)].to_vec()), add([80, 83].map(mapping).to_vec())];
        nft.commit(&changes).expect("the key was free again");
        assert_eq!(ports(&mut nft), [80, 81, 82, 83]);
        let elements = vec![mapping(90), mapping(91), taken, mapping(92)];
        let (change, key, refusal) = refused(nft.commit(&[destroy([83]), add(elements)]));
        assert_eq!(change, "add element ip hp exact { 10.0.0.1 . tcp . 80 : 10.88.0.3 . 80 }");
        assert_eq!(key, Some(mapping(80).key));
        assert_eq!(refusal, Refusal::AlreadyExists);
        assert_eq!(ports(&mut nft), [80, 81, 82, 83]);
        // The very same element is a conflict as well: its owner may be another one.
        assert_eq!(refused(nft.commit(&[add(vec![mapping(80)])])).2, Refusal::AlreadyExists);
    });
}

#[test]
fn absent_keys_are_destroyed_without_complaint() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame()), add((1..6).map(mapping).collect())]).expect("commit");
        nft.commit(&[destroy([2, 7, 4, 2])]).expect("some are there");
        nft.commit(&[destroy([2, 7])]).expect("none is there");
        nft.commit(&[destroy([])]).expect("nothing to do");
        assert_eq!(ports(&mut nft), [1, 3, 5]);
        nft.commit(&[]).expect("nothing at all");
        let (change, _, refusal) = refused(nft.commit(&[Change::DestroyElements {
            family: Family::Ip6,
            table: TABLE.into(),
            set: "exact".into(),
            keys: vec![wild_key(Proto::Tcp, 1)],
        }]));
        assert_eq!((change.as_str(), refusal), ("destroy element ip6 hp exact { tcp . 1 }", Refusal::NotFound));
    });
}

#[test]
fn tables_are_deleted_and_destroyed() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let (family, name) = (Family::Ip6, TABLE.to_owned());
        let table = hostport(family);
        let delete = Change::DeleteTable { family, name: name.clone() };
        let destroy = Change::DestroyTable { family, name };
        assert_eq!(refused(nft.commit(std::slice::from_ref(&delete))).2, Refusal::NotFound);
        nft.commit(std::slice::from_ref(&destroy)).expect("absent is as good as destroyed");
        assert_eq!(nft.tables(family).expect("tables"), []);
        nft.commit(&[Change::AddTable(table.clone())]).expect("commit");
        // All at once, so that no packet sees a host without the table.
        nft.commit(&[destroy.clone(), Change::AddTable(table.without_elements())]).expect("replaced");
        assert_eq!(nft.read_table(family, TABLE).expect("readable"), Some(table.without_elements()));
        nft.commit(&[delete]).expect("it is there");
        assert_eq!(nft.table(family, TABLE).expect("an answer"), None);
        nft.commit(&[Change::AddTable(table)]).expect("commit");
        nft.commit(&[destroy]).expect("it is there");
        assert_eq!(nft.table(family, TABLE).expect("an answer"), None);
    });
}

#[test]
fn a_refused_rule_is_named() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let rules = |rules: Vec<Rule>| Change::AddRules {
            family: Family::Ip,
            table: TABLE.into(),
            chain: "maps".into(),
            rules,
        };
        nft.commit(&[Change::AddTable(frame())]).expect("commit");
        let before = list(Family::Ip, TABLE);
        let (change, key, refusal) =
            refused(nft.commit(&[rules(vec![[Statement::Accept].into(), [Statement::jump("nowhere")].into()])]));
        assert!(change.contains("add rule ip hp maps jump nowhere"), "{change}");
        assert_eq!((key, refusal), (None, Refusal::NotFound));
        assert_eq!(list(Family::Ip, TABLE), before);
        nft.commit(&[rules(vec![[Statement::Return].into()])]).expect("fits");
        assert!(list(Family::Ip, TABLE).contains("map @wild\n\t\treturn\n"));
        let flush = Change::FlushChain { family: Family::Ip, table: TABLE.into(), chain: "maps".into() };
        nft.commit(&[flush]).expect("there is a chain");
        assert!(list(Family::Ip, TABLE).contains("\tchain maps {\n\t}\n"));
    });
}

#[test]
fn what_can_never_be_is_not_sent() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame())]).expect("commit");
        let before = nft.generation().expect("a number");
        let wrong = Change::AddElements {
            family: Family::Ip,
            table: TABLE.into(),
            set: "hairpin".into(),
            elements: vec![Element::new([ip("::1").into(), ip("::1").into()])],
        };
        match nft.commit(&[add(vec![mapping(1)]), wrong]) {
            Err(Error::NftInvalid { change, source: Invalid::Element { .. } }) => {
                assert_eq!(change, "add element ip hp hairpin { ::1 . ::1 }");
            }
            other => panic!("{other:?}"),
        }
        let observed = Table::observed(Family::Ip, "x", None, vec!["flags 0x1".into()], vec![], vec![]);
        let result = nft.commit(&[Change::AddTable(observed)]);
        assert!(matches!(result, Err(Error::NftInvalid { source: Invalid::ReadOnly(_), .. })), "{result:?}");
        assert_eq!(nft.generation().expect("a number"), before);
    });
}

#[test]
fn a_key_of_the_wrong_length_is_refused_by_the_kernel() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame())]).expect("commit");
        let wrong = Change::DestroyElements {
            family: Family::Ip,
            table: TABLE.into(),
            set: "exact".into(),
            keys: vec![wild_key(Proto::Tcp, 1)],
        };
        assert!(nft.commit(&[wrong]).is_err());
        // The kernel's answer is the one it has for messages it does not know; that must not last.
        nft.commit(&[add(vec![mapping(5)])]).expect("fits");
        nft.commit(&[destroy([5, 6])]).expect("absent keys are fine");
        assert_eq!(ports(&mut nft), [0_u16; 0]);
    });
}

#[test]
fn a_condition_on_the_generation_holds() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let start = nft.generation().expect("a number");
        nft.commit_if_unchanged(&[Change::AddTable(frame())], start).expect("nobody changed anything");
        let result = nft.commit_if_unchanged(&[add(vec![mapping(80)])], start);
        assert!(matches!(result, Err(Error::NftGenerationMoved)), "{result:?}");
        assert_eq!(ports(&mut nft), [0_u16; 0]);
        let now = nft.generation().expect("a number");
        load("table ip other {\n}\n");
        let result = nft.commit_if_unchanged(&[add(vec![mapping(80)])], now);
        assert!(matches!(result, Err(Error::NftGenerationMoved)), "{result:?}");
        let now = nft.generation().expect("a number");
        nft.commit_if_unchanged(&[add(vec![mapping(80)])], now).expect("nobody changed anything");
        assert_eq!(ports(&mut nft), [80]);
    });
}

#[test]
fn comments_are_kept() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame())]).expect("commit");
        // The longest comment the kernel keeps; nft(8) lists it as well.
        let long = "c".repeat(251);
        for (port, comment) in [(1, "mynet 0123abc eth0"), (2, "ü€ # {,}"), (3, long.as_str())] {
            let element = mapping(port).with_comment(comment);
            nft.commit(&[add(vec![element.clone()])]).expect("fits");
            assert_eq!(nft.element(Family::Ip, TABLE, "exact", &element.key).expect("readable"), Some(element));
            assert!(list(Family::Ip, TABLE).contains(&format!("comment \"{comment}\"")));
        }
        let longer = mapping(4).with_comment("c".repeat(252));
        assert!(matches!(frame().add_elements("exact", vec![longer]), Err(Invalid::Comment(_))));
        let info = nft.table(Family::Ip, TABLE).expect("readable").expect("there");
        assert_eq!((info.name.as_str(), info.comment.as_deref()), (TABLE, Some("host ports")));
    });
}
