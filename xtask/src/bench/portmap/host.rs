//! A node with a client on its network and one pod that answers; all in namespaces of the private host.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use kernel::conntrack::{Conntrack, Filter};
use kernel::netns::NetNs;
use nft_model::Family;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use nix::unistd::Pid;

use crate::bench::pairs::quantile;
use crate::error::Error;
use crate::program::{command, run};

/// The node's address on the client's network.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
/// The pod that answers.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 88, 255, 2);
/// The port that it answers on.
pub const POD_PORT: u16 = 80;

/// `ip` commands that make client and pod.
const SETUP: [&str; 17] = [
    "netns add cli",
    "link add w0 type veth peer name w1 netns cli",
    "address add 192.168.50.1/24 dev w0",
    "link set w0 up",
    "-n cli link set lo up",
    "-n cli address add 192.168.50.2/24 dev w1",
    "-n cli link set w1 up",
    "-n cli route add default via 192.168.50.1",
    "netns add pod",
    "link add p0 type veth peer name p1 netns pod",
    "link set p0 up",
    "address add 10.88.0.1/32 dev p0",
    "route add 10.88.255.2 dev p0",
    "-n pod address add 10.88.255.2/32 dev p1",
    "-n pod link set p1 up",
    "-n pod route add 10.88.0.1 dev p1",
    "-n pod route add default via 10.88.0.1",
];

/// How many connections the pod's kernel answers before somebody has to accept them (`net.core.somaxconn`).
const QUEUE: u16 = 4096;

/// The node.
pub struct Host {
    client: NetNs,
    listener: TcpListener,
}

impl Host {
    /// Makes it. The pod's kernel answers: a server that were woken for each connection would cost more than what is
    /// measured, and more or less, as its processor sleeps or not.
    pub fn new() -> Result<Self, Error> {
        for line in SETUP {
            run(command("ip").args(line.split(' ')))?;
        }
        kernel::sysctl::set("net/ipv4/ip_forward", "1").map_err(Error::Kernel)?;
        let pod = NetNs::open("/run/netns/pod").map_err(Error::Kernel)?;
        let listener = pod.run(|| TcpListener::bind((POD, POD_PORT))).map_err(Error::Kernel)?;
        let listener = listener.map_err(|source| Error::Start { program: "the pod's server".to_owned(), source })?;
        let server = |source| Error::Start { program: "the pod's server".to_owned(), source };
        listen(&listener, Backlog::new(i32::from(QUEUE)).unwrap_or(Backlog::MAXCONN))
            .map_err(|errno| server(errno.into()))?;
        listener.set_nonblocking(true).map_err(server)?;
        let client = NetNs::open("/run/netns/cli").map_err(Error::Kernel)?;
        Ok(Self { client, listener })
    }

    /// Forgets all rules, all flows and what plugins keep.
    pub fn clean(&self) -> Result<(), Error> {
        run(command("nft").args(["flush", "ruleset"]))?;
        let mut tracking = Conntrack::open().map_err(Error::Kernel)?;
        for family in Family::ALL {
            tracking.delete_matching(&Filter::of(family)).map_err(Error::Kernel)?;
        }
        let records = Path::new("/run/podwire");
        if records.exists() {
            let failed = |source| Error::File { action: "remove", path: records.to_owned(), source };
            std::fs::remove_dir_all(records).map_err(failed)?;
        }
        Ok(())
    }

    /// Connects so often to a port of the node, one after the other, and gives connections a second: as many as there
    /// would be if each took as long as the median one, which what else the machine does hardly changes. Each ends
    /// with a reset, so that no port is waited for.
    pub fn connect(&self, port: usize, count: usize) -> Result<f64, Error> {
        let to = SocketAddr::new(NODE.into(), u16::try_from(port).unwrap_or(u16::MAX));
        let connect = || {
            pin();
            let mut took = Vec::with_capacity(count);
            for number in 0..count {
                if number % usize::from(QUEUE / 2) == 0 {
                    self.accept_all()?;
                }
                let start = Instant::now();
                let stream = TcpStream::connect(to)?;
                setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
                drop(stream);
                took.push(start.elapsed().as_secs_f64());
            }
            Ok::<_, std::io::Error>(took)
        };
        let took = self.client.run(connect).map_err(Error::Kernel)?;
        let took = took.map_err(|source| Error::Start { program: format!("a connection to {to}"), source })?;
        Ok(quantile(&took, 0.5).recip())
    }

    /// Empties the pod's queue.
    fn accept_all(&self) -> std::io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A client that is gone again is no server's business.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Keeps the calling thread on one processor, and so all that its packets cause, up to the answer.
fn pin() {
    let mut set = CpuSet::new();
    if set.set(0).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
