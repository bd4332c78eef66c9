//! Netlink requests and answers as bytes, for the families that no crate writes and reads completely.
//!
//! The kernel handles a request inside `send`, so its answer is there when `send` returns and nothing here ever waits.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::closing;

/// Larger than any message of a dump (32 KiB, `netlink_dump` of net/netlink/af_netlink.c).
const RECEIVE_LEN: usize = 64 * 1024;
/// Bytes of a netlink header.
const HEADER_LEN: usize = 16;
/// `NLMSG_ERROR` and `NLMSG_DONE` of linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A socket that is connected to the kernel.
#[derive(Debug)]
pub(crate) struct RawSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The socket could not be used.
    Io(io::Error),
    /// The kernel refused the request.
    Refused(Errno),
}

impl RawSocket {
    /// Opens a socket of a netlink protocol in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors do not repeat the request. Kernels before 4.3 do not know it and do without.
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, buffer: vec![0; RECEIVE_LEN], sequence: 0 })
    }

    /// Asks for a change and waits for the acknowledgement.
    pub(crate) fn change(&mut self, kind: u16, payload: &[u8]) -> Result<(), Failure> {
        self.request(kind, NLM_F_ACK, payload, |_| {})
    }

    /// Asks for many things; `each` gets the payload of each.
    pub(crate) fn dump(&mut self, kind: u16, payload: &[u8], each: impl FnMut(&[u8])) -> Result<(), Failure> {
        self.request(kind, NLM_F_DUMP, payload, each)
    }

    fn request(&mut self, kind: u16, flags: u16, payload: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = vec![0; HEADER_LEN];
        message.extend_from_slice(payload);
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut header = NetlinkBuffer::new(&mut message);
        header.set_length(length);
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | flags);
        header.set_sequence_number(self.sequence);
        self.send(&message).map_err(Failure::Io)?;
        loop {
            let received = self.receive().map_err(Failure::Io)?;
            let mut rest = self.buffer.get(..received).ok_or_else(|| Failure::Io(Errno::EMSGSIZE.into()))?;
            while !rest.is_empty() {
                let malformed = || Failure::Io(io::Error::from(io::ErrorKind::InvalidData));
                let header = NetlinkBuffer::new_checked(rest).map_err(|_| malformed())?;
                let message = rest.get(HEADER_LEN..header.length() as usize).ok_or_else(malformed)?;
                if header.sequence_number() == self.sequence {
                    match header.message_type() {
                        ERROR | DONE => return verdict(message),
                        _ => each(message),
                    }
                }
                rest = rest.get((header.length() as usize).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).bits();
        loop {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        closing::keep_if_put_off(&self.socket);
    }
}

/// The number that an acknowledgement, an error and the end of a dump begin with; none is success.
fn verdict(message: &[u8]) -> Result<(), Failure> {
    let code = message.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code < 0 { Err(Failure::Refused(Errno::from_raw(code.saturating_neg()))) } else { Ok(()) }
}

/// Appends an attribute.
pub(crate) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds attributes.
pub(crate) fn nested(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    /// `NLA_F_NESTED` of linux/netlink.h.
    const NESTED: u16 = 1 << 15;
    let mut inner = Vec::new();
    fill(&mut inner);
    attribute(bytes, kind | NESTED, &inner);
}
