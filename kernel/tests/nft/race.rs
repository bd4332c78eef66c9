//! Of racing creators one wins, and nothing is there twice.

use std::sync::Barrier;
use std::thread;

use kernel::Error;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Element, Family, Proto};

use crate::models::{hostport, target, wild_key};
use crate::oracle::list;

const RACERS: u16 = 6;
const ROUNDS: usize = 10;

/// Creates the table with an element if it is not there, and adds the element if it is: what every ADD does.
fn create_or_add(port: u16, start: &Barrier) -> bool {
    let frame = hostport(Family::Ip).without_elements();
    let element = Element::map(wild_key(Proto::Tcp, port), target("10.88.0.2", port));
    let add = frame.add_elements("wild", vec![element]).expect("fits");
    let mut nft = Nft::open().expect("a socket");
    start.wait();
    match nft.commit(&[Change::AddTable(frame), add.clone()]) {
        Ok(()) => true,
        Err(Error::NftRefused { refusal: Refusal::AlreadyExists, change, .. }) => {
            assert_eq!(change, "add table ip hp");
            nft.commit(&[add]).expect("the winner's table is there");
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn one_creator_wins() {
    sandbox::private_host(|| {
        let frame = hostport(Family::Ip).without_elements();
        let mut nft = Nft::open().expect("a socket");
        for _ in 0..ROUNDS {
            let start = Barrier::new(usize::from(RACERS));
            let start = &start;
            let winners = thread::scope(|scope| {
                let racers: Vec<_> = (1..=RACERS).map(|port| scope.spawn(move || create_or_add(port, start))).collect();
                racers.into_iter().map(|racer| racer.join().expect("no panic")).filter(|won| *won).count()
            });
            assert_eq!(winners, 1);
            let table = nft.read_table(Family::Ip, "hp").expect("readable").expect("there");
            assert_eq!(table.without_elements(), frame);
            assert_eq!(table.set("wild").expect("there").elements.len(), usize::from(RACERS));
            assert_eq!(list(Family::Ip, "hp").matches("jump hostports").count(), 2);
            nft.commit(&[Change::DeleteTable { family: Family::Ip, name: "hp".into() }]).expect("commit");
        }
    });
}

#[test]
fn a_host_port_has_one_owner() {
    sandbox::private_host(|| {
        let frame = hostport(Family::Ip).without_elements();
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame.clone())]).expect("commit");
        for port in 1..=20 {
            let start = Barrier::new(usize::from(RACERS));
            let claim = |number: u16| {
                let element = Element::map(wild_key(Proto::Tcp, port), target("10.88.0.2", number));
                let add =
                    frame.add_elements("wild", vec![element.with_comment(format!("owner {number}"))]).expect("fits");
                let mut nft = Nft::open().expect("a socket");
                start.wait();
                match nft.commit(&[add]) {
                    Ok(()) => Some(format!("owner {number}")),
                    Err(Error::NftRefused { refusal: Refusal::AlreadyExists, key, .. }) => {
                        assert_eq!(key, Some(wild_key(Proto::Tcp, port)));
                        None
                    }
                    Err(other) => panic!("{other:?}"),
                }
            };
            let claim = &claim;
            let owners: Vec<_> = thread::scope(|scope| {
                let racers: Vec<_> = (1..=RACERS).map(|number| scope.spawn(move || claim(number))).collect();
                racers.into_iter().filter_map(|racer| racer.join().expect("no panic")).collect()
            });
            let held = nft.element(Family::Ip, "hp", "wild", &wild_key(Proto::Tcp, port)).expect("readable");
            assert_eq!(owners, [held.expect("there").comment.expect("a comment")]);
        }
    });
}
