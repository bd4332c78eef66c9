//! Large transactions, and large sets.

use std::net::Ipv4Addr;

use kernel::Error;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Element, Family, Proto, Table};

use crate::models::{exact_key, hostport, target};
use crate::oracle::list;

fn frame() -> Table {
    hostport(Family::Ip).without_elements()
}

pub(crate) fn mapping(number: u16, comment: Option<&str>) -> Element {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number));
    let element = Element::map(exact_key(&address.to_string(), Proto::Tcp, number), target("10.88.0.2", 80));
    match comment {
        Some(comment) => element.with_comment(comment),
        None => element,
    }
}

#[test]
fn five_thousand_elements_come_and_go_at_once() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let elements: Vec<_> = (1..=5000).map(|number| mapping(number, None)).collect();
        let keys: Vec<_> = elements.iter().map(|element| element.key.clone()).collect();
        let add = frame().add_elements("exact", elements.clone()).expect("fits");
        let before = nft.generation().expect("a number");
        nft.commit(&[Change::AddTable(frame()), add.clone()]).expect("commit");
        assert_eq!(nft.elements(Family::Ip, "hp", "exact").expect("readable"), elements);
        assert_eq!(list(Family::Ip, "hp").matches(" . tcp . ").count(), 5000);
        assert_ne!(nft.generation().expect("a number"), before);
        // Of 5000 conflicts in many messages the first is the one told about.
        match nft.commit(&[add]) {
            Err(Error::NftRefused { key, refusal, .. }) => {
                assert_eq!((key, refusal), (Some(keys[0].clone()), Refusal::AlreadyExists));
            }
            other => panic!("{other:?}"),
        }
        let last = keys[4999].clone();
        nft.commit(&[frame().destroy_elements("exact", keys[..4999].to_vec()).expect("fits")]).expect("commit");
        let left = nft.elements(Family::Ip, "hp", "exact").expect("readable");
        assert_eq!(left.iter().map(|element| &element.key).collect::<Vec<_>>(), [&last]);
    });
}

#[test]
fn an_element_in_the_middle_of_a_later_message_is_named() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let taken = mapping(4321, Some("holder"));
        let first = frame().add_elements("exact", vec![taken.clone()]).expect("fits");
        nft.commit(&[Change::AddTable(frame()), first]).expect("commit");
        let elements = (1..=5000).map(|number| mapping(number, None)).collect();
        match nft.commit(&[frame().add_elements("exact", elements).expect("fits")]) {
            Err(Error::NftRefused { key, change, .. }) => {
                assert_eq!(key, Some(taken.key.clone()));
                assert_eq!(change, "add element ip hp exact { 10.0.16.225 . tcp . 4321 : 10.88.0.2 . 80 }");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(nft.elements(Family::Ip, "hp", "exact").expect("readable"), [taken]);
    });
}

#[test]
fn more_errors_than_the_socket_holds_leave_the_first() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let add = |number| frame().add_elements("exact", vec![mapping(number, None)]).expect("fits");
        let changes: Vec<_> = (1..=3000).map(add).collect();
        let whole: Vec<_> = std::iter::once(Change::AddTable(frame())).chain(changes.clone()).collect();
        nft.commit(&whole).expect("commit");
        match nft.commit(&changes) {
            Err(Error::NftRefused { key, refusal, .. }) => {
                assert_eq!((key, refusal), (Some(mapping(1, None).key), Refusal::AlreadyExists));
            }
            other => panic!("{other:?}"),
        }
        // What was left over of the answers does not disturb later questions.
        assert_eq!(nft.elements(Family::Ip, "hp", "exact").expect("readable").len(), 3000);
        nft.commit(&[add(3001)]).expect("fits");
    });
}

#[test]
fn too_large_a_transaction_is_a_clear_error() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let comment = "c".repeat(250);
        let elements = (1..=30_000).map(|number| mapping(number, Some(&comment))).collect();
        let add = frame().add_elements("exact", elements).expect("fits");
        match nft.commit(&[Change::AddTable(frame()), add]) {
            // Root of the first user namespace may send messages of any size.
            Ok(()) => assert!(nft.has_elements(Family::Ip, "hp", "exact").expect("readable")),
            Err(Error::NftTooLarge { bytes, limit }) => {
                assert!(limit >= 64 * 1024 && bytes > limit && bytes > 30_000 * 290, "{bytes} {limit}");
                assert_eq!(nft.table(Family::Ip, "hp").expect("an answer"), None);
            }
            Err(other) => panic!("{other:?}"),
        }
    });
}
