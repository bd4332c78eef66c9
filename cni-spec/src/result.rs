//! The Success result in its newest shape; `convert` writes and reads the older ones.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// What an ADD answers (spec section 5, "Success"). The shape is that of 1.1.0; `to_json` and `from_json`
/// convert from and to all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces made, host side included.
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    pub ips: Vec<IpConfig>,
    /// Routes made in the container.
    pub routes: Vec<Route>,
    /// Resolver settings for the container.
    pub dns: Dns,
}

/// `interfaces[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name.
    pub name: String,
    /// Hardware address, `aa:bb:cc:dd:ee:ff`.
    pub mac: Option<String>,
    /// In bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// Path of the namespace; `None` for the host side.
    pub sandbox: Option<String>,
    /// Path of a socket; since 1.1.0.
    pub socket_path: Option<String>,
    /// PCI id; since 1.1.0.
    pub pci_id: Option<String>,
}

/// `ips[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// The address with its prefix length; host bits are kept.
    pub address: IpNetwork,
    /// The default gateway of that subnet.
    pub gateway: Option<IpAddr>,
    /// Index into `interfaces`.
    pub interface: Option<usize>,
}

/// `routes[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; none means the address's gateway.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// TCP MSS to advertise, in bytes.
    pub advmss: Option<u32>,
    /// Metric; smaller wins.
    pub priority: Option<u32>,
    /// Routing table number.
    pub table: Option<u32>,
    /// Scope as in rtnetlink(7): 0 universe, 253 link, 254 host.
    pub scope: Option<u8>,
}

/// `dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search domains, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}
