//! What a proof stands on: take one of these away, and the proofs that name it fail, and no others.

use std::fmt;
use std::net::IpAddr;

use crate::manifest::Protocol;

/// One object that a chain made on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The node's route to a pod.
    HostRoute(Pod),
    /// The entry for a host port: with podwire-portmap, an element of the map `exact` if the port is bound to
    /// one address of the node, of `wildcard` if not.
    HostPort {
        /// The pod that the port leads to.
        pod: Pod,
        /// How.
        protocol: Protocol,
        /// `hostPort`.
        port: u16,
    },
    /// What brings a pod's answers back when the asker is the pod itself, or the node by 127.0.0.1: with
    /// podwire-portmap, an element of the set `hairpin`.
    Hairpin(Pod),
    /// What gives a pod's packets to the outside the node's address: with podwire, an element of the set
    /// `pods` in the table `podwire-masq-NETWORK`.
    Masquerade(Pod),
}

/// A pod, by one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The address of the family that the proof is about.
    pub address: IpAddr,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, if self.address.is_ipv4() { "IPv4" } else { "IPv6" })
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostRoute(pod) => write!(f, "host route to {pod}"),
            Self::HostPort { pod, protocol, port } => write!(f, "host port {port}/{protocol} of {pod}"),
            Self::Hairpin(pod) => write!(f, "hairpin of {pod}"),
            Self::Masquerade(pod) => write!(f, "masquerade of {pod}"),
        }
    }
}
