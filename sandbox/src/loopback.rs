//! `ip link set lo up`, in the 32 bytes it takes: no netlink library may run between fork and exec.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
/// The loopback interface is the first of every network namespace (`loopback_net_init`, drivers/net/loopback.c).
const LOOPBACK_INDEX: i32 = 1;
const IFF_UP: u32 = 1;

/// Sets `lo` up in the calling thread's network namespace. Does not allocate.
///
/// # Errors
/// If the kernel refuses, or answers what is no acknowledgement.
pub fn set_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut reply = [0_u8; 256];
    let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    match acknowledged(reply.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw(-code)),
        None => Err(Errno::EBADMSG),
    }
}

/// `struct nlmsghdr` and `struct ifinfomsg` (netlink(7), rtnetlink(7)).
fn request() -> [u8; 32] {
    let mut message = [0_u8; 32];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}

/// The code of an NLMSG_ERROR: zero, or a negative errno.
fn acknowledged(reply: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(reply.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}
