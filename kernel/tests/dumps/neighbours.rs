use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::rtnl::Rtnl;
use sandbox::private_host;

use crate::{batch, ipv4, meanwhile, missing, pair};

const STAYING: u32 = 2000;

#[test]
fn neighbours_are_all_found() {
    private_host(|| {
        pair();
        let index = Rtnl::open().unwrap().link("left").unwrap().expect("made").index;
        let staying: BTreeSet<IpAddr> = (1..=STAYING).map(|number| ipv4(2 * number)).collect();
        let add = |to| format!("neighbour add {to} lladdr 0a:00:00:00:00:01 nud permanent dev left");
        batch("ip", staying.iter().map(add));
        let wanted: Vec<(u32, IpAddr)> = staying.iter().map(|address| (index, *address)).collect();
        let rtnl = Rtnl::open().unwrap();
        meanwhile(
            |number| {
                let some = || (0..50).map(move |more| ipv4(2 * ((50 * number + more) % STAYING) + 1));
                let come =
                    some().map(|to| format!("neighbour add {to} lladdr 0a:00:00:00:00:02 nud permanent dev left"));
                batch("ip", come.chain(some().map(|to| format!("neighbour del {to} dev left"))));
            },
            3,
            || {
                let found = rtnl.neighbours_of(&wanted).unwrap().into_iter().map(|entry| entry.address);
                assert_eq!(missing(&staying, &BTreeSet::new(), found), Vec::<IpAddr>::new());
            },
        );
    });
}
