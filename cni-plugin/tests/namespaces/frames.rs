//! Frames of a pod that says what it likes: bytes on the wire by a packet socket (packet(7)), past its own kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use kernel::netns::NetNs;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

pub const BROADCAST: [u8; 6] = [0xff; 6];

/// `ETH_P_*` of linux/if_ether.h.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// What a frame claims about who sends it, and to whom it goes.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub from_mac: [u8; 6],
    pub to_mac: [u8; 6],
    pub from: IpAddr,
    pub to: IpAddr,
}

/// A packet socket inside a pod.
pub struct Wire {
    socket: OwnedFd,
    ifindex: i32,
}

impl Wire {
    pub fn of(pod: &NetNs, ifname: &str) -> Self {
        let open = || {
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let index = nix::net::if_::if_nametoindex(ifname).unwrap();
            (socket, index)
        };
        let (socket, index) = pod.run(open).unwrap();
        Self { socket, ifindex: index.try_into().unwrap() }
    }

    #[expect(unsafe_code, reason = "no library fills a sockaddr_ll")]
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.try_into().unwrap();
        address.sll_ifindex = self.ifindex;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        // SAFETY: both pointers lead to values that live through the call, and the lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&address).cast(),
                length,
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", std::io::Error::last_os_error());
    }
}

fn ethernet(claim: &Claim, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&claim.to_mac[..], &claim.from_mac, &kind.to_be_bytes(), payload].concat()
}

fn ip(claim: &Claim, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (claim.from, claim.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, hop_limit, protocol, 0, 0]);
            header.extend(from.octets().iter().chain(&to.octets()));
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            ethernet(claim, IPV4, &[header, payload.to_vec()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, hop_limit]);
            header.extend(from.octets().iter().chain(&to.octets()));
            ethernet(claim, IPV6, &[header, payload.to_vec()].concat())
        }
        other => panic!("two families: {other:?}"),
    }
}

/// A datagram with a text in it.
pub fn udp(claim: &Claim, port: u16, text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len() + 8).unwrap();
    let mut datagram = [&4242_u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0]].concat();
    datagram.extend(text.as_bytes());
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (claim.from, claim.to) {
        let sum = checksum(&pseudo_header(from, to, 17, &datagram));
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    ip(claim, 17, 64, &datagram)
}

/// An unsolicited neighbour advertisement that overrides (RFC 4861, section 4.4): `target` is at `mac`.
pub fn advertisement(claim: &Claim, target: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(mac);
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (claim.from, claim.to) {
        let sum = checksum(&pseudo_header(from, to, 58, &message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    ip(claim, 58, 255, &message)
}

/// An ARP message (RFC 826): operation 1 asks, 2 answers.
pub fn arp(from_mac: [u8; 6], operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    message.extend(from_mac.iter().chain(&sender.octets()));
    message.extend(BROADCAST.iter().chain(&target.octets()));
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    ethernet(&Claim { from_mac, to_mac: BROADCAST, from: any, to: any }, ARP, &message)
}

fn pseudo_header(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&from.octets()[..], &to.octets(), &length.to_be_bytes(), &[0, 0, 0, protocol], payload].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
