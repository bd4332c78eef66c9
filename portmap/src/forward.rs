//! A mapping as packets see it: what they are sent to, and where they go instead. Nothing here does any I/O.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use nft_model::{Family, Proto, Value};

use crate::config::Config;
use crate::mapping::HostIp;
use crate::ruleset::{EXACT, Entry, WILDCARD};

/// One host port of one family and where it leads, whatever the backend makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forward {
    /// The node's address; `None` for every address of `family`.
    pub host_ip: Option<IpAddr>,
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
    /// The port on the node.
    pub host_port: u16,
    /// The pod's address and port.
    pub pod: SocketAddr,
}

impl Forward {
    /// What an element of one of the two maps does; `None` for any other.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        let [Value::Addr(address), Value::Port(port)] = entry.element.data.as_slice() else { return None };
        let pod = SocketAddr::new(*address, *port);
        let (host_ip, protocol, host_port) = match (entry.set, entry.element.key.as_slice()) {
            (EXACT, [Value::Addr(host_ip), Value::Proto(protocol), Value::Port(port)]) => {
                (Some(*host_ip), *protocol, *port)
            }
            (WILDCARD, [Value::Proto(protocol), Value::Port(port)]) => (None, *protocol, *port),
            _ => return None,
        };
        Some(Self { host_ip, family: Family::of(*address), protocol, host_port, pod })
    }

    /// What all elements do.
    #[must_use]
    pub fn all(entries: &[Entry]) -> Vec<Self> {
        entries.iter().filter_map(Self::of).collect()
    }

    /// What a config asks for, in the order of its families and mappings.
    #[must_use]
    pub fn of_config(config: &Config) -> Vec<Self> {
        let of_family = |family| {
            let pod = config.pod.address(family);
            let wanted = config.mappings.iter().filter(move |mapping| mapping.host_ip.includes(family));
            wanted.filter_map(move |mapping| {
                let host_ip = match mapping.host_ip {
                    HostIp::Address(address) => Some(address),
                    HostIp::Any | HostIp::Wildcard(_) => None,
                };
                let pod = SocketAddr::new(pod?, mapping.container_port.get());
                Some(Self { host_ip, family, protocol: mapping.protocol, host_port: mapping.host_port.get(), pod })
            })
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    /// The node's side: `192.0.2.1:8080/tcp`, `[::]:53/udp`.
    #[must_use]
    pub fn host(&self) -> String {
        let any = match self.family {
            Family::Ip => IpAddr::from([0; 4]),
            Family::Ip6 => IpAddr::from([0; 16]),
        };
        format!("{}/{}", SocketAddr::new(self.host_ip.unwrap_or(any), self.host_port), self.protocol)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.host(), self.pod)
    }
}
