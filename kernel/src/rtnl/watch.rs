//! Waiting for the kernel to put a new IPv6 address into force.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;

const GROUP: u32 = MulticastGroup::Ipv6Ifaddr as u32;

/// A second socket in the connection's namespace, because notifications that nobody reads would fill up
/// the receive buffer of the first. It is joined to its group only while somebody waits.
pub(super) struct AddressWatch(Mutex<TokioSocket>);

impl AddressWatch {
    /// Needs a runtime around it, to which the socket then belongs.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self(Mutex::new(socket)))
    }

    /// Joins; from now on no RTM_NEWADDR is missed.
    pub(super) fn join(&self) -> io::Result<Watching<'_>> {
        let watching = Watching(self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let socket = watching.0.socket_ref();
        // Left over from the last time: what came after the announcement that was waited for.
        while socket.recv_from_full().is_ok() {}
        socket.add_membership(GROUP)?;
        Ok(watching)
    }
}

/// Joined to the group until dropped.
pub(super) struct Watching<'a>(MutexGuard<'a, TokioSocket>);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        // It fails only where joining failed, too.
        drop(self.0.socket_ref().drop_membership(GROUP));
    }
}

impl Watching<'_> {
    /// Ends when the address is announced as usable.
    pub(super) async fn usable(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        loop {
            let datagram = match self.0.recv_from_full().await {
                Ok((datagram, _)) => datagram,
                // Notifications were lost, e.g. because other addresses flap; ours may still come.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            };
            if announced(&datagram).any(|message| is_usable(&message, index, address)) {
                return Ok(());
            }
        }
    }
}

/// The RTM_NEWADDR messages of a datagram.
fn announced(mut datagram: &[u8]) -> impl Iterator<Item = AddressMessage> {
    std::iter::from_fn(move || {
        let length = usize::try_from(NetlinkBuffer::new_checked(datagram).ok()?.length()).ok()?;
        let (message, rest) = datagram.split_at_checked(length)?;
        // Messages begin at multiples of four bytes (NLMSG_ALIGN).
        datagram = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        Some(NetlinkMessage::<RouteNetlinkMessage>::deserialize(message))
    })
    .filter_map(|message| match message.ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => Some(address),
        _ => None,
    })
}

fn is_usable(message: &AddressMessage, index: u32, address: IpAddr) -> bool {
    let is_ours = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(found) | AddressAttribute::Local(found) if *found == address);
    let is_tentative = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Tentative));
    message.header.index == index
        && message.attributes.iter().any(is_ours)
        && !message.attributes.iter().any(is_tentative)
}
