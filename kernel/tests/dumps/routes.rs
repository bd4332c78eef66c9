use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::rtnl::{Family, Route, RouteFilter, Rtnl};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sandbox::private_host;

use crate::parts::list_rtnl;
use crate::{batch, ipv4, ipv6, meanwhile, missing, pair};

const STAYING: u32 = 2000;
const PROTOCOL: u8 = 112;

fn destination(object: &RouteNetlinkMessage) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewRoute(message) = object else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

/// A route goes after it was listed, and one comes behind all others: what is missing, and is it told?
fn one_goes_and_one_comes(family: AddressFamily, address: fn(u32) -> IpAddr) -> (usize, bool) {
    pair();
    let all: BTreeSet<IpAddr> = (1..=400).map(address).collect();
    batch("ip", all.iter().map(|to| format!("route add {to} dev left")));
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let mut gone = BTreeSet::new();
    let listed = list_rtnl(RouteNetlinkMessage::GetRoute(request), |first| {
        let one =
            first.iter().filter_map(destination).find(|to| all.contains(to)).expect("one is in the first message");
        batch("ip", [format!("route del {one}"), format!("route add {} dev left", address(1000))]);
        gone.insert(one);
    });
    (missing(&all, &gone, listed.all.iter().filter_map(destination)).len(), listed.interrupted)
}

#[test]
fn lists_of_ipv4_routes_are_whole_whichever_go() {
    private_host(|| assert_eq!(one_goes_and_one_comes(AddressFamily::Inet, ipv4).0, 0));
}

#[test]
fn lists_of_ipv6_routes_leave_one_out_of_which_nothing_is_said() {
    private_host(|| assert_eq!(one_goes_and_one_comes(AddressFamily::Inet6, ipv6), (1, false)));
}

fn all_are_read(family: Family, address: fn(u32) -> IpAddr) {
    pair();
    let (changing, rtnl) = (Rtnl::open().expect("a socket"), Rtnl::open().expect("a socket"));
    let index = rtnl.link("left").expect("readable").expect("made").index;
    // In between there is room for those that come and go.
    let staying: BTreeSet<IpAddr> = (1..=STAYING).map(|number| address(2 * number)).collect();
    batch("ip", staying.iter().map(|to| format!("route add {to} dev left proto {PROTOCOL}")));
    let filter = RouteFilter { family: Some(family), protocol: Some(PROTOCOL), ..RouteFilter::default() };
    let mut incomplete = Vec::new();
    meanwhile(
        |number| {
            let to = IpNetwork::from(address(2 * (37 * number % STAYING) + 1));
            let other = Route::new(to, index, PROTOCOL);
            changing.replace_route(&other).expect("added");
            changing.delete_route(&other).expect("deleted");
        },
        40,
        || {
            let read = rtnl
                .routes(&filter)
                .expect("read, as fewer go than it is read again")
                .into_iter()
                .map(|route| route.dst.ip());
            incomplete.extend(missing(&staying, &BTreeSet::new(), read));
        },
    );
    assert_eq!(incomplete, Vec::<IpAddr>::new());
}

#[test]
fn ipv4_routes_are_all_read_while_others_come_and_go() {
    private_host(|| all_are_read(Family::Inet, ipv4));
}

#[test]
fn ipv6_routes_are_all_read_while_others_come_and_go() {
    private_host(|| all_are_read(Family::Inet6, ipv6));
}
