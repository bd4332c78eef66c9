//! Requests of ctnetlink, as bytes. Numbers are those of linux/netfilter/nfnetlink_conntrack.h.

use std::net::{IpAddr, SocketAddr};

use nft_model::Family;

use super::flow::{Filter, Flow, Tuple};
use crate::netlink::{attribute, nested};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET` and `..._DELETE`.
pub(super) const GET: u16 = 1 << 8 | 1;
pub(super) const DELETE: u16 = 1 << 8 | 2;

/// Attributes of a flow.
pub(super) mod cta {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const COUNTERS_ORIG: u16 = 9;
    pub const COUNTERS_REPLY: u16 = 10;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;
    pub const STATUS_MASK: u16 = 26;
    pub const COUNTERS_PACKETS: u16 = 1;
    pub const COUNTERS_BYTES: u16 = 2;
    pub const FILTER_ORIG_FLAGS: u16 = 1;
    pub const FILTER_REPLY_FLAGS: u16 = 2;
}

/// Attributes of a tuple.
pub(super) mod tuple {
    pub const IP: u16 = 1;
    pub const PROTO: u16 = 2;
}

/// Attributes of a tuple's addresses.
pub(super) mod ip {
    pub const V4_SRC: u16 = 1;
    pub const V4_DST: u16 = 2;
    pub const V6_SRC: u16 = 3;
    pub const V6_DST: u16 = 4;
}

/// Attributes of a tuple's protocol.
pub(super) mod proto {
    pub const NUM: u16 = 1;
    pub const SRC_PORT: u16 = 2;
    pub const DST_PORT: u16 = 3;
}

/// Which parts of a tuple a filter looks at: `CTA_FILTER_F_*` of net/netfilter/nf_conntrack_netlink.c.
mod looks_at {
    pub const SRC: u32 = 1 << 0;
    pub const DST: u32 = 1 << 1;
    pub const PROTO: u32 = 1 << 3;
    pub const SRC_PORT: u32 = 1 << 4;
    pub const DST_PORT: u32 = 1 << 5;
}

/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const DST_NAT: u32 = 1 << 5;

/// The nfgenmsg. Deleting looks at the family only if the version is not 0 (`ctnetlink_del_conntrack`).
fn head(family: Family) -> Vec<u8> {
    let number = match family {
        Family::Ip => 2,
        Family::Ip6 => 10,
    };
    vec![number, 1, 0, 0]
}

/// Listing or deleting all that a filter takes.
pub(super) fn by_filter(filter: &Filter) -> Vec<u8> {
    let Filter { family, protocol, original_dst, original_port, reply_src, reply_port, dnat } = *filter;
    let mut bytes = head(family);
    let number = protocol.map(nft_model::Proto::number);
    // The kernel reads ports for a protocol only, and takes an IPv6 address for the one that is not wanted.
    let addresses = |address: Option<IpAddr>| address.filter(IpAddr::is_ipv4);
    let (original_dst, reply_src) = (addresses(original_dst), addresses(reply_src));
    let ports = |port: Option<u16>| port.filter(|_| number.is_some());
    part(&mut bytes, cta::TUPLE_ORIG, [None, original_dst], number, [None, ports(original_port)]);
    part(&mut bytes, cta::TUPLE_REPLY, [reply_src, None], number, [ports(reply_port), None]);
    let flag = |there: bool, flag: u32| if there { flag } else { 0 };
    let protocol = flag(number.is_some(), looks_at::PROTO);
    let original = protocol
        | flag(original_dst.is_some(), looks_at::DST)
        | flag(ports(original_port).is_some(), looks_at::DST_PORT);
    let reply =
        protocol | flag(reply_src.is_some(), looks_at::SRC) | flag(ports(reply_port).is_some(), looks_at::SRC_PORT);
    nested(&mut bytes, cta::FILTER, |bytes| {
        attribute(bytes, cta::FILTER_ORIG_FLAGS, &original.to_ne_bytes());
        attribute(bytes, cta::FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    });
    if dnat {
        attribute(&mut bytes, cta::STATUS, &DST_NAT.to_be_bytes());
        attribute(&mut bytes, cta::STATUS_MASK, &DST_NAT.to_be_bytes());
    }
    bytes
}

/// Deleting one flow.
pub(super) fn exact(flow: &Flow) -> Vec<u8> {
    let Tuple { src, dst } = flow.original;
    let mut bytes = head(Family::of(dst.ip()));
    let ends = [src, dst];
    let (addresses, ports) = (ends.map(|end| Some(end.ip())), ends.map(|end: SocketAddr| Some(end.port())));
    part(&mut bytes, cta::TUPLE_ORIG, addresses, Some(flow.protocol.number()), ports);
    if let Some(zone) = flow.zone {
        attribute(&mut bytes, cta::ZONE, &zone);
    }
    if let Some(id) = flow.id {
        attribute(&mut bytes, cta::ID, &id);
    }
    bytes
}

/// A tuple, as far as it is known. Source comes first.
fn part(bytes: &mut Vec<u8>, kind: u16, addresses: [Option<IpAddr>; 2], protocol: Option<u8>, ports: [Option<u16>; 2]) {
    nested(bytes, kind, |bytes| {
        nested(bytes, tuple::IP, |bytes| {
            for (address, [v4, v6]) in addresses.into_iter().zip([[ip::V4_SRC, ip::V6_SRC], [ip::V4_DST, ip::V6_DST]]) {
                match address {
                    Some(IpAddr::V4(address)) => attribute(bytes, v4, &address.octets()),
                    Some(IpAddr::V6(address)) => attribute(bytes, v6, &address.octets()),
                    None => {}
                }
            }
        });
        if let Some(protocol) = protocol {
            nested(bytes, tuple::PROTO, |bytes| {
                attribute(bytes, proto::NUM, &[protocol]);
                for (port, kind) in ports.into_iter().zip([proto::SRC_PORT, proto::DST_PORT]) {
                    if let Some(port) = port {
                        attribute(bytes, kind, &port.to_be_bytes());
                    }
                }
            });
        }
    });
}
