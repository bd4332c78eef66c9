//! What the kernel knows of a flow, and how to choose among flows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NlaBuffer, NlasIterator};
use nft_model::{Family, Proto};

use super::message::{cta, ip, proto, tuple};

/// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const SEEN_REPLY: u32 = 1 << 1;
const DST_NAT: u32 = 1 << 5;
/// Bytes of the nfgenmsg that a message begins with.
const NFGENMSG_LEN: usize = 4;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where packets of this direction come from.
    pub src: SocketAddr,
    /// Where they go.
    pub dst: SocketAddr,
}

/// What has gone by. Only there where `net.netfilter.nf_conntrack_acct` was 1 when the flow began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of both directions.
    pub packets: u64,
    /// Bytes of both directions, IP headers included.
    pub bytes: u64,
}

/// A flow between ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
    /// As the first packet came, before any translation.
    pub original: Tuple,
    /// As answers come, before they are translated back.
    pub reply: Tuple,
    /// Whether its destination was translated.
    pub dnat: bool,
    /// Whether there was an answer.
    pub answered: bool,
    /// Both directions together.
    pub counters: Option<Counters>,
    pub(super) zone: Option<[u8; 2]>,
    pub(super) id: Option<[u8; 4]>,
}

/// Which flows are meant: those that have everything that is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, UDP or SCTP; `None` for all of them.
    pub protocol: Option<Proto>,
    /// The address that the first packet was for.
    pub original_dst: Option<IpAddr>,
    /// The port that it was for.
    pub original_port: Option<u16>,
    /// The address that answers come from: the pod's.
    pub reply_src: Option<IpAddr>,
    /// The port that they come from.
    pub reply_port: Option<u16>,
    /// Only flows whose destination was translated.
    pub dnat: bool,
}

impl Filter {
    /// Every flow of a family.
    #[must_use]
    pub const fn of(family: Family) -> Self {
        Self {
            family,
            protocol: None,
            original_dst: None,
            original_port: None,
            reply_src: None,
            reply_port: None,
            dnat: false,
        }
    }

    /// Whether the kernel understands all of it: it looks at ports only together with a protocol, and at IPv6 addresses
    /// the wrong way round.
    pub(super) fn is_the_kernels(&self) -> bool {
        let ports = self.original_port.or(self.reply_port).is_some();
        let addresses = self.original_dst.or(self.reply_src).is_some();
        (self.protocol.is_some() || !ports) && (self.family == Family::Ip || !addresses)
    }

    /// Whether a flow has everything that is said here.
    #[must_use]
    pub fn takes(&self, flow: &Flow) -> bool {
        let Flow { protocol, original, reply, dnat, .. } = flow;
        Family::of(original.dst.ip()) == self.family
            && self.protocol.is_none_or(|wanted| wanted == *protocol)
            && self.original_dst.is_none_or(|wanted| wanted == original.dst.ip())
            && self.original_port.is_none_or(|wanted| wanted == original.dst.port())
            && self.reply_src.is_none_or(|wanted| wanted == reply.src.ip())
            && self.reply_port.is_none_or(|wanted| wanted == reply.src.port())
            && (!self.dnat || *dnat)
    }
}

/// In the words of conntrack(8).
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Ip => "ipv4",
            Family::Ip6 => "ipv6",
        };
        write!(f, "-f {family}")?;
        if let Some(protocol) = self.protocol {
            write!(f, " -p {protocol}")?;
        }
        let words = [
            ("--orig-dst", self.original_dst.map(|address| address.to_string())),
            ("--orig-port-dst", self.original_port.map(|port| port.to_string())),
            ("--reply-src", self.reply_src.map(|address| address.to_string())),
            ("--reply-port-src", self.reply_port.map(|port| port.to_string())),
        ];
        for (option, value) in words {
            if let Some(value) = value {
                write!(f, " {option} {value}")?;
            }
        }
        if self.dnat { f.write_str(" --dst-nat") } else { Ok(()) }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, original, reply, .. } = self;
        write!(f, "{protocol} {} -> {} (answers {} -> {})", original.src, original.dst, reply.src, reply.dst)
    }
}

/// The flow in a message of the kernel's; none if it has no ports.
pub(super) fn parse(payload: &[u8]) -> impl Iterator<Item = Flow> {
    let read = || {
        let (mut original, mut reply, mut status, mut counters) = (None, None, 0, None::<Counters>);
        let (mut zone, mut id) = (None, None);
        for attribute in attributes(payload.get(NFGENMSG_LEN..)?) {
            let value = attribute.value();
            match attribute.kind() {
                cta::TUPLE_ORIG => original = parse_tuple(value),
                cta::TUPLE_REPLY => reply = parse_tuple(value),
                cta::STATUS => status = u32::from_be_bytes(value.try_into().ok()?),
                cta::ZONE => zone = value.try_into().ok(),
                cta::ID => id = value.try_into().ok(),
                cta::COUNTERS_ORIG | cta::COUNTERS_REPLY => {
                    let part = parse_counters(value);
                    let sum = counters.get_or_insert_default();
                    sum.packets = sum.packets.saturating_add(part.packets);
                    sum.bytes = sum.bytes.saturating_add(part.bytes);
                }
                _ => {}
            }
        }
        let ((protocol, original), (_, reply)) = (original?, reply?);
        let (dnat, answered) = (status & DST_NAT != 0, status & SEEN_REPLY != 0);
        Some(Flow { protocol, original, reply, dnat, answered, counters, zone, id })
    };
    read().into_iter()
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn parse_tuple(bytes: &[u8]) -> Option<(Proto, Tuple)> {
    let (mut addresses, mut ports, mut protocol) = ([None, None], [None, None], None);
    for part in attributes(bytes) {
        match part.kind() {
            tuple::IP => {
                for attribute in attributes(part.value()) {
                    match attribute.kind() {
                        ip::V4_SRC | ip::V6_SRC => addresses[0] = parse_address(attribute.value()),
                        ip::V4_DST | ip::V6_DST => addresses[1] = parse_address(attribute.value()),
                        _ => {}
                    }
                }
            }
            tuple::PROTO => {
                for attribute in attributes(part.value()) {
                    match attribute.kind() {
                        proto::NUM => protocol = attribute.value().first().copied().and_then(Proto::from_number),
                        proto::SRC_PORT => ports[0] = attribute.value().try_into().ok().map(u16::from_be_bytes),
                        proto::DST_PORT => ports[1] = attribute.value().try_into().ok().map(u16::from_be_bytes),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let end = |index: usize| Some(SocketAddr::new(addresses[index]?, ports[index]?));
    Some((protocol?, Tuple { src: end(0)?, dst: end(1)? }))
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn parse_counters(bytes: &[u8]) -> Counters {
    let mut counters = Counters::default();
    for attribute in attributes(bytes) {
        let number = attribute.value().try_into().map_or(0, u64::from_be_bytes);
        match attribute.kind() {
            cta::COUNTERS_PACKETS => counters.packets = number,
            cta::COUNTERS_BYTES => counters.bytes = number,
            _ => {}
        }
    }
    counters
}
