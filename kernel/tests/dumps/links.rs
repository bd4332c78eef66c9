use std::collections::BTreeSet;

use kernel::rtnl::{Rtnl, Shaped};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use sandbox::private_host;

use crate::parts::list_rtnl;
use crate::{batch, missing};

const STAYING: u32 = 80;

/// A pair in front, which is to go, and pairs behind it.
fn pairs() {
    let staying = (0..STAYING).map(|number| format!("link add a{number} type veth peer name b{number}"));
    batch("ip", std::iter::once("link add front type veth peer name other".to_owned()).chain(staying));
}

fn link_in(object: &RouteNetlinkMessage) -> Option<u32> {
    match object {
        RouteNetlinkMessage::NewLink(message) => Some(message.header.index),
        _ => None,
    }
}

fn bucket_in(object: &RouteNetlinkMessage) -> Option<u32> {
    match object {
        RouteNetlinkMessage::NewQueueDiscipline(message)
            if message.attributes.contains(&TcAttribute::Kind("tbf".to_owned())) =>
        {
            Some(message.header.index.cast_unsigned())
        }
        _ => None,
    }
}

#[test]
fn lists_of_links_tell_that_they_changed() {
    private_host(|| {
        pairs();
        let request = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        let rtnl = Rtnl::open().unwrap();
        let gone = ["front", "other"].map(|name| rtnl.link(name).unwrap().expect("made").index).into();
        let all: BTreeSet<u32> = list_rtnl(request(), |_| {}).all.iter().filter_map(link_in).collect();
        assert!(all.len() > 2 * STAYING as usize);
        let listed = list_rtnl(request(), |_| batch("ip", ["link del front"]));
        let missing = missing(&all, &gone, listed.all.iter().filter_map(link_in));
        assert!(listed.interrupted, "{missing:?}");
    });
}

#[test]
fn lists_of_qdiscs_leave_one_out_of_which_nothing_is_said() {
    private_host(|| {
        pairs();
        let shape = |number| format!("qdisc add dev a{number} root tbf rate 8mbit burst 10kb limit 10kb");
        batch("tc", (0..STAYING).map(shape));
        let request = || RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let all: BTreeSet<u32> = list_rtnl(request(), |_| {}).all.iter().filter_map(bucket_in).collect();
        assert_eq!(all.len(), STAYING as usize);
        let listed = list_rtnl(request(), |_| batch("ip", ["link del front"]));
        let missing = missing(&all, &BTreeSet::new(), listed.all.iter().filter_map(bucket_in));
        assert!(!missing.is_empty() && !listed.interrupted, "{missing:?} {}", listed.interrupted);
        // Who asks for it sees it.
        let rtnl = Rtnl::open().unwrap();
        for index in missing {
            assert_eq!(rtnl.shaped(index).unwrap(), Some(Shaped { rate: 1_000_000, limit: 10_240 }));
        }
    });
}
