//! Listening sockets of a network namespace, by inet_diag (linux/inet_diag.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nft_model::{Family, Proto};
use nix::errno::Errno;

use crate::Error;
use crate::netlink::{Failure, RawSocket};

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_SKV6ONLY`.
const V6ONLY: u16 = 11;
/// States of net/tcp_states.h, as bits. A UDP socket that only receives is "closed", a connected one "established".
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;
/// Bytes of an `inet_diag_msg`.
const MESSAGE_LEN: usize = 72;

/// A socket that takes what comes to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// TCP, UDP or SCTP.
    pub protocol: Proto,
    /// Where; 0.0.0.0 and `::` mean every address.
    pub address: SocketAddr,
    /// Whether a socket of `::` takes IPv6 only.
    pub v6only: bool,
    /// As `/proc/PID/fd` shows it: `socket:[INODE]`.
    pub inode: u32,
}

impl Listener {
    /// Whether it takes packets of a family.
    #[must_use]
    pub fn takes(&self, family: Family) -> bool {
        match self.address.ip() {
            IpAddr::V6(address) if address.is_unspecified() && !self.v6only => true,
            address => Family::of(address) == family,
        }
    }
}

/// All sockets of the calling thread's network namespace that listen on a port. None as well where the kernel has no
/// inet_diag for the protocol. Of more than some thirty that listen on the very port some may be left out, never all, while
/// others of them are closed: the kernel continues by the place in a hash bucket, and says nothing of it.
///
/// # Errors
/// [`Error::Listeners`].
pub fn listeners(protocol: Proto, port: u16) -> Result<Vec<Listener>, Error> {
    let failed = |source| Error::Listeners { protocol, port, source };
    let mut socket = RawSocket::open(NETLINK_SOCK_DIAG).map_err(failed)?;
    let mut found = Vec::new();
    for family in [libc_family(Family::Ip), libc_family(Family::Ip6)] {
        let each = |message: &[u8]| found.extend(parse(protocol, message).filter(|there| there.address.port() == port));
        match socket.dump(BY_FAMILY, &request(family, protocol, port), each) {
            Ok(()) | Err(Failure::Refused(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)) => {}
            Err(failure) => return Err(failed(io::Error::from(failure))),
        }
    }
    Ok(found)
}

/// `AF_INET` and `AF_INET6`.
fn libc_family(family: Family) -> u8 {
    match family {
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

/// An `inet_diag_req_v2`: the kernel chooses by state and source port.
fn request(family: u8, protocol: Proto, port: u16) -> Vec<u8> {
    let states = if protocol == Proto::Udp { CLOSE } else { LISTEN };
    let mut bytes = vec![family, protocol.number(), 0, 0];
    bytes.extend(states.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    // The rest of the inet_diag_sockid: destination port, addresses, interface, cookie.
    bytes.resize(bytes.len() + 46, 0);
    bytes
}

fn parse(protocol: Proto, message: &[u8]) -> impl Iterator<Item = Listener> {
    let read = || {
        let head = message.get(..MESSAGE_LEN)?;
        let port = u16::from_be_bytes(head[4..6].try_into().ok()?);
        let address = match head[0] {
            2 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&head[8..12]).ok()?)),
            10 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&head[8..24]).ok()?)),
            _ => return None,
        };
        let inode = u32::from_ne_bytes(head[68..72].try_into().ok()?);
        let mut attributes = NlasIterator::new(&message[MESSAGE_LEN..]).map_while(Result::ok);
        let v6only = attributes.any(|attribute| attribute.kind() == V6ONLY && attribute.value().first() == Some(&1));
        Some(Listener { protocol, address: SocketAddr::new(address, port), v6only, inode })
    };
    read().into_iter()
}
