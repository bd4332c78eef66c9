//! The rule set, as values: a static frame of chains per family, and the elements of one attachment.
//!
//! A new connection to an address of the node is looked up twice whatever the number of pods: by address, protocol
//! and port, then by protocol and port alone. So an exact mapping wins over a wildcard one, whichever came first.
//! Nothing here does any I/O.

pub mod iptables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use nft_model::{Base, Chain, Element, Family, Field, Hook, Invalid, Kind, Rule, Set, Statement, Table, Type, Value};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::mapping::{HostIp, Mapping};

/// The name of the table, in both families.
pub const TABLE: &str = "podwire-hostport";

/// The table's comment. It stands for the frame below: another frame needs another number, so that an executable
/// that finds the table of an older one makes its frame anew, and leaves that of a newer one alone.
pub const LAYOUT: &str = "podwire-portmap layout 2";

/// Map from the node's address, protocol and port to the pod's address and port.
pub const EXACT: &str = "exact";
/// Map from protocol and port, on every address of the node, to the pod's address and port.
pub const WILDCARD: &str = "wildcard";
/// Set of pods, as (pod, pod), whose packets need another source address to come back to them.
pub const HAIRPIN: &str = "hairpin";
/// Set of pods' ports, as (pod, protocol, port), all of whose clients by host port are masqueraded.
pub const MASQ_ALL: &str = "masqall";
/// Set of (protocol, port) of [`WILDCARD`] that 127.0.0.0/8, or ::1, is none of.
pub const NO_LOOPBACK: &str = "noloopback";
/// Set of attachments that have any element, by [`Owner::key`](crate::owner::Owner::key). No packet is ever looked up
/// in it: an ADD asks it whether the attachment has anything from an ADD whose DEL was lost, at a cost that does not
/// depend on how many others there are.
pub const OWNERS: &str = "owners";

/// All sets and maps that attachments have elements in.
pub const SETS: [&str; 6] = [EXACT, WILDCARD, HAIRPIN, MASQ_ALL, NO_LOOPBACK, OWNERS];

/// `NF_IP_PRI_RAW` of linux/netfilter_ipv4.h: before connection tracking.
const RAW: i32 = -300;

/// Every address that means this very host (RFC 1122, 3.2.1.3).
const LOOPBACK: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");

/// A table of nf_tables that mappings of a family are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// What packets must meet besides.
    pub conditions: Vec<Statement>,
}

impl Realm {
    /// The table that all networks without conditions share.
    #[must_use]
    pub fn common(family: Family) -> Self {
        Self { family, table: TABLE.to_owned(), conditions: Vec::new() }
    }

    /// The table that the mappings of `config` belong to. A network with conditions has one of its own, which comes
    /// before the common one: so no network's conditions are another's, and a port can be mapped twice under
    /// conditions that exclude each other. Other conditions are another table, so pods keep those they began with.
    #[must_use]
    pub fn of(config: &Config, family: Family) -> Self {
        let conditions = config.settings.conditions(family).to_vec();
        if conditions.is_empty() {
            return Self::common(family);
        }
        let table = format!("{TABLE}-if-{}", condition_id(config.owner.network(), family, &conditions));
        Self { family, table, conditions }
    }

    /// What stands for the conditions of a table of this name; `None` for the common one.
    #[must_use]
    pub fn condition_of(table: &str) -> Option<&str> {
        table.strip_prefix(TABLE)?.strip_prefix("-if-")
    }

    /// Whether a table of this name is one of ours.
    #[must_use]
    pub fn is_one(table: &str) -> bool {
        table.strip_prefix(TABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with("-if-"))
    }
}

/// What stands for a network and its conditions in a name: 32 bits of a SHA-256.
pub(crate) fn condition_id(network: &str, family: Family, conditions: &[Statement]) -> String {
    let words = conditions.iter().map(|condition| condition.in_family(family).to_string());
    let text = words.fold(network.to_owned(), |text, word| text + " " + &word);
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a table of this comment was made by an older version, whose elements can be kept.
#[must_use]
pub fn is_older_layout(comment: &str) -> bool {
    let number = |comment: &str| {
        comment.rsplit_once(' ').and_then(|(name, number)| Some((name.to_owned(), number.parse::<u32>().ok()?)))
    };
    match (number(comment), number(LAYOUT)) {
        (Some((name, older)), Some((ours, current))) => name == ours && older < current,
        _ => false,
    }
}

/// One element that an attachment needs in one of the sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One of [`SETS`].
    pub set: &'static str,
    /// With its owner's mark as comment.
    pub element: Element,
}

impl Entry {
    /// The pod that packets are led to, or that is masqueraded to itself.
    #[must_use]
    pub fn pod(&self) -> Option<IpAddr> {
        let pod = match self.set {
            EXACT | WILDCARD => self.element.data.first(),
            HAIRPIN => self.element.key.first(),
            _ => None,
        };
        match pod {
            Some(Value::Addr(pod)) => Some(*pod),
            _ => None,
        }
    }
}

/// The table as the first attachment makes it, without any element.
///
/// # Errors
/// None in practice: a test makes the frames of both families.
pub fn frame(realm: &Realm) -> Result<Table, Invalid> {
    table(realm, &[])
}

/// What a node without other host ports holds after an ADD of `config`: one table for each family that is mapped.
///
/// # Errors
/// As [`frame`].
pub fn tables(config: &Config) -> Result<Vec<Table>, Invalid> {
    let families = Family::ALL.into_iter().filter(|family| config.maps(*family));
    families.map(|family| table(&Realm::of(config, family), &entries(config, family))).collect()
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
    let wanted = config.mappings.iter().filter(|mapping| mapping.host_ip.includes(family));
    for mapping in wanted {
        let (proto, host, container) = (mapping.protocol, mapping.host_port.get(), mapping.container_port.get());
        if config.settings.snat && config.settings.masq_all {
            let element = Element::new([pod.into(), proto.into(), container.into()]);
            let entry = Entry { set: MASQ_ALL, element };
            // Two host ports may lead to one port of the pod.
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        let is_wildcard = !matches!(mapping.host_ip, HostIp::Address(_));
        if is_wildcard && !config.settings.reaches_from_loopback() {
            entries.push(Entry { set: NO_LOOPBACK, element: Element::new([proto.into(), host.into()]) });
        }
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

fn table(realm: &Realm, entries: &[Entry]) -> Result<Table, Invalid> {
    let pod = [Type::Addr, Type::InetService];
    let sets = [
        Set::map(EXACT, [Type::Addr, Type::InetProto, Type::InetService], pod),
        Set::map(WILDCARD, [Type::InetProto, Type::InetService], pod),
        Set::new(HAIRPIN, [Type::Addr, Type::Addr]),
        Set::new(MASQ_ALL, [Type::Addr, Type::InetProto, Type::InetService]),
        Set::new(NO_LOOPBACK, [Type::InetProto, Type::InetService]),
        Set::new(OWNERS, [Type::Addr, Type::Addr]),
    ];
    let with_entries = |set: Set| {
        let own = entries.iter().filter(|entry| entry.set == set.name).map(|entry| entry.element.clone());
        let own: Vec<Element> = own.collect();
        set.with_elements(own)
    };
    Table::new(realm.family, &realm.table, Some(LAYOUT), sets.map(with_entries).into(), chains(realm))
}

fn chains(realm: &Realm) -> Vec<Chain> {
    let Realm { family, conditions, .. } = realm;
    let exact = Statement::dnat_map([Field::Daddr, Field::L4proto, Field::ThDport], EXACT);
    let wildcard = Statement::dnat_map([Field::L4proto, Field::ThDport], WILDCARD);
    // Where the answer would not arrive, a client is better refused at once.
    let not_here = [
        Statement::DaddrIn(loopback(*family)),
        Statement::lookup([Field::L4proto, Field::ThDport], NO_LOOPBACK),
        Statement::Return,
    ];
    let hostports = Chain::new("hostports").with_rule([exact]).with_rule(not_here).with_rule([wildcard]);
    let local = || conditions.iter().cloned().chain([Statement::FibDaddrTypeLocal, Statement::jump("hostports")]);
    let before = |base: Base| Base { priority: base.priority - i32::from(!conditions.is_empty()), ..base };
    let prerouting = Chain::base("prerouting", before(Base::dstnat())).with_rule(local().collect::<Rule>());
    let output = Chain::base("output", before(Base::dstnat_output())).with_rule(local().collect::<Rule>());
    let postrouting = Chain::base("postrouting", Base::srcnat())
        .with_rule([Statement::lookup([Field::Saddr, Field::Daddr], HAIRPIN), Statement::Masquerade])
        .with_rule([
            Statement::CtStatusDnat,
            Statement::lookup([Field::Daddr, Field::L4proto, Field::ThDport], MASQ_ALL),
            Statement::Masquerade,
        ])
        .with_rule(from_loopback(*family));
    match family {
        Family::Ip => {
            vec![hostports, prerouting, output, postrouting, guard()]
        }
        // No guard: the kernel lets ::1 in by no interface but lo, whatever its routes say (ip6_rcv_core).
        Family::Ip6 => vec![hostports, prerouting, output, postrouting],
    }
}

/// The addresses that mean this very host.
pub(crate) fn loopback(family: Family) -> IpNetwork {
    match family {
        Family::Ip => LOOPBACK.into(),
        Family::Ip6 => IpNetwork::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

/// A pod cannot answer 127.0.0.1, nor ::1. What somebody else translated is left alone, hence the look-up: it holds for
/// packets to our pods only.
fn from_loopback(family: Family) -> [Statement; 4] {
    [
        Statement::SaddrIn(loopback(family)),
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
