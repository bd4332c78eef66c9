//! What a pod may send, as values: one static rule set for the node, and set elements for each pod.
//!
//! The rules ask for the link that a packet came by, so they cost the same whether one pod is guarded or thousands, and
//! nothing for links that are not in the set. They stand before connection tracking (priority `raw`), so that a packet
//! that is dropped leaves no trace.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use macaddr::MacAddr6;
use nft_model::{Base, Chain, Element, Family, Field, Hook, Invalid, Kind, Rule, Set, Statement, Table, Type, Value};

use crate::names::GUARD_TABLE;

/// The set of guarded links.
pub const LINKS: &str = "links";
/// The set of what may come by a link: hardware address and source address together.
pub const SENDERS: &str = "senders";
/// The set of what may come by a link whose hardware address may change.
pub const ADDRESSES: &str = "addresses";

/// All three, for whoever looks for an attachment's elements.
pub const SETS: [&str; 3] = [LINKS, SENDERS, ADDRESSES];

/// Neighbour discovery (RFC 4861, section 4): router solicitation and advertisement, neighbour advertisement, redirect.
/// A solicitation, 135, only asks; from its own address a pod may.
const NEIGHBOUR_DISCOVERY: [u8; 4] = [133, 134, 136, 137];

/// Before `raw` (-300), where others may switch connection tracking off.
const BEFORE_RAW: i32 = -310;

/// The rule set of one family, without any pod. It depends on nothing: every network of the node uses it.
///
/// # Errors
/// None; the model checks what it is given.
pub fn table(family: Family) -> Result<Table, Invalid> {
    let dropped = || [Statement::Counter, Statement::Drop];
    let discovery = match family {
        Family::Ip => &[][..],
        Family::Ip6 => &NEIGHBOUR_DISCOVERY,
    };
    let discovery = discovery.iter().map(|kind| {
        let [counter, drop] = dropped();
        Rule::from([Statement::Icmpv6Type(*kind), counter, drop])
    });
    let [counter, drop] = dropped();
    let guard = Chain::new("guard")
        .with_rule([Statement::DaddrIn(loopback(family)), counter, drop])
        .with_rule([Statement::lookup([Field::Iifname, Field::Saddr], ADDRESSES), Statement::Return])
        .with_rules(discovery)
        .with_rule([Statement::lookup([Field::Iifname, Field::EtherSaddr, Field::Saddr], SENDERS), Statement::Return])
        .with_rule(dropped());
    let prerouting = Chain::base("prerouting", Base::new(Kind::Filter, Hook::Prerouting, BEFORE_RAW))
        .with_rule([Statement::lookup([Field::Iifname], LINKS), Statement::jump("guard")]);
    let sets = vec![
        Set::new(LINKS, [Type::Ifname]),
        Set::new(SENDERS, [Type::Ifname, Type::EtherAddr, Type::Addr]),
        Set::new(ADDRESSES, [Type::Ifname, Type::Addr]),
    ];
    Table::new(family, GUARD_TABLE, Some("podwire: what pods may send"), sets, vec![guard, prerouting])
}

/// The element that has a link guarded. Without any other of that family nothing gets through.
#[must_use]
pub fn link(name: &str, owner: &str) -> (&'static str, Element) {
    (LINKS, Element::new([Value::Ifname(name.to_owned())]).with_comment(owner))
}

/// The element that lets a pod send from one of its addresses; with `mac` only from that hardware address.
#[must_use]
pub fn sender(link: &str, mac: Option<MacAddr6>, address: IpAddr, owner: &str) -> (&'static str, Element) {
    let link = Value::Ifname(link.to_owned());
    let (set, key) = match mac {
        Some(mac) => (SENDERS, vec![link, Value::Mac(mac), Value::Addr(address)]),
        None => (ADDRESSES, vec![link, Value::Addr(address)]),
    };
    (set, Element::new(key).with_comment(owner))
}

/// What the kernel drops on its own unless `route_localnet` is set, as it is where the node reaches hostPorts at 127.0.0.1.
fn loopback(family: Family) -> IpNetwork {
    let (address, prefix) = match family {
        Family::Ip => (IpAddr::from([127, 0, 0, 0]), 8),
        Family::Ip6 => (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
    };
    IpNetwork::new(address, prefix).unwrap_or_else(|_| IpNetwork::from(address))
}
