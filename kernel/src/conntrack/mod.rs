//! Connection tracking: which flows the kernel knows, and the end of some of them.
//!
//! A flow that is deleted is only forgotten: nobody is told, and its next packet is looked at like the first of a new
//! one. So a rule that has changed since then decides about it.
//!
//! # Which kernel does what
//!
//! Choosing by a part of a tuple (`CTA_FILTER`) is done by the kernel when it lists since Linux 5.8 (commit cb8aa9a3affb),
//! and when it deletes since 6.12 (1ef7f50ccc6e); by the state (`CTA_STATUS_MASK`) when it lists since 5.15. An older
//! kernel lists what was not asked for as well, or refuses to delete with EOPNOTSUPP or EINVAL. So what is listed is
//! looked at again here, and deleting falls back to listing and deleting each flow by itself. No kernel deletes more
//! than it is asked to: a request always names a tuple, and one that knows no filter takes that for a whole one.
//!
//! IPv6 addresses are never given to the kernel to choose by: it takes the flows of all *other* addresses
//! (`ctnetlink_filter_match_tuple` has the comparison the wrong way round, from 5.8 to 6.18 at least). Protocol and
//! ports are, and the rest is done here.

mod flow;
mod message;

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

pub use self::flow::{Counters, Filter, Flow, Tuple};
use crate::Error;
use crate::netlink::{Failure, RawSocket};

/// A connection to the connection tracking of the network namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    socket: RawSocket,
    /// Whether this kernel deletes by a filter; unknown until it was asked to.
    deletes_by_filter: bool,
}

impl Conntrack {
    /// Connects to connection tracking of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::ConntrackSocket`] when the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let socket = RawSocket::open(NETLINK_NETFILTER).map_err(Error::ConntrackSocket)?;
        Ok(Self { socket, deletes_by_filter: true })
    }

    /// The flows that `filter` takes. None as well where nothing has ever been tracked. One may be there twice: the kernel
    /// continues behind a certain flow, and with its whole hash bucket if that has gone.
    ///
    /// # Errors
    /// [`Error::ConntrackList`].
    pub fn flows(&mut self, filter: &Filter) -> Result<Vec<Flow>, Error> {
        let mut flows = Vec::new();
        let request = message::by_filter(filter);
        let result = self.socket.dump(message::GET, &request, |payload| {
            flows.extend(flow::parse(payload).filter(|flow| filter.takes(flow)));
        });
        match result {
            Ok(()) => Ok(flows),
            Err(failure) => Err(Error::ConntrackList { filter: filter.to_string(), source: failure.into() }),
        }
    }

    /// Deletes the flows that `filter` takes, and no other.
    ///
    /// # Errors
    /// [`Error::ConntrackDelete`], and where the kernel knows no filters those of [`Conntrack::flows`].
    pub fn delete_matching(&mut self, filter: &Filter) -> Result<(), Error> {
        if self.deletes_by_filter && filter.is_the_kernels() {
            match self.socket.change(message::DELETE, &message::by_filter(filter)) {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(Errno::ENOENT)) => return Ok(()),
                // What a kernel says that takes the tuple for a whole one, or knows no filter here.
                Err(Failure::Refused(Errno::EOPNOTSUPP | Errno::EINVAL)) => self.deletes_by_filter = false,
                Err(failure) => {
                    return Err(Error::ConntrackDelete { flow: filter.to_string(), source: failure.into() });
                }
            }
        }
        for flow in self.flows(filter)? {
            self.delete(&flow)?;
        }
        Ok(())
    }

    /// Deletes one flow. False if it is gone. The kernel knows a flow by its tuple, and by a number that a later flow
    /// may have again: one that has the tuple by now may go instead.
    ///
    /// # Errors
    /// [`Error::ConntrackDelete`].
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        match self.socket.change(message::DELETE, &message::exact(flow)) {
            Ok(()) => Ok(true),
            Err(Failure::Refused(Errno::ENOENT)) => Ok(false),
            Err(failure) => Err(Error::ConntrackDelete { flow: flow.to_string(), source: failure.into() }),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) => error,
            Failure::Refused(errno) => errno.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{Ipv4Addr, UdpSocket};

    use nft_model::{Family, Proto};

    /// As after the first answer of a kernel before 6.12.
    #[test]
    fn old_kernels_delete_flow_by_flow() {
        sandbox::private_host(|| {
            for arguments in ["link set lo up", "address add 192.0.2.1/32 dev lo"] {
                assert!(sandbox::command("ip").args(arguments.split(' ')).status().expect("ip").success());
            }
            for arguments in [
                "add table ip t",
                "add chain ip t c { type filter hook output priority 0 ; }",
                "add rule ip t c ct state new accept",
            ] {
                assert!(sandbox::command("nft").args(arguments.split(' ')).status().expect("nft").success());
            }
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            for (address, port) in [("192.0.2.1", 53), ("192.0.2.1", 54), ("127.0.0.1", 53)] {
                socket.send_to(b"", (address, port)).expect("sent");
            }
            let mut tracking = Conntrack { deletes_by_filter: false, ..Conntrack::open().expect("a socket") };
            let filter = Filter {
                protocol: Some(Proto::Udp),
                original_dst: Some([192, 0, 2, 1].into()),
                original_port: Some(53),
                ..Filter::of(Family::Ip)
            };
            tracking.delete_matching(&filter).expect("deleted");
            let left =
                tracking.flows(&Filter { protocol: Some(Proto::Udp), ..Filter::of(Family::Ip) }).expect("listed");
            let mut left: Vec<String> = left.iter().map(|flow| flow.original.dst.to_string()).collect();
            left.sort();
            assert_eq!(left, ["127.0.0.1:53", "192.0.2.1:54"]);
        });
    }
}
