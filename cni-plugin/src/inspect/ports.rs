//! Host ports, from the maps of `podwire-portmap` in nf_tables.

use std::fmt;
use std::net::IpAddr;

use kernel::nft::Nft;
use nft_model::{Element, Family, Value};
use serde_json::json;

use crate::Error;

/// How the tables of `podwire-portmap` begin: one for each family, and one more for each network with conditions.
const TABLES: &str = "podwire-hostport";
/// Its maps: from (address, protocol, port) and from (protocol, port) to (pod, port).
const MAPS: [&str; 2] = ["exact", "wildcard"];

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
    /// The table that has it, as nft(8) names it.
    pub table: String,
}

impl HostPort {
    fn of(element: &Element, table: String) -> Option<Self> {
        let [Value::Addr(ip), Value::Port(pod_port)] = element.data.as_slice() else { return None };
        let (address, protocol, port) = match element.key.as_slice() {
            [Value::Addr(address), Value::Proto(protocol), Value::Port(port)] => (Some(*address), protocol, *port),
            [Value::Proto(protocol), Value::Port(port)] => (None, protocol, *port),
            _ => return None,
        };
        Some(Self { address, port, protocol: protocol.to_string(), pod: (*ip, *pod_port), table })
    }

    /// For programs.
    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "hostIP": self.address, "hostPort": self.port, "protocol": self.protocol,
            "podIP": self.pod.0, "containerPort": self.pod.1, "table": self.table,
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

/// All of them, in the order of family, table and key.
pub(super) fn all() -> Result<Vec<HostPort>, Error> {
    let unreadable = |source| Error::Observe { what: "the host ports".to_owned(), source };
    let mut nft = Nft::open().map_err(|source| Error::Netlink { place: "the node's namespace", source })?;
    let mut found = Vec::new();
    for family in Family::ALL {
        for table in nft.tables(family).map_err(unreadable)? {
            if !table.name.starts_with(TABLES) {
                continue;
            }
            let whole = nft.read_table(family, &table.name).map_err(unreadable)?;
            let maps = whole.iter().flat_map(nft_model::Table::sets).filter(|set| MAPS.contains(&set.name.as_str()));
            let name = format!("{family} {}", table.name);
            found.extend(maps.flat_map(|map| &map.elements).filter_map(|element| HostPort::of(element, name.clone())));
        }
    }
    Ok(found)
}
