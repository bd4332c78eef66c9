//! Families, data types and the values of set elements.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use macaddr::MacAddr6;

/// The packets a table sees: nft(8)'s address families `ip` and `ip6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::Ip, Self::Ip6];

    /// The family an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }

    /// The family a network belongs to.
    #[must_use]
    pub fn of_network(network: IpNetwork) -> Self {
        Self::of(network.ip())
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

/// A data type of a set's key or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// An address of the table's family: `ipv4_addr` or `ipv6_addr`.
    Addr,
    /// An interface's name, `ifname`.
    Ifname,
    /// A hardware address, `ether_addr`.
    EtherAddr,
    /// A transport protocol, `inet_proto`.
    InetProto,
    /// A port, `inet_service`.
    InetService,
    /// A type this crate does not know, by nft's number for it. Only found in what a kernel holds, never in a checked
    /// [`Table`](crate::Table).
    Other(u32),
}

impl Type {
    /// The type's name in a table of `family`.
    pub fn in_family(self, family: Family) -> impl Display {
        Text(move |f: &mut Formatter<'_>| match (self, family) {
            (Self::Addr, Family::Ip) => f.write_str("ipv4_addr"),
            (Self::Addr, Family::Ip6) => f.write_str("ipv6_addr"),
            (Self::Ifname, _) => f.write_str("ifname"),
            (Self::EtherAddr, _) => f.write_str("ether_addr"),
            (Self::InetProto, _) => f.write_str("inet_proto"),
            (Self::InetService, _) => f.write_str("inet_service"),
            (Self::Other(number), _) => write!(f, "unknown({number})"),
        })
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Proto {
    /// Every protocol that has ports to map.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of an IANA number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|proto| proto.number() == number)
    }

    /// The protocol of a name, in any case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proto| proto.to_string().eq_ignore_ascii_case(name))
    }
}

impl Display for Proto {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One field of an element's key or data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An address.
    Addr(IpAddr),
    /// An interface's name.
    Ifname(String),
    /// A hardware address.
    Mac(MacAddr6),
    /// A transport protocol.
    Proto(Proto),
    /// A port.
    Port(u16),
    /// Bytes of a type or value this crate does not know. Only found in what a kernel holds, never in a checked
    /// [`Table`](crate::Table).
    Raw(Vec<u8>),
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Addr(address)
    }
}

impl From<MacAddr6> for Value {
    fn from(mac: MacAddr6) -> Self {
        Self::Mac(mac)
    }
}

impl From<Proto> for Value {
    fn from(proto: Proto) -> Self {
        Self::Proto(proto)
    }
}

impl From<u16> for Value {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(address) => write!(f, "{address}"),
            Self::Ifname(name) => write!(f, "\"{name}\""),
            Self::Mac(mac) => f.write_str(&mac.to_string().to_ascii_lowercase()),
            Self::Proto(proto) => write!(f, "{proto}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Raw(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// `a . b . c`, as nft writes a concatenation.
pub(crate) fn concatenation<T: Display>(f: &mut Formatter<'_>, parts: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            f.write_str(" . ")?;
        }
        write!(f, "{part}")?;
    }
    Ok(())
}

/// Text that needs to know more than the value itself, usually the family.
pub(crate) struct Text<F>(pub(crate) F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Text<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0(f)
    }
}
