//! The rule set, as values: a static frame of chains per family, and the elements of one attachment.
//!
//! A new connection to an address of the node is looked up twice whatever the number of pods: by address, protocol
//! and port, then by protocol and port alone. So an exact mapping wins over a wildcard one, whichever came first.
//! Nothing here does any I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use nft_model::{Base, Chain, Element, Family, Field, Hook, Invalid, Kind, Rule, Set, Statement, Table, Type, Value};

use crate::config::Config;
use crate::mapping::{HostIp, Mapping};

/// The name of the table, in both families.
pub const TABLE: &str = "podwire-hostport";

/// The table's comment. It stands for the frame below: another frame needs another number, so that an executable
/// that finds the table of an older or newer one does not take it for its own.
pub const LAYOUT: &str = "podwire-portmap layout 1";

/// Map from the node's address, protocol and port to the pod's address and port.
pub const EXACT: &str = "exact";
/// Map from protocol and port, on every address of the node, to the pod's address and port.
pub const WILDCARD: &str = "wildcard";
/// Set of pods, as (pod, pod), whose packets need another source address to come back to them.
pub const HAIRPIN: &str = "hairpin";
/// Set of attachments that have any element, by [`Owner::key`](crate::owner::Owner::key). No packet is ever looked up
/// in it: an ADD asks it whether the attachment has anything from an ADD whose DEL was lost, at a cost that does not
/// depend on how many others there are.
pub const OWNERS: &str = "owners";

/// All sets and maps that attachments have elements in.
pub const SETS: [&str; 4] = [EXACT, WILDCARD, HAIRPIN, OWNERS];

/// `NF_IP_PRI_RAW` of linux/netfilter_ipv4.h: before connection tracking.
const RAW: i32 = -300;

/// Every address that means this very host (RFC 1122, 3.2.1.3).
const LOOPBACK: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");

/// One element that an attachment needs in one of the sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One of [`SETS`].
    pub set: &'static str,
    /// With its owner's mark as comment.
    pub element: Element,
}

/// The table as the first attachment makes it, without any element.
///
/// # Errors
/// None in practice: a test makes the frames of both families.
pub fn frame(family: Family) -> Result<Table, Invalid> {
    table(family, &[])
}

/// What a node without other host ports holds after an ADD of `config`: one table for each family that is mapped.
///
/// # Errors
/// As [`frame`].
pub fn tables(config: &Config) -> Result<Vec<Table>, Invalid> {
    let families = Family::ALL.into_iter().filter(|family| config.maps(*family));
    families.map(|family| table(family, &entries(config, family))).collect()
}

/// The elements of one attachment in the table of `family`; none if it maps nothing there.
#[must_use]
pub fn entries(config: &Config, family: Family) -> Vec<Entry> {
    let Some(pod) = config.pod.address(family) else { return Vec::new() };
    let wanted = config.mappings.iter().filter(|mapping| mapping.host_ip.includes(family));
    let mut entries: Vec<Entry> = wanted.map(|mapping| mapped(mapping, pod)).collect();
    if entries.is_empty() {
        return entries;
    }
    if config.settings.snat {
        entries.push(Entry { set: HAIRPIN, element: Element::new([Value::Addr(pod), Value::Addr(pod)]) });
    }
    entries.push(Entry { set: OWNERS, element: Element::new(config.owner.key(family)) });
    for entry in &mut entries {
        entry.element.comment = Some(config.owner.comment().to_owned());
    }
    entries
}

fn mapped(mapping: &Mapping, pod: IpAddr) -> Entry {
    let port = [Value::Proto(mapping.protocol), Value::Port(mapping.host_port.get())];
    let target = [Value::Addr(pod), Value::Port(mapping.container_port.get())];
    match mapping.host_ip {
        HostIp::Address(address) => {
            let key: Vec<Value> = [Value::Addr(address)].into_iter().chain(port).collect();
            Entry { set: EXACT, element: Element::map(key, target) }
        }
        HostIp::Any | HostIp::Wildcard(_) => Entry { set: WILDCARD, element: Element::map(port, target) },
    }
}

fn table(family: Family, entries: &[Entry]) -> Result<Table, Invalid> {
    let pod = [Type::Addr, Type::InetService];
    let sets = [
        Set::map(EXACT, [Type::Addr, Type::InetProto, Type::InetService], pod),
        Set::map(WILDCARD, [Type::InetProto, Type::InetService], pod),
        Set::new(HAIRPIN, [Type::Addr, Type::Addr]),
        Set::new(OWNERS, [Type::Addr, Type::Addr]),
    ];
    let with_entries = |set: Set| {
        let own = entries.iter().filter(|entry| entry.set == set.name).map(|entry| entry.element.clone());
        let own: Vec<Element> = own.collect();
        set.with_elements(own)
    };
    Table::new(family, TABLE, Some(LAYOUT), sets.map(with_entries).into(), chains(family))
}

fn chains(family: Family) -> Vec<Chain> {
    let hostports = Chain::new("hostports")
        .with_rule([Statement::dnat_map([Field::Daddr, Field::L4proto, Field::ThDport], EXACT)])
        .with_rule([Statement::dnat_map([Field::L4proto, Field::ThDport], WILDCARD)]);
    let local = || vec![Statement::FibDaddrTypeLocal, Statement::jump("hostports")];
    let prerouting = Chain::base("prerouting", Base::dstnat()).with_rule(local());
    let output = Chain::base("output", Base::dstnat_output());
    let postrouting = Chain::base("postrouting", Base::srcnat())
        .with_rule([Statement::lookup([Field::Saddr, Field::Daddr], HAIRPIN), Statement::Masquerade]);
    match family {
        Family::Ip => {
            vec![hostports, prerouting, output.with_rule(local()), postrouting.with_rule(from_loopback()), guard()]
        }
        Family::Ip6 => {
            // A pod's answer to ::1 never arrives (ip6_rcv_core drops it), so a client is better refused at once:
            // then it goes on to 127.0.0.1.
            let not_loopback = Statement::DaddrNotIn(IpNetwork::from(IpAddr::V6(Ipv6Addr::LOCALHOST)));
            let rule = [not_loopback].into_iter().chain(local()).collect::<Rule>();
            vec![hostports, prerouting, output.with_rule(rule), postrouting]
        }
    }
}

/// A pod cannot answer 127.0.0.1. What somebody else translated is left alone, hence the look-up: it holds for
/// packets to our pods only.
fn from_loopback() -> [Statement; 4] {
    [
        Statement::SaddrIn(LOOPBACK.into()),
        Statement::lookup([Field::Daddr, Field::Daddr], HAIRPIN),
        Statement::CtStatusDnat,
        Statement::Masquerade,
    ]
}

/// The pod's interface must take answers to 127.0.0.1 (`route_localnet`). That alone would let every neighbour on it
/// reach what listens on 127.0.0.1, or claim to come from there.
fn guard() -> Chain {
    let from_outside = |end| [Statement::IifnameNot("lo".to_owned()), end, Statement::Drop];
    Chain::base("guard", Base::new(Kind::Filter, Hook::Prerouting, RAW))
        .with_rule(from_outside(Statement::DaddrIn(LOOPBACK.into())))
        .with_rule(from_outside(Statement::SaddrIn(LOOPBACK.into())))
}
