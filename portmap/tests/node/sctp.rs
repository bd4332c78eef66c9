//! SCTP: the first packets of an association, made by hand, because a kernel need not have SCTP sockets to forward it.
//! Each INIT that arrives is answered by an INIT ACK, so both directions are translated and their checksums right.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use crate::common::backend::Backend;
use crate::common::net::{self, Host, NODE_V4, NODE_V6, PATIENCE, forward, lan, pod};
use crate::common::plugin::Attachment;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

on_each_backend!(associations_begin_with_the_pod, an_association_begins_by_a_host_ip_and_by_the_loopback,);

/// The IANA number of the protocol.
const SCTP: i32 = 132;
/// Types of chunks (RFC 9260, 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// What client and pod say their tags are.
const CLIENT: u32 = 0xabcd;
const POD: u32 = 0x1234;

/// The part of a packet that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    source: u16,
    destination: u16,
    tag: u32,
    chunk: u8,
    initiate_tag: u32,
}

impl Packet {
    fn encode(self) -> Vec<u8> {
        let Self { source, destination, tag, chunk, initiate_tag } = self;
        let mut bytes = [&source.to_be_bytes()[..], &destination.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
        // Type, flags, length; then tag, window, streams out and in, first number.
        bytes.extend([chunk, 0, 0, 20]);
        bytes.extend(initiate_tag.to_be_bytes());
        bytes.extend(1500_u32.to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 7]);
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if the checksum is wrong.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let two = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let four = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut plain = bytes.to_vec();
        plain[8..12].fill(0);
        let intact = bytes[8..12] == crc32c(&plain).to_le_bytes();
        let packet =
            Self { source: two(0), destination: two(2), tag: four(4), chunk: bytes[12], initiate_tag: four(16) };
        intact.then_some(packet)
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

fn open(domain: Domain) -> Socket {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next packet that is whole and `wanted`, and its sender.
fn receive(socket: &Socket, wanted: impl Fn(&Packet) -> bool) -> io::Result<(Packet, IpAddr)> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
    loop {
        let (length, sender) = socket.recv_from(&mut buffer)?;
        let bytes: Vec<u8> = buffer[..length]
            .iter()
            .map(|byte| {
                #[expect(unsafe_code, reason = "how socket2 gives bytes")]
                // SAFETY: the kernel wrote the first `length` bytes.
                unsafe {
                    byte.assume_init()
                }
            })
            .collect();
        let sender = sender.as_socket().unwrap().ip();
        // An IPv4 header comes with the packet, one of IPv6 does not.
        let start = if sender.is_ipv4() { usize::from(bytes[0] & 0x0f) * 4 } else { 0 };
        match Packet::decode(&bytes[start..]) {
            Some(packet) if wanted(&packet) => return Ok((packet, sender)),
            _ => {}
        }
    }
}

/// Answers every INIT that comes to a port, until the test ends.
fn serve(host: &Host, port: u16) {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = host.netns.run(|| open(domain)).unwrap();
        thread::spawn(move || {
            loop {
                let is_ours = |packet: &Packet| packet.chunk == INIT && packet.destination == port;
                if let Ok((init, client)) = receive(&socket, is_ours) {
                    let Packet { source, destination, initiate_tag: tag, .. } = init;
                    let answer =
                        Packet { source: destination, destination: source, tag, chunk: INIT_ACK, initiate_tag: POD };
                    socket.send_to(&answer.encode(), &SocketAddr::new(client, 0).into()).unwrap();
                }
            }
        });
    }
}

/// Sends an INIT and returns who answers it, by which port.
fn initiate(to: IpAddr, port: u16) -> io::Result<(IpAddr, u16)> {
    let socket = open(if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 });
    let init = Packet { source: 5555, destination: port, tag: 0, chunk: INIT, initiate_tag: CLIENT };
    socket.send_to(&init.encode(), &SocketAddr::new(to, 0).into())?;
    let (answer, from) = receive(&socket, |packet| packet.chunk == INIT_ACK && packet.tag == CLIENT)?;
    assert_eq!((answer.destination, answer.initiate_tag), (5555, POD));
    Ok((from, answer.source))
}

fn associations_begin_with_the_pod(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    serve(&pod, 80);
    serve(&pod, 9999);
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "sctp" },
        { "hostPort": 9999, "containerPort": 9999, "protocol": "SCTP" },
    ]);
    let attachment = Attachment::new(&pod, &ports).on(backend);
    attachment.add().ok();
    for node in [IpAddr::from(NODE_V4[0]), NODE_V6[0].into()] {
        // Another port in the pod, and the same one.
        for port in [8080, 9999] {
            let answer = lan.netns.run(|| initiate(node, port)).unwrap().unwrap();
            assert_eq!(answer, (node, port), "{node}");
        }
        assert_eq!(net::tcp(node, 8080), Err(io::ErrorKind::ConnectionRefused));
    }
    attachment.check().ok();
}

fn an_association_begins_by_a_host_ip_and_by_the_loopback(backend: Backend) {
    forward();
    let (lan, every, one) = (lan(), pod(2), pod(3));
    serve(&every, 80);
    serve(&one, 81);
    let port = |host_ip: &str| json!({ "hostPort": 9090, "containerPort": 81, "protocol": "sctp", "hostIP": host_ip });
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "sctp" }]);
    Attachment::new(&every, &ports).on(backend).add().ok();
    Attachment::new(&one, &json!([port("192.0.2.2"), port("2001:db8::2")])).on(backend).add().ok();
    for node in [IpAddr::from(NODE_V4[1]), NODE_V6[1].into()] {
        assert_eq!(lan.netns.run(|| initiate(node, 9090)).unwrap().unwrap(), (node, 9090));
    }
    let loopbacks: [IpAddr; 2] = [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
    for node in loopbacks.into_iter().chain([NODE_V4[0].into(), NODE_V6[0].into()]) {
        assert_eq!(initiate(node, 8080).unwrap(), (node, 8080));
    }
    // A pod by itself, too.
    assert_eq!(every.netns.run(|| initiate(NODE_V4[0].into(), 8080)).unwrap().unwrap(), (NODE_V4[0].into(), 8080));
}
