//! Fifty pods hand one host port to one another, while clients never stop sending.
//!
//! Every datagram and every connection carries the state that the node was in when it was sent: `2n + 1` from the moment
//! the ADD of pod n has returned, `2n + 2` from the moment its end begins. So whoever gets it can tell whether it had
//! to come here.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::backend::Backend;
use crate::common::net::{Host, NODE_V4, NODE_V6, PATIENCE, forward, lan, pod};
use crate::common::plugin::Attachment;
use sandbox::private_host;
use serde_json::json;

const PODS: u8 = 50;
const PORT: u16 = 53;
/// Clients, each with one source port for ever.
const CLIENTS: usize = 4;
/// A client waits no longer for an answer before it sends again, and this long after it. What sends as fast as it can
/// leaves the node no time for anything else.
const PACE: Duration = Duration::from_millis(1);
/// Longer than a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(30);

/// What everybody knows and tells.
#[derive(Default)]
struct World {
    state: AtomicU64,
    over: AtomicBool,
    /// What reached somebody who had to be out of it.
    astray: AtomicU64,
    /// What reached the node itself although a pod had the port.
    at_node: AtomicU64,
    sent: AtomicU64,
    /// Datagrams that were sent while the latest pod had the port, and those of them that it got.
    sent_to_owner: AtomicU64,
    got_by_owner: AtomicU64,
    /// Connections that were begun while a pod had the port, and that nobody answered.
    unanswered: AtomicU64,
    /// Whether clients are to stop for a moment, and how many have.
    pause: AtomicBool,
    resting: AtomicUsize,
    /// The latest pod, counted from 1, that answered each UDP client, and the TCP clients of both families.
    seen: [AtomicU64; CLIENTS + 2],
}

impl World {
    /// Pod n got something that was sent in `state`.
    fn arrived(&self, n: u64, state: u64) {
        if state >= 2 * n + 3 {
            self.astray.fetch_add(1, SeqCst);
        }
    }

    /// Where a client is when nothing of it is on its way.
    fn rest(&self) {
        if self.pause.load(SeqCst) {
            self.resting.fetch_add(1, SeqCst);
            while self.pause.load(SeqCst) && !self.is_over() {
                thread::sleep(PACE);
            }
            self.resting.fetch_sub(1, SeqCst);
        }
    }

    /// Stops all clients, and sees whether the owner got every datagram that was sent since its ADD returned.
    fn settle(&self, n: u64) {
        self.pause.store(true, SeqCst);
        let end = Instant::now() + DEADLINE;
        let counts = || (self.resting.load(SeqCst), self.got_by_owner.load(SeqCst));
        while counts() != (CLIENTS + 2, self.sent_to_owner.load(SeqCst)) {
            assert!(
                Instant::now() < end,
                "pod {n}: {:?} resting and got, {} sent",
                counts(),
                self.sent_to_owner.load(SeqCst)
            );
            thread::sleep(PACE);
        }
        self.sent_to_owner.store(0, SeqCst);
        self.got_by_owner.store(0, SeqCst);
    }

    /// Whether so much is on its way to the owner that more might not fit into its socket: a kernel drops what does not.
    fn owner_is_behind(&self) -> bool {
        self.sent_to_owner.load(SeqCst).saturating_sub(self.got_by_owner.load(SeqCst)) >= 64
    }

    /// The node's own socket got something that was sent in `state`.
    fn arrived_at_node(&self, state: u64) {
        if state % 2 == 1 && self.state.load(SeqCst) == state {
            self.at_node.fetch_add(1, SeqCst);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Pod n answers datagrams and connections with its number.
fn serve(host: &Host, n: u64, world: &Arc<World>) {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT);
    let sockets = || (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap());
    let (socket, listener) = host.netns.run(sockets).unwrap();
    let udp = Arc::clone(world);
    thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((8, peer)) = socket.recv_from(&mut buffer) {
            udp.arrived(n, number(&buffer));
            if number(&buffer) == 2 * n + 1 {
                udp.got_by_owner.fetch_add(1, SeqCst);
            }
            let _ = socket.send_to(&(n + 1).to_be_bytes(), peer);
        }
    });
    let tcp = Arc::clone(world);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 8];
            let _ = stream.set_read_timeout(Some(PATIENCE));
            if stream.read_exact(&mut buffer).is_ok() {
                tcp.arrived(n, number(&buffer));
                let _ = stream.write_all(&(n + 1).to_be_bytes());
            }
        }
    });
}

/// The node's own service on the port: packets must not get here while a pod has it.
fn serve_at_node(world: &Arc<World>) {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    let world = Arc::clone(world);
    thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((8, _)) = socket.recv_from(&mut buffer) {
            world.arrived_at_node(number(&buffer));
        }
    });
}

/// One datagram after the other from one port.
fn send_datagrams(lan: &Host, node: IpAddr, index: usize, world: &Arc<World>) -> thread::JoinHandle<()> {
    let socket = lan.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
    let node = match node {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    };
    socket.set_read_timeout(Some(PACE)).unwrap();
    let world = Arc::clone(world);
    thread::spawn(move || {
        let mut buffer = [0; 8];
        while !world.is_over() {
            world.rest();
            if world.owner_is_behind() {
                thread::sleep(PACE);
                continue;
            }
            let state = world.state.load(SeqCst);
            // While nobody has the port, the node says that it is unreachable.
            if socket.send_to(&state.to_be_bytes(), (node, PORT)).is_ok() {
                world.sent.fetch_add(1, SeqCst);
                if state % 2 == 1 {
                    world.sent_to_owner.fetch_add(1, SeqCst);
                }
            }
            if let Ok((8, _)) = socket.recv_from(&mut buffer) {
                world.seen[index].fetch_max(number(&buffer), SeqCst);
            }
            thread::sleep(PACE);
        }
    })
}

/// One connection after the other.
fn connect(lan: &Host, node: IpAddr, index: usize, world: &Arc<World>) -> thread::JoinHandle<()> {
    let netns = kernel::netns::NetNs::open(format!("/run/netns/{}", lan.name)).unwrap();
    let world = Arc::clone(world);
    thread::spawn(move || {
        netns
            .run(|| {
                let mut buffer = [0; 8];
                while !world.is_over() {
                    world.rest();
                    let state = world.state.load(SeqCst);
                    // Nobody answers while nobody has the port.
                    let patience = if state % 2 == 1 { DEADLINE } else { Duration::from_millis(200) };
                    let answer =
                        TcpStream::connect_timeout(&SocketAddr::new(node, PORT), patience).and_then(|mut stream| {
                            world.sent.fetch_add(1, SeqCst);
                            stream.set_read_timeout(Some(patience))?;
                            stream.write_all(&state.to_be_bytes())?;
                            stream.read_exact(&mut buffer)
                        });
                    match answer {
                        Ok(()) => drop(world.seen[index].fetch_max(number(&buffer), SeqCst)),
                        Err(_) if state % 2 == 1 => drop(world.unanswered.fetch_add(1, SeqCst)),
                        Err(_) => {}
                    }
                    thread::sleep(PACE);
                }
            })
            .unwrap();
    })
}

/// Until every client has been answered by pod n.
fn wait_for(world: &World, n: u64) {
    let end = Instant::now() + DEADLINE;
    while world.seen.iter().any(|seen| seen.load(SeqCst) != n + 1) {
        let seen: Vec<u64> = world.seen.iter().map(|seen| seen.load(SeqCst)).collect();
        assert!(Instant::now() < end, "pod {n} does not answer all: {seen:?}");
        thread::sleep(PACE);
    }
}

#[test]
fn every_packet_after_an_add_goes_to_the_new_owner_on_nftables() {
    private_host(|| every_packet_after_an_add_goes_to_the_new_owner(Backend::Nftables.prepared()));
}

#[test]
fn every_packet_after_an_add_goes_to_the_new_owner_on_iptables() {
    private_host(|| every_packet_after_an_add_goes_to_the_new_owner(Backend::IptablesNft.prepared()));
}

#[test]
fn every_packet_after_an_add_goes_to_the_new_owner_on_legacy_iptables() {
    private_host(|| every_packet_after_an_add_goes_to_the_new_owner(Backend::IptablesLegacy.prepared()));
}

#[expect(clippy::print_stdout, reason = "the figures are the test's result")]
fn every_packet_after_an_add_goes_to_the_new_owner(backend: Backend) {
    forward();
    let lan = lan();
    let world = Arc::new(World::default());
    serve_at_node(&world);
    let pods: Vec<Host> = (0..PODS).map(|n| pod(n + 10)).collect();
    let mut clients = Vec::new();
    let nodes: [IpAddr; CLIENTS] = [NODE_V4[0].into(), NODE_V6[0].into(), NODE_V4[1].into(), NODE_V6[1].into()];
    for (index, node) in nodes.into_iter().enumerate() {
        clients.push(send_datagrams(&lan, node, index, &world));
    }
    clients.push(connect(&lan, nodes[0], CLIENTS, &world));
    clients.push(connect(&lan, nodes[1], CLIENTS + 1, &world));
    let ports = json!([
        { "hostPort": PORT, "containerPort": PORT, "protocol": "udp" },
        { "hostPort": PORT, "containerPort": PORT, "protocol": "tcp" },
    ]);
    let mut owned = 0;
    let mut last: Option<(&Host, Attachment)> = None;
    for (n, pod) in (0..).zip(&pods) {
        serve(pod, n, &world);
        let attachment = Attachment::new(pod, &ports).on(backend);
        if let Some((before, held)) = last.take() {
            world.state.store(2 * n, SeqCst);
            world.pause.store(false, SeqCst);
            // Every second one dies without a word, and its port is taken over.
            if n % 2 == 0 {
                held.del().ok();
            } else {
                before.die();
            }
        }
        attachment.add().ok();
        world.state.store(2 * n + 1, SeqCst);
        wait_for(&world, n);
        world.settle(n);
        owned += 1;
        last = Some((pod, attachment));
    }
    world.over.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let count = |counter: &AtomicU64| counter.load(SeqCst);
    println!(
        "{owned} of {PODS} owners, {} sent, {} astray, {} at the node, {} unanswered",
        count(&world.sent),
        count(&world.astray),
        count(&world.at_node),
        count(&world.unanswered)
    );
    assert_eq!((owned, count(&world.astray), count(&world.at_node), count(&world.unanswered)), (PODS, 0, 0, 0));
}
