//! The netlink socket: requests out, replies in.
//!
//! The kernel handles a request inside `send`, so its answer is there when `send` returns and nothing here ever waits.

mod dump;

use std::io;
use std::ops::Range;

use netlink_packet_core::{DecodeError, NetlinkBuffer};
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nft_model::Family;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, setsockopt, sockopt};

use super::message::{Content, Reply, append};
use crate::{Error, closing};

/// Larger than any message of a dump (32 KiB, `netlink_dump` of net/netlink/af_netlink.c).
const RECEIVE_LEN: usize = 64 * 1024;
/// Bytes of the socket's buffer that the kernel does not let one message have (`netlink_sendmsg`).
const SEND_RESERVE: usize = 32;

/// A netfilter socket, connected to the kernel.
#[derive(Debug)]
pub(super) struct NfSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    /// The largest message that can be sent; zero until asked for.
    send_limit: usize,
    /// A dump that was given up before its end. Its rest would come before every other answer.
    unfinished: Option<u32>,
}

/// A step of using the socket failed.
fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::NftSocket { step, source }
}

impl NfSocket {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: connected()?, buffer: vec![0; RECEIVE_LEN], sequence: 1, send_limit: 0, unfinished: None })
    }

    /// Goes on with another socket if there is a rest of a dump: it takes the longer to read the more there is.
    fn leave_unfinished(&mut self) -> Result<(), Error> {
        if self.unfinished.is_some() {
            let left = std::mem::replace(&mut self.socket, connected()?);
            closing::keep_if_put_off(&left);
            (self.send_limit, self.unfinished) = (0, None);
        }
        Ok(())
    }

    /// A number no earlier request of this socket has, and the `count - 1` after it.
    pub(super) fn sequence(&mut self, count: usize) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // Zero is what the kernel's own messages have.
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 1;
        }
        let first = self.sequence;
        self.sequence += count;
        first
    }

    /// Sends what must arrive as one message, a batch: the send buffer is made large enough.
    pub(super) fn send_whole(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.leave_unfinished()?;
        if bytes.len() > self.send_limit {
            self.send_limit = self.grow(bytes.len())?;
        }
        if bytes.len() > self.send_limit {
            return Err(Error::NftTooLarge { bytes: bytes.len(), limit: self.send_limit });
        }
        self.send(bytes)
    }

    /// Asks for a send buffer that `bytes` fit into, and gives what the kernel allowed.
    fn grow(&self, bytes: usize) -> Result<usize, Error> {
        let granted = || getsockopt(&self.socket, sockopt::SndBuf).map_err(io::Error::from);
        let enough = |size: usize| size.saturating_sub(SEND_RESERVE);
        let before = granted().map_err(failed("ask for the buffer of"))?;
        if enough(before) >= bytes {
            return Ok(enough(before));
        }
        // Only root of the first user namespace may go beyond net.core.wmem_max; the other request stops there.
        let wanted = bytes + SEND_RESERVE;
        if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
        }
        granted().map(enough).map_err(failed("ask for the buffer of"))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed("send to")(source)),
            }
        }
    }

    /// The replies in the next message that answer one of these requests; `None` when there is no message.
    pub(super) fn receive(&mut self, requests: Range<u32>) -> Result<Option<Vec<Reply>>, Error> {
        self.receive_with(requests, Reply::parse)
    }

    /// The same, each read by `parse`.
    fn receive_with<T>(
        &mut self,
        requests: Range<u32>,
        parse: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, Error> {
        let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).bits();
        let received = loop {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), flags) {
                Ok(received) => break received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(source) => return Err(failed("receive from")(source)),
            }
        };
        let Some(mut rest) = self.buffer.get(..received) else {
            return Err(failed("receive a whole message from")(Errno::EMSGSIZE.into()));
        };
        let mut replies = Vec::new();
        while !rest.is_empty() {
            let header = NetlinkBuffer::new_checked(rest).map_err(Error::NftDecode)?;
            let len = header.length() as usize;
            // What is left of an answer nobody waits for any more is not worth taking apart.
            if requests.contains(&header.sequence_number()) {
                replies.push(parse(&rest[..len]).map_err(Error::NftDecode)?);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Some(replies))
    }

    /// One question with one answer; `None` when the kernel knows nothing of that name (ENOENT).
    pub(super) fn get(
        &mut self,
        what: &str,
        family: Option<Family>,
        request: impl Into<NetfilterMessageInner>,
    ) -> Result<Option<Content>, Error> {
        let sequence = self.ask(family, request, 0)?;
        loop {
            let replies = self.receive(sequence..sequence + 1)?.ok_or_else(|| silent(what))?;
            if let Some(reply) = replies.into_iter().next() {
                return match reply.content {
                    Content::Error { errno: Errno::ENOENT, .. } => Ok(None),
                    Content::Error { errno, .. } => Err(unreadable(what, errno)),
                    Content::Done { .. } | Content::Ack => Err(silent(what)),
                    content => Ok(Some(content)),
                };
            }
        }
    }

    fn ask(
        &mut self,
        family: Option<Family>,
        request: impl Into<NetfilterMessageInner>,
        flags: u16,
    ) -> Result<u32, Error> {
        self.leave_unfinished()?;
        let sequence = self.sequence(1);
        let mut bytes = Vec::new();
        append(&mut bytes, family, 0, request, flags, sequence);
        self.send(&bytes)?;
        Ok(sequence)
    }
}

/// A netfilter socket, connected to the kernel.
fn connected() -> Result<Socket, Error> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
    socket.bind_auto().map_err(failed("bind"))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
    // Errors name the bad attribute, and do not repeat the request. Kernels before 4.12 know neither and do without.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    Ok(socket)
}

impl Drop for NfSocket {
    fn drop(&mut self) {
        closing::keep_if_put_off(&self.socket);
    }
}

fn silent(what: &str) -> Error {
    Error::NftSilent { what: what.to_owned() }
}

fn unreadable(what: &str, errno: Errno) -> Error {
    Error::NftRead { what: what.to_owned(), source: errno.into() }
}
