//! Flows of real packets.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use kernel::conntrack::{Conntrack, Filter};
use kernel::sysctl;
use nft_model::{Family, Proto};
use sandbox::{command, private_host};

use crate::oracle::source_ports;

fn run(program: &str, args: &str) {
    let output = command(program).args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Port 53 of this host leads to port 5353.
fn translated() {
    run("ip", "link set lo up");
    run("nft", "add table ip t");
    run("nft", "add chain ip t output { type nat hook output priority -100 ; }");
    run("nft", "add rule ip t output udp dport 53 dnat to 127.0.0.1:5353");
}

fn send(from: u16, to: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, from)).unwrap();
    socket.send_to(b"12345", (Ipv4Addr::LOCALHOST, to)).unwrap();
}

#[test]
fn what_was_translated_is_known_and_counted() {
    private_host(|| {
        translated();
        sysctl::set("net/netfilter/nf_conntrack_acct", "1").unwrap();
        let pod = UdpSocket::bind((Ipv4Addr::LOCALHOST, 5353)).unwrap();
        send(1001, 53);
        send(1001, 53);
        send(1002, 5353);
        let mut buffer = [0; 8];
        let (_, client) = pod.recv_from(&mut buffer).unwrap();
        pod.send_to(b"1", client).unwrap();
        let mut tracking = Conntrack::open().unwrap();
        let filter = Filter { protocol: Some(Proto::Udp), dnat: true, ..Filter::of(Family::Ip) };
        let flows = tracking.flows(&filter).unwrap();
        let [flow] = flows.as_slice() else { panic!("{flows:?}") };
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!((flow.original.src, flow.original.dst), (at(1001), at(53)));
        assert_eq!((flow.reply.src, flow.reply.dst), (at(5353), at(1001)));
        assert!(flow.dnat && flow.answered);
        let counters = flow.counters.unwrap();
        // Twice 28 bytes of headers and 5 of data, and once 28 and 1.
        assert_eq!((counters.packets, counters.bytes), (3, 95));
        tracking.delete_matching(&filter).unwrap();
        assert_eq!(source_ports("ipv4"), [1002]);
    });
}

#[test]
fn a_deleted_flow_is_looked_at_anew() {
    private_host(|| {
        translated();
        let (before, after) = (UdpSocket::bind("127.0.0.1:5353").unwrap(), UdpSocket::bind("127.0.0.1:5354").unwrap());
        let patience = Some(std::time::Duration::from_secs(10));
        for pod in [&before, &after] {
            pod.set_read_timeout(patience).unwrap();
        }
        let mut buffer = [0; 8];
        send(1001, 53);
        before.recv_from(&mut buffer).unwrap();
        run("nft", "flush chain ip t output");
        run("nft", "add rule ip t output udp dport 53 dnat to 127.0.0.1:5354");
        // A rule says nothing to flows that are known.
        send(1001, 53);
        before.recv_from(&mut buffer).unwrap();
        Conntrack::open().unwrap().delete_matching(&Filter { dnat: true, ..Filter::of(Family::Ip) }).unwrap();
        send(1001, 53);
        after.recv_from(&mut buffer).unwrap();
    });
}
