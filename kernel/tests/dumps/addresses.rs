use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sandbox::private_host;

use crate::parts::list_rtnl;
use crate::{batch, ipv4, ipv6, pair};

const MANY: u32 = 400;

fn address_in(object: &RouteNetlinkMessage) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewAddress(message) = object else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })
}

/// An address goes after it was listed: is it told that there was a change?
fn is_interrupted(family: AddressFamily, address: fn(u32) -> IpAddr) -> bool {
    pair();
    let all: BTreeSet<IpAddr> = (1..=MANY).map(address).collect();
    batch("ip", all.iter().map(|to| format!("address add {} dev left", IpNetwork::from(*to))));
    let mut request = AddressMessage::default();
    request.header.family = family;
    let listed = list_rtnl(RouteNetlinkMessage::GetAddress(request), |first| {
        let one =
            first.iter().filter_map(address_in).find(|one| all.contains(one)).expect("one is in the first message");
        batch("ip", [format!("address del {} dev left", IpNetwork::from(one))]);
    });
    listed.interrupted
}

#[test]
fn lists_of_addresses_tell_that_they_changed() {
    private_host(|| assert!(is_interrupted(AddressFamily::Inet, ipv4)));
}

#[test]
fn lists_of_ipv6_addresses_tell_that_they_changed() {
    private_host(|| assert!(is_interrupted(AddressFamily::Inet6, ipv6)));
}
