//! One question and what comes back: the client's side of every proof. Runs in the calling thread's
//! network namespace and always ends by its deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, getsockopt, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::manifest::Protocol;

/// The most that an answer may have, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// What a server of the demo says about the packets that reached it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who answers: a pod's name, or a machine's.
    pub name: String,
    /// The asker's address as it arrived.
    pub peer: SocketAddr,
    /// The address that the packets were for when they arrived.
    pub local: SocketAddr,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answer(Answer),
    /// A TCP reset, or an ICMP "port unreachable": there is a machine, and nobody listens.
    Refused,
    /// An ICMP "unreachable" from `by`; without it, the asker's own machine knows no way.
    Unreachable {
        /// Who said so.
        by: Option<IpAddr>,
    },
    /// Nothing, until the deadline.
    Silence(Duration),
    /// Something else, in words.
    Broken(String),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => write!(f, "{} saw {}", answer.name, answer.peer.ip()),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable { by: Some(router) } => write!(f, "unreachable, said {router}"),
            Self::Unreachable { by: None } => f.write_str("no route"),
            Self::Silence(waited) => write!(f, "nothing within {} s", waited.as_secs_f32()),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// Asks whoever listens at `to`. SCTP has no server in the demo, and no client either.
#[must_use]
pub fn ask(protocol: Protocol, to: SocketAddr, patience: Duration) -> Reply {
    let deadline = Instant::now() + patience;
    let result = match protocol {
        Protocol::Tcp => tcp(to, deadline),
        Protocol::Udp => udp(to, deadline),
        Protocol::Sctp => Err(Failure::Other("no SCTP client".to_owned())),
    };
    match result {
        Ok(answer) => Reply::Answer(answer),
        Err(Failure::Errno(Errno::ECONNREFUSED, _)) => Reply::Refused,
        Err(Failure::Errno(Errno::ENETUNREACH | Errno::EHOSTUNREACH, by)) => Reply::Unreachable { by },
        Err(Failure::Errno(Errno::EINPROGRESS | Errno::EAGAIN | Errno::ETIMEDOUT, _)) => Reply::Silence(patience),
        Err(Failure::Errno(errno, _)) => Reply::Broken(errno.desc().to_owned()),
        Err(Failure::Other(text)) => Reply::Broken(text),
    }
}

/// Why there is no answer: an error with the router that caused it, if an ICMP packet did.
enum Failure {
    Errno(Errno, Option<IpAddr>),
    Other(String),
}

impl Failure {
    fn at(errno: Errno, socket: &impl AsRawFd) -> Self {
        Self::Errno(errno, icmp_error(socket).and_then(|(_, sender)| sender))
    }

    fn of_io(error: &io::Error, socket: &impl AsRawFd) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::at(Errno::from_raw(code), socket),
            None => Self::Other(error.to_string()),
        }
    }

    fn plain(errno: Errno) -> Self {
        Self::Errno(errno, None)
    }
}

/// HTTP/1.1, one GET, connection closed by the server.
fn tcp(to: SocketAddr, deadline: Instant) -> Result<Answer, Failure> {
    let mut stream = connected(to, deadline)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| Failure::of_io(&error, &stream))?;
    let mut response = Vec::new();
    let mut part = [0; 4096];
    while response.len() < ANSWER_MAX {
        setsockopt(&stream, sockopt::ReceiveTimeout, &time_until(deadline)?).map_err(Failure::plain)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => response.extend_from_slice(part.get(..length).unwrap_or_default()),
            Err(error) => return Err(Failure::of_io(&error, &stream)),
        }
    }
    let text = String::from_utf8_lossy(&response);
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => parse(body.as_bytes()),
        _ => Err(Failure::Other(format!("no HTTP answer: {:?}", text.lines().next().unwrap_or_default()))),
    }
}

/// An ICMP error that arrives while the socket is still being connected is kept in its error queue only: a
/// blocking connect would learn of it at the next retransmission, a second later.
fn connected(to: SocketAddr, deadline: Instant) -> Result<TcpStream, Failure> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None).map_err(Failure::plain)?;
    report_icmp(&socket, to).map_err(Failure::plain)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(Failure::at(errno, &socket)),
    }
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let left = deadline.saturating_duration_since(Instant::now());
    if poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)).map_err(Failure::plain)? == 0 {
        return Err(Failure::plain(Errno::ETIMEDOUT));
    }
    if let Some((errno, sender)) = icmp_error(&socket) {
        return Err(Failure::Errno(errno, sender));
    }
    match getsockopt(&socket, sockopt::SocketError).map_err(Failure::plain)? {
        0 => {}
        code => return Err(Failure::plain(Errno::from_raw(code))),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).map_err(|error| Failure::of_io(&error, &stream))?;
    Ok(stream)
}

/// One datagram there, one back. The socket is connected, so that only the address asked may answer.
fn udp(to: SocketAddr, deadline: Instant) -> Result<Answer, Failure> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let other = |error: io::Error| Failure::Other(error.to_string());
    let socket = UdpSocket::bind((any, 0)).map_err(other)?;
    report_icmp(&socket, to).map_err(Failure::plain)?;
    let exchange = || {
        socket.connect(to)?;
        socket.send(b"who?")?;
        let mut datagram = vec![0; ANSWER_MAX];
        let length = socket.recv(&mut datagram)?;
        datagram.truncate(length);
        Ok(datagram)
    };
    setsockopt(&socket, sockopt::ReceiveTimeout, &time_until(deadline)?).map_err(Failure::plain)?;
    let datagram = exchange().map_err(|error: io::Error| Failure::of_io(&error, &socket))?;
    parse(&datagram)
}

fn parse(body: &[u8]) -> Result<Answer, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Other(format!("not the demo's answer: {error}")))
}

/// A zero timeout would mean none at all.
fn time_until(deadline: Instant) -> Result<TimeVal, Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
    if micros == 0 {
        Err(Failure::plain(Errno::ETIMEDOUT))
    } else {
        Ok(TimeVal::new(micros / 1_000_000, micros % 1_000_000))
    }
}

/// Asks the kernel to keep ICMP errors with their senders (`ip(7)`, IP_RECVERR).
fn report_icmp(socket: &impl AsFd, to: SocketAddr) -> nix::Result<()> {
    match to {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    }
}

/// The error in the socket's error queue, with the machine that sent the ICMP packet.
fn icmp_error(socket: &impl AsRawFd) -> Option<(Errno, Option<IpAddr>)> {
    let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut space), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, sender) => {
            let sender = sender.filter(|sender| i32::from(sender.sin_family) == libc::AF_INET);
            let sender = sender.map(|sender| Ipv4Addr::from(u32::from_be(sender.sin_addr.s_addr)).into());
            Some((Errno::from_raw(i32::try_from(error.ee_errno).ok()?), sender))
        }
        ControlMessageOwned::Ipv6RecvErr(error, sender) => {
            let sender = sender.filter(|sender| i32::from(sender.sin6_family) == libc::AF_INET6);
            let sender = sender.map(|sender| Ipv6Addr::from(sender.sin6_addr.s6_addr).into());
            Some((Errno::from_raw(i32::try_from(error.ee_errno).ok()?), sender))
        }
        _ => None,
    })
}
