//! Packets: small servers and clients inside network namespaces.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::verdict::{Finding, Verdict};

/// How long an answer that must come is waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long one attempt to connect by IPv6 may take: the second SYN goes out after 1 s.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// For how long nobody is believed who says that an IPv6 address is not there.
const SETTLING: Duration = Duration::from_secs(1);

/// How long an answer that must not come is waited for.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Runs `body` on a thread inside the namespace at `path`; `None` stays on the host.
///
/// # Errors
/// Trouble if the namespace cannot be entered; otherwise what `body` finds.
pub fn inside<T: Send>(path: Option<&str>, body: impl FnOnce() -> Verdict<T> + Send) -> Verdict<T> {
    let Some(path) = path else {
        return body();
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(path)?;
            body()
        });
        thread.join().unwrap_or_else(|_| Err(Finding::Trouble("a thread of the suite panicked".to_owned())))
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the suite shares no code with the plugins, so it has a way in of its own"
)]
fn enter(path: &str) -> Verdict {
    let file = File::open(path).map_err(|error| Finding::Trouble(format!("cannot open {path}: {error}")))?;
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|error| Finding::Trouble(format!("cannot enter {path}: {error}")))
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As portMappings spell it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A server that answers each question with its own name and the asker's address, until it is dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on this port of all addresses, IPv4 and IPv6, by TCP and UDP.
    ///
    /// # Errors
    /// Trouble if the namespace cannot be entered or a port not be had.
    pub fn start(netns: Option<&str>, port: u16, name: &str) -> Verdict<Self> {
        let (tcp, udp) = inside(netns, || {
            let trouble = |error| Finding::Trouble(format!("cannot listen on port {port}: {error}"));
            let address: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
            // A UDP socket of one address answers from that address, as the asker expects.
            let udp = local_addresses()?.into_iter().filter_map(|address| UdpSocket::bind((address, port)).ok());
            Ok((TcpListener::bind(address).map_err(trouble)?, udp.collect::<Vec<_>>()))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = vec![spawn_tcp(tcp, name.to_owned(), Arc::clone(&stop))];
        threads.extend(udp.into_iter().map(|udp| spawn_udp(udp, name.to_owned(), Arc::clone(&stop))));
        Ok(Self { stop, threads })
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

/// All addresses of the caller's namespace but link-local ones.
fn local_addresses() -> Verdict<Vec<IpAddr>> {
    let all =
        nix::ifaddrs::getifaddrs().map_err(|error| Finding::Trouble(format!("cannot list addresses: {error}")))?;
    let mut addresses: Vec<IpAddr> = all
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn spawn_tcp(listener: TcpListener, name: String, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let _ = listener.set_nonblocking(true);
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                // A connection that stays open must not keep others waiting.
                Ok((stream, peer)) => {
                    let answer = format!("{name} {}", canonical(peer.ip()));
                    thread::spawn(move || serve(stream, &answer));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    })
}

/// Answers, then counts what comes until the asker closes, so that big transfers can be asked for.
fn serve(mut stream: TcpStream, answer: &str) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(PATIENCE * 10));
    let mut bytes = [0; 16384];
    let mut total = 0;
    while let Ok(count) = stream.read(&mut bytes) {
        if count == 0 {
            break;
        }
        total += count;
    }
    let _ = stream.write_all(format!("{answer} {total}").as_bytes());
}

fn spawn_udp(socket: UdpSocket, name: String, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(5)));
        let mut bytes = [0; 65536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((count, peer)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(format!("{name} {} {count}", canonical(peer.ip())).as_bytes(), peer);
            }
        }
    })
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What a server says: its name, the asker's address as it saw it, and how many bytes came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The server's name.
    pub server: String,
    /// The asker's address as the server saw it.
    pub asker: String,
    /// How many bytes the server got.
    pub bytes: usize,
}

/// Sends this many bytes from the namespace and waits for the answer. `None`: refused or silence.
///
/// # Errors
/// Trouble if the namespace cannot be entered.
pub fn ask(netns: Option<&str>, protocol: Protocol, to: SocketAddr, bytes: usize) -> Verdict<Option<Reply>> {
    ask_for(netns, protocol, to, bytes, PATIENCE)
}

/// The same, for as long as `patience`.
///
/// # Errors
/// Trouble if the namespace cannot be entered.
pub fn ask_for(
    netns: Option<&str>,
    protocol: Protocol,
    to: SocketAddr,
    bytes: usize,
    patience: Duration,
) -> Verdict<Option<Reply>> {
    inside(netns, || {
        let payload = vec![b'x'; bytes];
        let text = match protocol {
            Protocol::Tcp => ask_tcp(to, &payload, patience),
            Protocol::Udp => ask_udp(to, &payload, patience),
        };
        Ok(text.and_then(|text| parse(&text)))
    })
}

/// Connects from the caller's namespace. An IPv6 address is usable some time after it was added, when the kernel comes to it
/// (`addrconf_dad_work`, net/ipv6/addrconf.c), which takes longer on a busy machine. A pod that asks itself before looks for its
/// own address on the link, and that socket learns 3 s later that there is no such host, whatever the way is by then: another
/// one is told the truth. Whether a plugin waits for its addresses is a question of its own (DP-15). IPv4 has no such time, and a
/// way that is missing is missing in both: there, one socket is asked once.
///
/// # Errors
/// What the last attempt met.
pub fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let start = Instant::now();
    let mut attempt = if to.is_ipv6() { patience.min(ATTEMPT) } else { patience };
    loop {
        match TcpStream::connect_timeout(&to, attempt) {
            Err(error) if may_come_yet(to, &error, start.elapsed()) => {
                let left = patience.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(error);
                }
                attempt = left.min(ATTEMPT);
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Whether an IPv6 address that is not usable yet can be why an attempt failed, that long after the first began.
fn may_come_yet(to: SocketAddr, error: &io::Error, elapsed: Duration) -> bool {
    let is_unusable = matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable);
    to.is_ipv6() && (error.kind() == ErrorKind::TimedOut || is_unusable && elapsed <= SETTLING)
}

fn ask_tcp(to: SocketAddr, payload: &[u8], patience: Duration) -> Option<String> {
    let mut stream = connect(to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    stream.write_all(payload).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A datagram may be lost, so the question is repeated. The same socket asks again: its conntrack entry is the same.
fn ask_udp(to: SocketAddr, payload: &[u8], patience: Duration) -> Option<String> {
    let any: SocketAddr = if to.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    ask_by(&socket, to, payload, patience)
}

/// Asks by a given socket.
#[must_use]
pub fn ask_by(socket: &UdpSocket, to: SocketAddr, payload: &[u8], patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    let mut bytes = [0; 512];
    // Answers to questions that were repeated must not be taken for answers to this one.
    socket.set_nonblocking(true).ok()?;
    while socket.recv_from(&mut bytes).is_ok() {}
    socket.set_nonblocking(false).ok()?;
    while Instant::now() < deadline {
        // Errors may be of the last datagram (ICMP), so they do not end the attempt.
        let _ = socket.send_to(payload, to);
        if let Ok((count, from)) = socket.recv_from(&mut bytes)
            && from == to
        {
            return bytes.get(..count).map(|text| String::from_utf8_lossy(text).into_owned());
        }
    }
    None
}

/// Reads a server's answer.
#[must_use]
pub fn parse(text: &str) -> Option<Reply> {
    let mut words = text.split_whitespace();
    let (server, asker) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Reply { server, asker, bytes: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(words: &str) -> String {
        let output = sandbox::command("ip").args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn until(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "not within a minute");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What a pod looks like between its ADD and the kernel's work on the address: the first socket asks on the link who has it,
    /// and is told after 3 s that nobody has.
    #[test]
    fn an_address_that_becomes_usable_while_it_is_asked_answers() {
        sandbox::private_host(|| {
            sandbox::set_loopback_up().unwrap();
            ip("link add eth0 type veth peer name wire");
            for link in ["eth0", "wire"] {
                ip(&format!("link set {link} up"));
            }
            ip("address add fd00::2/128 dev eth0 nodad");
            until(|| ip("-6 route show table local").contains("local fd00::2 "));
            let _server = Server::start(None, 8080, "pod").unwrap();
            ip("-6 route del local fd00::2 dev eth0 table local");
            thread::scope(|scope| {
                let to: SocketAddr = "[fd00::2]:8080".parse().unwrap();
                let asked = scope.spawn(move || ask_for(None, Protocol::Tcp, to, 10, Duration::from_secs(60)));
                // State 02 is SYN_SENT (include/net/tcp_states.h).
                until(|| std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap().contains(":1F90 02 "));
                ip("-6 route add local fd00::2 dev eth0 table local");
                assert_eq!(asked.join().unwrap().unwrap().map(|reply| reply.server), Some("pod".to_owned()));
            });
        });
    }

    #[test]
    fn who_refuses_is_not_asked_again() {
        sandbox::private_host(|| {
            sandbox::set_loopback_up().unwrap();
            let long = Duration::from_secs(600);
            for (to, says) in [
                ("127.0.0.1:8080", nix::libc::ECONNREFUSED),
                ("[::1]:8080", nix::libc::ECONNREFUSED),
                ("10.0.0.2:8080", nix::libc::ENETUNREACH),
                ("[fd00::2]:8080", nix::libc::ENETUNREACH),
            ] {
                let to: SocketAddr = to.parse().unwrap();
                let error = connect(to, long).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(says), "{to}: {error}");
                assert!(!may_come_yet(to, &error, Duration::ZERO), "{to}: {error}");
            }
        });
    }

    /// Of IPv4 addresses and of ways none is late but by the plugin's fault.
    #[test]
    fn only_an_ipv6_address_may_come_late() {
        let [v4, v6]: [SocketAddr; 2] = ["10.0.0.2:8080", "[fd00::2]:8080"].map(|to| to.parse().unwrap());
        let (soon, late) = (Duration::from_millis(1), SETTLING * 2);
        for (kind, is_soon, is_late) in [
            (ErrorKind::HostUnreachable, true, false),
            (ErrorKind::AddrNotAvailable, true, false),
            (ErrorKind::TimedOut, true, true),
            (ErrorKind::NetworkUnreachable, false, false),
            (ErrorKind::ConnectionRefused, false, false),
            (ErrorKind::ConnectionReset, false, false),
        ] {
            let error = io::Error::from(kind);
            assert_eq!([soon, late].map(|elapsed| may_come_yet(v6, &error, elapsed)), [is_soon, is_late], "{kind}");
            assert_eq!([soon, late].map(|elapsed| may_come_yet(v4, &error, elapsed)), [false, false], "{kind}");
        }
    }
}
