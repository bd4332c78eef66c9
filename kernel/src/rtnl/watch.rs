//! What the kernel tells by itself: that a new IPv6 address is in force, and that routes went while they were listed.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;

/// linux/rtnetlink.h.
const RTM_DELROUTE: u16 = 25;

/// A second socket in the connection's namespace, because notifications that nobody reads would fill up
/// the receive buffer of the first. It is joined to a group only while somebody waits or looks.
pub(super) struct Watch(Mutex<TokioSocket>);

impl Watch {
    /// Needs a runtime around it, to which the socket then belongs.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self(Mutex::new(socket)))
    }

    /// Joins; from now on nothing that this group is told is missed.
    pub(super) fn join(&self, group: MulticastGroup) -> io::Result<Watching<'_>> {
        let group = group as u32;
        let watching = Watching { socket: self.0.lock().unwrap_or_else(PoisonError::into_inner), group };
        let socket = watching.socket.socket_ref();
        // Left over from the last time: what came after the announcement that was waited for.
        while socket.recv_from_full().is_ok() {}
        socket.add_membership(group)?;
        Ok(watching)
    }
}

/// Joined to a group until dropped.
pub(super) struct Watching<'a> {
    socket: MutexGuard<'a, TokioSocket>,
    group: u32,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        // It fails only where joining failed, too.
        drop(self.socket.socket_ref().drop_membership(self.group));
    }
}

impl Watching<'_> {
    /// Ends when the address is announced as usable.
    pub(super) async fn usable(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        loop {
            let datagram = match self.socket.recv_from_full().await {
                Ok((datagram, _)) => datagram,
                // Notifications were lost, e.g. because other addresses flap; ours may still come.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            };
            if messages(&datagram).filter_map(announced).any(|message| is_usable(&message, index, address)) {
                return Ok(());
            }
        }
    }

    /// Whether a route went since the group was joined, or since this was asked before. The kernel tells while it holds the lock
    /// under which it lists, so who asks after a list knows of all that the list may have met.
    pub(super) fn has_lost_a_route(&self) -> bool {
        let mut is_lost = false;
        loop {
            match self.socket.socket_ref().recv_from_full() {
                Ok((datagram, _)) => is_lost |= messages(&datagram).any(|(kind, _)| kind == RTM_DELROUTE),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_lost,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // More was told than the socket's buffer holds, whatever it was.
                Err(_) => is_lost = true,
            }
        }
    }
}

/// The messages of a datagram, each with its type.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = NetlinkBuffer::new_checked(datagram).ok()?;
        let (length, kind) = (usize::try_from(header.length()).ok()?, header.message_type());
        let (message, rest) = datagram.split_at_checked(length)?;
        // Messages begin at multiples of four bytes (NLMSG_ALIGN).
        datagram = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        Some((kind, message))
    })
}

/// An RTM_NEWADDR.
fn announced((_, message): (u16, &[u8])) -> Option<AddressMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => Some(address),
        _ => None,
    }
}

fn is_usable(message: &AddressMessage, index: u32, address: IpAddr) -> bool {
    let is_ours = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(found) | AddressAttribute::Local(found) if *found == address);
    let is_tentative = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Tentative));
    message.header.index == index
        && message.attributes.iter().any(is_ours)
        && !message.attributes.iter().any(is_tentative)
}
