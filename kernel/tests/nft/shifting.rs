//! What the kernel leaves out of a dump in several messages while elements are moved about, [`Nft`] asks for again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kernel::Error;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Family, Table};

use crate::models::hostport;
use crate::size::mapping;

/// How many elements stay, in several messages of a dump.
const STAYING: u16 = 1500;

/// Enough for one to be cut through, without asking again, in every other run.
const ROUNDS: usize = 60;

fn frame() -> Table {
    hostport(Family::Ip).without_elements()
}

fn add(numbers: impl IntoIterator<Item = u16>) -> Change {
    let elements = numbers.into_iter().map(|number| mapping(number, None)).collect();
    frame().add_elements("exact", elements).expect("fits")
}

#[test]
fn nothing_is_left_out_while_transactions_are_refused() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame()), add(1..=STAYING)]).expect("commit");
        let all = nft.elements(Family::Ip, "hp", "exact").expect("readable");
        assert_eq!(all.len(), usize::from(STAYING));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut nft = Nft::open().expect("a socket");
                // The last one is taken, which the kernel finds when it has put in the others.
                let changes = [add(10_000..12_000), add([1])];
                while !done.load(Ordering::Relaxed) {
                    let refused = nft.commit(&changes);
                    let taken = matches!(refused, Err(Error::NftRefused { refusal: Refusal::AlreadyExists, .. }));
                    assert!(taken, "{refused:?}");
                }
            });
            let whole =
                (0..ROUNDS).filter(|_| nft.elements(Family::Ip, "hp", "exact").expect("readable") == all).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(whole, ROUNDS);
        });
    });
}

#[test]
fn nothing_is_left_out_while_the_hash_table_grows() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        for round in 0..20 {
            nft.commit(&[Change::AddTable(frame())]).expect("commit");
            for end in [500, 1000, 2000, 4000_u16] {
                nft.commit(&[add(end / 2 + 1..=end)]).expect("commit");
                let there = nft.elements(Family::Ip, "hp", "exact").expect("readable");
                let whole: Vec<_> = (251..=end).map(|number| mapping(number, None)).collect();
                assert!(there == whole, "round {round}, {end}: {} of {}", there.len(), whole.len());
            }
            nft.commit(&[Change::DeleteTable { family: Family::Ip, name: "hp".into() }]).expect("commit");
        }
    });
}
