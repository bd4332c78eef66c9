//! SCTP by hand: the first two packets of an association (RFC 9260, 5.1), over raw sockets.
//!
//! A node forwards SCTP without having SCTP sockets itself, so none are needed to ask for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::net::inside;
use crate::verdict::{Finding, Verdict};

/// The protocol's number (IANA).
const NUMBER: i32 = 132;
/// INIT, and the answer to it.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// The tag that the asker wants its answers to carry.
const ASKER: u32 = 0x0c0f_feed;
/// The asker's port.
const PORT: u16 = 33_033;

/// What is looked at of a packet: ports, the tag it carries, the chunk, and the tag that the chunk asks for.
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    chunk: u8,
    wanted: u32,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.chunk, 0, 0, 20]);
        bytes.extend(self.wanted.to_be_bytes());
        // A window of 64 KiB, one stream each way, the first number.
        bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let sum = checksum(&bytes).to_le_bytes();
        for (place, byte) in bytes.iter_mut().skip(8).zip(sum) {
            *place = byte;
        }
        bytes
    }

    /// `None` if it is cut short, or its checksum is wrong.
    fn read(bytes: &[u8]) -> Option<Self> {
        let two = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let four = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let blank = [bytes.get(..8)?, &[0; 4], bytes.get(12..)?].concat();
        let is_whole = bytes.get(8..12)? == checksum(&blank).to_le_bytes();
        let packet = Self { from: two(0)?, to: two(2)?, tag: four(4)?, chunk: *bytes.get(12)?, wanted: four(16)? };
        is_whole.then_some(packet)
    }
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn socket(domain: Domain) -> Verdict<Socket> {
    let trouble = |error| Finding::Trouble(format!("cannot open a raw socket for SCTP: {error}"));
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(NUMBER))).map_err(trouble)?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(trouble)?;
    Ok(socket)
}

/// The next packet, with its sender, if one comes within a moment.
fn next(socket: &Socket) -> Option<(Packet, IpAddr)> {
    let mut bytes = [0; 2048];
    let (count, sender) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut bytes).ok()?;
    let sender = sender?;
    let v4 = sender.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    let sender = v4.or_else(|| sender.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))?;
    // Over IPv4 the header comes with it, of as many words as the low half of its first byte says.
    let header = if sender.is_ipv4() { usize::from(bytes[0] & 0xf) * 4 } else { 0 };
    Some((Packet::read(bytes.get(header..count)?)?, sender))
}

/// Who answers every INIT to one port, until it is dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens in this namespace, over IPv4 and IPv6.
    ///
    /// # Errors
    /// Trouble if the namespace cannot be entered or a socket not be had.
    pub fn start(netns: &str, port: u16) -> Verdict<Self> {
        let sockets = inside(Some(netns), || Ok([socket(Domain::IPV4)?, socket(Domain::IPV6)?]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |socket| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || answer(&socket, port, &stop))
        };
        Ok(Self { threads: sockets.into_iter().map(spawn).collect(), stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &Socket, port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some((init, asker)) = next(socket)
            && (init.chunk, init.to) == (INIT, port)
        {
            let answer = Packet { from: port, to: init.from, tag: init.wanted, chunk: INIT_ACK, wanted: 7 };
            let _ = socket.send_to(&answer.bytes(), &SocketAddr::new(asker, 0).into());
        }
    }
}

/// Asks for an association from this namespace; whether the answer comes, from where it was asked. Packets may be lost, so
/// the question is repeated.
///
/// # Errors
/// Trouble if the namespace cannot be entered or a socket not be had.
pub fn is_answered(netns: &str, to: SocketAddr, patience: Duration) -> Verdict<bool> {
    inside(Some(netns), || {
        let socket = socket(if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 })?;
        let init = Packet { from: PORT, to: to.port(), tag: 0, chunk: INIT, wanted: ASKER };
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let _ = socket.send_to(&init.bytes(), &SocketAddr::new(to.ip(), 0).into());
            let pause = Instant::now() + Duration::from_millis(200);
            while Instant::now() < pause {
                if let Some((packet, from)) = next(&socket)
                    && (packet.chunk, packet.tag, packet.to) == (INIT_ACK, ASKER, PORT)
                    && (from, packet.from) == (to.ip(), to.port())
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    })
}

/// Whether the kernel lets a process here speak SCTP by hand at all: two ends of the loopback interface must understand each
/// other.
///
/// # Errors
/// Trouble if the namespace cannot be entered or a socket not be had.
pub fn works_in(netns: &str, port: u16) -> Verdict<bool> {
    let v6 = is_answered(netns, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), super::net::PATIENCE)?;
    Ok(v6 && is_answered(netns, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), super::net::PATIENCE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        // The check value of CRC-32/ISCSI.
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_packet_is_read_as_it_was_written() {
        let bytes = Packet { from: 1, to: 2, tag: 3, chunk: INIT, wanted: 4 }.bytes();
        let read = Packet::read(&bytes).map(|read| (read.from, read.to, read.tag, read.chunk, read.wanted));
        assert_eq!(read, Some((1, 2, 3, INIT, 4)));
        let mut broken = bytes;
        broken[3] ^= 1;
        assert!(Packet::read(&broken).is_none());
    }
}
