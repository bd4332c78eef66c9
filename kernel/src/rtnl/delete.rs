//! Deleting interfaces: at once, or without the wait.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::{Failure, Rtnl};
use crate::aside::{Aside, Verdict};
use crate::error::{Error, Result};

/// How long to leave the kernel alone between two looks. The first look usually waits for the mutex under which the
/// interface is taken out.
const PAUSE: Duration = Duration::from_micros(200);
/// `struct nlmsghdr`, in bytes.
const HEADER_LENGTH: usize = 16;

impl Rtnl {
    /// Deletes an interface, and with one end of a veth pair the other; `Ok(false)` if there is none.
    ///
    /// The kernel answers only after an RCU grace period, 10 to 50 ms; the interface is gone much earlier.
    ///
    /// # Errors
    /// [`Error::DeleteLink`].
    pub fn delete_link(&self, index: u32) -> Result<bool> {
        match self.change(deletion(index), 0) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::ENODEV]) => Ok(false),
            Err(source) => Err(Error::DeleteLink { index, source }),
        }
    }

    /// As [`Rtnl::delete_link`], but the grace period is left to a child process: returns as soon as the interface is
    /// gone, about 1 ms, with its addresses, routes and neighbours, and at both ends of a pair.
    ///
    /// The child also keeps the descriptors of this process open for `linger`: closing a netfilter socket within
    /// some 30 ms after something was deleted waits, too, and keeps others from committing meanwhile. So open first
    /// the socket by which something is to be removed from nf_tables. Whatever a descriptor holds, e.g. a file lock, the
    /// child holds too.
    ///
    /// Where the kernel gives no process, this one waits.
    ///
    /// # Errors
    /// [`Error::DeleteLink`]; [`Error::ReadLink`] if the interface could not be looked for.
    pub fn delete_link_aside(&self, index: u32, linger: Duration) -> Result<bool> {
        let request = bytes(deletion(index));
        let Some(child) = Aside::begin(linger, || send(&request)) else { return self.delete_link(index) };
        loop {
            if self.link_by_index(index)?.is_none() {
                return Ok(true);
            }
            match child.verdict(PAUSE) {
                Verdict::Pending => {}
                // Gone, whatever was just seen.
                Verdict::Done => return Ok(true),
                Verdict::Refused(Errno::ENODEV) => return Ok(false),
                Verdict::Refused(errno) => {
                    return Err(Error::DeleteLink { index, source: Failure::Refused { errno, text: None } });
                }
                Verdict::Died => return self.delete_link(index),
            }
        }
    }
}

fn deletion(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build())
}

fn bytes(request: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Sends a request by a socket of its own and waits for the acknowledgement. Allocates nothing.
fn send(request: &[u8]) -> nix::Result<()> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let socket = Socket::new(NETLINK_ROUTE).map_err(errno)?;
    socket.send_to(request, &SocketAddr::new(0, 0), 0).map_err(errno)?;
    let mut answer = [0; 1024];
    let length = socket.recv(&mut answer.as_mut_slice(), 0).map_err(errno)?;
    // `struct nlmsgerr` begins with the number, negative; zero is success (netlink(7)).
    let code = answer[..length].get(HEADER_LENGTH..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EBADMSG)?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(Errno::from_raw(code.saturating_abs())),
    }
}
