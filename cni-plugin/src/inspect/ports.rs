//! Host ports, as `podwire-portmap` has them: from its maps in nf_tables, and from the comments of its rules in iptables.

use std::fmt;
use std::net::IpAddr;

use kernel::iptables::{Flavour, marks};
use kernel::nft::Nft;
use nft_model::{Element, Family, Proto, Value};
use serde_json::json;

use crate::Error;
use crate::masquerade::iptables::program;

/// How the tables of `podwire-portmap` begin: one for each family, and one more for each network with conditions.
const TABLES: &str = "podwire-hostport";
/// Its maps: from (address, protocol, port) and from (protocol, port) to (pod, port).
const MAPS: [&str; 2] = ["exact", "wildcard"];

/// Its chains in table nat of iptables, for the same.
const CHAINS: [&str; 2] = ["PODWIRE-EXACT", "PODWIRE-WILDCARD"];

/// One port of the node that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address; `None` for all of the pod's family.
    pub address: Option<IpAddr>,
    /// The node's port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Where it leads.
    pub pod: (IpAddr, u16),
    /// What lists it: `nft`, or a program of iptables.
    pub tool: String,
    /// The table that has it, as that names it, in iptables with the chain.
    pub table: String,
}

impl HostPort {
    fn of(element: &Element, tool: &str, table: String) -> Option<Self> {
        let [Value::Addr(ip), Value::Port(pod_port)] = element.data.as_slice() else { return None };
        let (address, protocol, port) = match element.key.as_slice() {
            [Value::Addr(address), Value::Proto(protocol), Value::Port(port)] => (Some(*address), protocol, *port),
            [Value::Proto(protocol), Value::Port(port)] => (None, protocol, *port),
            _ => return None,
        };
        Some(Self {
            address,
            port,
            protocol: protocol.to_string(),
            pod: (*ip, *pod_port),
            tool: tool.to_owned(),
            table,
        })
    }

    /// For programs.
    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "hostIP": self.address, "hostPort": self.port, "protocol": self.protocol,
            "podIP": self.pod.0, "containerPort": self.pod.1, "tool": self.tool, "table": self.table,
        })
    }
}

/// `8086/tcp`, `192.168.50.1:8086/tcp`, `[fd50::1]:8086/tcp`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address @ IpAddr::V6(_)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// All of them.
pub(super) fn all() -> Result<Vec<HostPort>, Error> {
    let mut found = of_nftables()?;
    for family in Family::ALL {
        for flavour in Flavour::ALL {
            found.extend(of_iptables(family, flavour)?);
        }
    }
    Ok(found)
}

/// A rule has two comments: whose it is, and what would be the element, and under which conditions.
fn of_iptables(family: Family, flavour: Flavour) -> Result<Vec<HostPort>, Error> {
    let tool = format!("{}-{flavour}", program(family));
    let marks = marks(family, flavour, "nat", &CHAINS).map_err(unreadable)?;
    let rules = marks.iter().flat_map(|(chain, rules)| rules.iter().map(move |comments| (chain, comments)));
    Ok(rules
        .filter_map(|(chain, comments)| {
            let [_, text] = comments.as_slice() else { return None };
            HostPort::of(&element(text)?, &tool, format!("nat {chain}"))
        })
        .collect())
}

/// `192.168.50.1 . tcp . 8086 : 10.244.1.5 . 80`, and what conditions follow it.
fn element(text: &str) -> Option<Element> {
    let text = text.split_once(" if ").map_or(text, |(text, _)| text);
    let values = |text: &str| text.split(" . ").map(value).collect::<Option<Vec<Value>>>();
    let (key, data) = text.split_once(" : ")?;
    Some(Element::map(values(key)?, values(data)?))
}

fn value(text: &str) -> Option<Value> {
    let protocol = Proto::ALL.into_iter().find(|protocol| protocol.to_string() == text).map(Value::Proto);
    let port = || text.parse().ok().map(Value::Port);
    protocol.or_else(port).or_else(|| text.parse().ok().map(Value::Addr))
}

fn unreadable(source: kernel::Error) -> Error {
    Error::Observe { what: "the host ports".to_owned(), source }
}

/// In the order of family, table and key.
fn of_nftables() -> Result<Vec<HostPort>, Error> {
    let nft = Nft::open_if_there().map_err(|source| Error::Netlink { place: "the node's namespace", source })?;
    let Some(mut nft) = nft else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for family in Family::ALL {
        for table in nft.tables(family).map_err(unreadable)? {
            if !table.name.starts_with(TABLES) {
                continue;
            }
            let whole = nft.read_table(family, &table.name).map_err(unreadable)?;
            let maps = whole.iter().flat_map(nft_model::Table::sets).filter(|set| MAPS.contains(&set.name.as_str()));
            let name = format!("{family} {}", table.name);
            found.extend(
                maps.flat_map(|map| &map.elements).filter_map(|element| HostPort::of(element, "nft", name.clone())),
            );
        }
    }
    Ok(found)
}
