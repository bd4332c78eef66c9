//! What a rule is made of.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::field::Field;
use crate::value::{Family, Proto, Text, concatenation};

/// A match or an action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    /// `fib daddr type local`: the destination is an address of this host.
    FibDaddrTypeLocal,
    /// `ip saddr NETWORK`.
    SaddrIn(IpNetwork),
    /// `ip saddr != NETWORK`.
    SaddrNotIn(IpNetwork),
    /// `ip daddr NETWORK`.
    DaddrIn(IpNetwork),
    /// `ip daddr != NETWORK`.
    DaddrNotIn(IpNetwork),
    /// `meta l4proto PROTO`.
    L4proto(Proto),
    /// `FIELDS @SET`, or `FIELDS != @SET`.
    Lookup {
        /// The fields of the packet that make the key.
        fields: Vec<Field>,
        /// The set that is asked.
        set: String,
        /// Match when the set does not hold the key.
        negate: bool,
    },
    /// `icmpv6 type TYPE`, by its number (RFC 4443, RFC 4861). Only in tables of family `ip6`.
    Icmpv6Type(u8),
    /// `ct status dnat`: the connection's destination was translated.
    CtStatusDnat,
    /// `ct state invalid`: connection tracking does not know what to make of the packet.
    CtStateInvalid,
    /// `iifname "NAME"`: the interface the packet arrived by.
    Iifname(String),
    /// `iifname != "NAME"`.
    IifnameNot(String),
    /// `oifname "NAME"`: the interface the packet leaves by.
    Oifname(String),
    /// `oifname != "NAME"`.
    OifnameNot(String),
    /// `meta mark & BITS == BITS`: the packet's mark has all these bits.
    MarkHas(u32),
    /// `meta mark set meta mark | BITS`: gives the packet's mark these bits.
    MarkSet(u32),
    /// `counter`. What it has counted is no part of the rule.
    Counter,
    /// `dnat to FIELDS map @MAP`: translates the destination to what the map holds for the key; if it holds nothing,
    /// the next rule's turn comes.
    DnatMap {
        /// The fields of the packet that make the key.
        fields: Vec<Field>,
        /// A map to an address and a port.
        map: String,
    },
    /// `masquerade`: translates the source to an address of the interface the packet leaves by.
    Masquerade,
    /// `snat to ADDRESS`: translates the source to this address.
    Snat(IpAddr),
    /// `jump CHAIN`: goes on in that chain, and comes back.
    Jump(String),
    /// `goto CHAIN`: goes on in that chain, and does not come back.
    Goto(String),
    /// `return`: goes back to the chain that jumped here.
    Return,
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// Something this crate does not know, described. Only found in what a kernel holds, never in a checked
    /// [`Table`](crate::Table).
    Unknown(String),
}

impl Statement {
    /// A [`Statement::Lookup`] that matches what the set holds.
    pub fn lookup(fields: impl Into<Vec<Field>>, set: impl Into<String>) -> Self {
        Self::Lookup { fields: fields.into(), set: set.into(), negate: false }
    }

    /// A [`Statement::Lookup`] that matches what the set does not hold.
    pub fn lookup_not(fields: impl Into<Vec<Field>>, set: impl Into<String>) -> Self {
        Self::Lookup { fields: fields.into(), set: set.into(), negate: true }
    }

    /// A [`Statement::DnatMap`].
    pub fn dnat_map(fields: impl Into<Vec<Field>>, map: impl Into<String>) -> Self {
        Self::DnatMap { fields: fields.into(), map: map.into() }
    }

    /// A [`Statement::Jump`].
    pub fn jump(chain: impl Into<String>) -> Self {
        Self::Jump(chain.into())
    }

    /// A [`Statement::Goto`].
    pub fn goto(chain: impl Into<String>) -> Self {
        Self::Goto(chain.into())
    }

    /// Drops the bits of a network that its prefix does not cover, so that equal matches are equal values.
    pub(crate) fn trim(&mut self) {
        if let Self::SaddrIn(network) | Self::SaddrNotIn(network) | Self::DaddrIn(network) | Self::DaddrNotIn(network) =
            self
        {
            *network = trimmed(*network);
        }
    }

    /// Whether nothing can follow it in a rule.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::DnatMap { .. }
                | Self::Masquerade
                | Self::Snat(_)
                | Self::Jump(_)
                | Self::Goto(_)
                | Self::Return
                | Self::Accept
                | Self::Drop
        )
    }

    /// The statement's text in a table of `family`.
    pub fn in_family(&self, family: Family) -> impl Display + '_ {
        Text(move |f: &mut Formatter<'_>| self.write(f, family))
    }

    fn write(&self, f: &mut Formatter<'_>, family: Family) -> fmt::Result {
        match self {
            Self::FibDaddrTypeLocal => f.write_str("fib daddr type local"),
            Self::SaddrIn(network) => write!(f, "{family} saddr {}", prefix(*network)),
            Self::SaddrNotIn(network) => write!(f, "{family} saddr != {}", prefix(*network)),
            Self::DaddrIn(network) => write!(f, "{family} daddr {}", prefix(*network)),
            Self::DaddrNotIn(network) => write!(f, "{family} daddr != {}", prefix(*network)),
            Self::L4proto(proto) => write!(f, "meta l4proto {proto}"),
            Self::Lookup { fields, set, negate } => {
                concatenation(f, fields.iter().map(|field| field.in_family(family)))?;
                let not = if *negate { " !=" } else { "" };
                write!(f, "{not} @{set}")
            }
            Self::Icmpv6Type(kind) => match NEIGHBOUR_DISCOVERY.iter().find(|(number, _)| number == kind) {
                Some((_, name)) => write!(f, "icmpv6 type {name}"),
                None => write!(f, "icmpv6 type {kind}"),
            },
            Self::CtStatusDnat => f.write_str("ct status dnat"),
            Self::CtStateInvalid => f.write_str("ct state invalid"),
            Self::Iifname(name) => write!(f, "iifname \"{name}\""),
            Self::IifnameNot(name) => write!(f, "iifname != \"{name}\""),
            Self::Oifname(name) => write!(f, "oifname \"{name}\""),
            Self::OifnameNot(name) => write!(f, "oifname != \"{name}\""),
            Self::MarkHas(bits) => write!(f, "meta mark & {bits:#010x} == {bits:#010x}"),
            Self::MarkSet(bits) => write!(f, "meta mark set meta mark | {bits:#010x}"),
            Self::Counter => f.write_str("counter"),
            Self::DnatMap { fields, map } => {
                write!(f, "dnat {family} to ")?;
                concatenation(f, fields.iter().map(|field| field.in_family(family)))?;
                write!(f, " map @{map}")
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Snat(address) => write!(f, "snat to {address}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Unknown(what) => write!(f, "unknown({what})"),
        }
    }
}

/// Names that nft(8) has for types of neighbour discovery (RFC 4861, section 4); it has more, for types nobody here asks
/// for.
const NEIGHBOUR_DISCOVERY: [(u8, &str); 5] = [
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
];

/// The network with its first address.
fn trimmed(network: IpNetwork) -> IpNetwork {
    match network {
        IpNetwork::V4(v4) => Ipv4Network::new_checked(v4.network(), v4.prefix()).map_or(network, IpNetwork::V4),
        IpNetwork::V6(v6) => Ipv6Network::new_checked(v6.network(), v6.prefix()).map_or(network, IpNetwork::V6),
    }
}

/// A network as nft lists it: its first address, and the length unless it is one address.
fn prefix(network: IpNetwork) -> impl Display {
    Text(move |f: &mut Formatter<'_>| {
        let whole = if network.is_ipv4() { 32 } else { 128 };
        match network.prefix() {
            length if length == whole => write!(f, "{}", network.ip()),
            length => write!(f, "{}/{length}", network.network()),
        }
    })
}
