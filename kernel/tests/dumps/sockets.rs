use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;
use sandbox::private_host;

use crate::missing;
use crate::parts::list;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
const PORT: u16 = 8086;

fn listener() -> OwnedFd {
    let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    setsockopt(&listener, sockopt::ReusePort, &true).expect("set");
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, PORT)).expect("bound");
    listen(&listener, Backlog::new(1).expect("small")).expect("listening");
    listener
}

fn inode(socket: &OwnedFd) -> u32 {
    fstat(socket).expect("open").st_ino.try_into().expect("inet_diag has 32 bits for it")
}

/// Only of sockets that listen on one port are there some: the kernel chooses by the port. None is so few that it matters which.
#[test]
fn lists_of_listeners_leave_some_out_of_which_nothing_is_said() {
    private_host(|| {
        let mut sockets: Vec<OwnedFd> = (0..200).map(|_| listener()).collect();
        let all: BTreeSet<u32> = sockets.iter().map(inode).collect();
        // An inet_diag_req_v2: IPv4, TCP, listening, that port.
        let mut request = vec![2, 6, 0, 0];
        request.extend((1_u32 << 10).to_ne_bytes());
        request.extend(PORT.to_be_bytes());
        request.resize(request.len() + 46, 0);
        let inode_in = |message: &[u8]| message.get(84..88)?.try_into().ok().map(u32::from_ne_bytes);
        let mut gone = BTreeSet::new();
        let listed = list(NETLINK_SOCK_DIAG, BY_FAMILY, &request, inode_in, |first| {
            gone.extend(&first[..5]);
            sockets.retain(|socket| !gone.contains(&inode(socket)));
        });
        let missing = missing(&all, &gone, listed.all);
        assert!(!missing.is_empty() && !listed.interrupted, "{missing:?} {}", listed.interrupted);
    });
}
