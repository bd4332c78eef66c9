//! What of a packet can be part of a key.

use std::fmt::{Display, Formatter};

use crate::value::{Family, Text, Type};

/// A field of a packet that is part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The interface the packet arrived by.
    Iifname,
    /// The source hardware address of an Ethernet frame; a packet that came in none does not match.
    EtherSaddr,
    /// The source address.
    Saddr,
    /// The destination address.
    Daddr,
    /// The transport protocol.
    L4proto,
    /// The destination port, of whatever transport protocol.
    ThDport,
}

impl Field {
    /// The type of the field as a part of a key.
    #[must_use]
    pub const fn value_type(self) -> Type {
        match self {
            Self::Iifname => Type::Ifname,
            Self::EtherSaddr => Type::EtherAddr,
            Self::Saddr | Self::Daddr => Type::Addr,
            Self::L4proto => Type::InetProto,
            Self::ThDport => Type::InetService,
        }
    }

    /// The field's text in a table of `family`.
    pub fn in_family(self, family: Family) -> impl Display {
        Text(move |f: &mut Formatter<'_>| match self {
            Self::Iifname => f.write_str("iifname"),
            Self::EtherSaddr => f.write_str("ether saddr"),
            Self::Saddr => write!(f, "{family} saddr"),
            Self::Daddr => write!(f, "{family} daddr"),
            Self::L4proto => f.write_str("meta l4proto"),
            Self::ThDport => f.write_str("th dport"),
        })
    }
}
