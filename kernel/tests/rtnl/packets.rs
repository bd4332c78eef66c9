//! What the pieces are for: a pod whose very first packet arrives.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnetwork::IpNetwork;
use kernel::rtnl::Rtnl;
use sandbox::private_host;

use crate::oracle::{ip, set};
use crate::pod::{HOST_MAC, POD_MAC, Pod};

/// Long enough for a busy machine; nothing is retried within it.
const PATIENCE: Duration = Duration::from_secs(30);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A host address on `lo`, for the host to speak from.
fn give_the_host_addresses() {
    set("address add 192.0.2.1/32 dev lo");
    set("address add 2001:db8::1/128 dev lo nodad");
}

fn greet(mut client: TcpStream, listener: &TcpListener, expected: IpAddr) {
    client.write_all(b"hello").expect("connected");
    let (mut server, from) = listener.accept().expect("a client");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut heard = [0; 5];
    server.read_exact(&mut heard).expect("the client wrote");
    assert_eq!((&heard, from.ip()), (b"hello", expected));
}

#[test]
fn a_pod_is_reached_at_once_and_reaches_out_at_once() {
    private_host(|| {
        give_the_host_addresses();
        let host = Rtnl::open().unwrap();
        for (number, (pod_address, host_address)) in
            [("10.88.0.2", "192.0.2.1"), ("fd88::2", "2001:db8::1")].into_iter().enumerate()
        {
            let (pod_address, host_address) = (address(pod_address), address(host_address));
            let pod = Pod::new(&host, &format!("pod{number}"));
            pod.connect(&host, pod_address);
            pod.rtnl.add_address(pod.veth.peer, IpNetwork::from(pod_address)).unwrap();

            let inside = pod.netns.run(|| TcpListener::bind(SocketAddr::new(pod_address, 80)).unwrap()).unwrap();
            greet(TcpStream::connect_timeout(&(pod_address, 80).into(), PATIENCE).unwrap(), &inside, host_address);
            let outside = TcpListener::bind(SocketAddr::new(host_address, 81)).unwrap();
            let out =
                pod.netns.run(|| TcpStream::connect_timeout(&(host_address, 81).into(), PATIENCE).unwrap()).unwrap();
            greet(out, &outside, pod_address);
        }
    });
}

#[test]
fn permanent_neighbours_leave_nothing_to_ask_for() {
    private_host(|| {
        give_the_host_addresses();
        let host = Rtnl::open().unwrap();
        let pod = Pod::new(&host, "pod");
        let pod_address = address("10.88.0.2");
        pod.connect(&host, pod_address);
        pod.rtnl.add_address(pod.veth.peer, IpNetwork::from(pod_address)).unwrap();
        let inside = pod.netns.run(|| TcpListener::bind(SocketAddr::new(pod_address, 80)).unwrap()).unwrap();
        greet(TcpStream::connect_timeout(&(pod_address, 80).into(), PATIENCE).unwrap(), &inside, address("192.0.2.1"));
        for (args, neighbour, mac) in [
            ("-4 neighbour show dev veth-pod", "10.88.0.2", POD_MAC),
            ("-n pod -4 neighbour show dev eth0", "169.254.1.1", HOST_MAC),
        ] {
            let shown = ip(args);
            assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
            assert_eq!(shown[0]["dst"], neighbour);
            assert_eq!(shown[0]["lladdr"], mac.to_string().to_lowercase());
            assert_eq!(shown[0]["state"][0], "PERMANENT");
        }
    });
}

#[test]
fn pods_reach_each_other_over_the_host() {
    private_host(|| {
        let host = Rtnl::open().unwrap();
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            kernel::sysctl::set(name, "1").unwrap();
        }
        for (number, (first, second)) in [("10.88.0.2", "10.88.0.3"), ("fd88::2", "fd88::3")].into_iter().enumerate() {
            let (first, second) = (address(first), address(second));
            let [red, blue] = [("red", first), ("blue", second)].map(|(name, ip)| {
                let pod = Pod::new(&host, &format!("{name}{number}"));
                pod.connect(&host, ip);
                pod.rtnl.add_address(pod.veth.peer, IpNetwork::from(ip)).unwrap();
                pod
            });
            let listener = blue.netns.run(|| TcpListener::bind(SocketAddr::new(second, 80)).unwrap()).unwrap();
            let client = red.netns.run(|| TcpStream::connect_timeout(&(second, 80).into(), PATIENCE).unwrap()).unwrap();
            greet(client, &listener, first);
        }
    });
}

/// The addresses of a pod and of the host in one family.
#[derive(Clone, Copy)]
struct Ends {
    pod: fn(u8) -> IpAddr,
    host: &'static str,
}

const INET: Ends = Ends { pod: |number| IpAddr::from([10, 88, 1, number]), host: "192.0.2.1" };
const INET6: Ends = Ends { pod: |number| IpAddr::from([0xfd88, 0, 0, 0, 0, 0, 1, number.into()]), host: "2001:db8::1" };

/// Without waiting for RTM_NEWADDR and for the carrier, some of a hundred fresh pods lose it, and a client's
/// retry costs a second. Datagrams are not sent again, so a lost one stays lost.
#[test]
fn the_first_packet_to_a_fresh_pod_is_never_lost() {
    private_host(|| {
        give_the_host_addresses();
        let host = Rtnl::open().unwrap();
        for (ends, first) in [(INET, 0), (INET6, 100)] {
            let lost: Vec<_> = (first..first + 100).filter(|&number| !first_packet_in(&host, ends, number)).collect();
            assert_eq!(lost, [0; 0], "packets to these pods were lost");
        }
    });
}

fn first_packet_in(host: &Rtnl, ends: Ends, number: u8) -> bool {
    let pod = Pod::new(host, &format!("pod{number}"));
    let pod_address = (ends.pod)(number);
    pod.connect(host, pod_address);
    let inside = pod.netns.run(|| UdpSocket::bind("[::]:80").expect("a fresh namespace")).expect("can be entered");
    inside.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let outside = UdpSocket::bind((ends.host, 0)).expect("the host's address");
    pod.rtnl.add_address(pod.veth.peer, IpNetwork::from(pod_address)).expect("eth0 is up");
    outside.send_to(b"first", (pod_address, 80)).expect("a route");
    inside.recv(&mut [0; 8]).is_ok()
}

#[test]
fn the_first_packet_from_a_fresh_pod_and_its_answer_are_never_lost() {
    private_host(|| {
        give_the_host_addresses();
        let host = Rtnl::open().unwrap();
        for (ends, first) in [(INET, 0), (INET6, 100)] {
            let outside = UdpSocket::bind((ends.host, 80)).unwrap();
            outside.set_read_timeout(Some(PATIENCE)).unwrap();
            let answered = |&number: &u8| first_packet_out(&host, ends, &outside, number);
            let lost: Vec<_> = (first..first + 100).filter(|number| !answered(number)).collect();
            assert_eq!(lost, [0; 0], "packets of these pods, or their answers, were lost");
        }
    });
}

fn first_packet_out(host: &Rtnl, ends: Ends, outside: &UdpSocket, number: u8) -> bool {
    let pod = Pod::new(host, &format!("pod{number}"));
    let pod_address = (ends.pod)(number);
    pod.connect(host, pod_address);
    let any = if pod_address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let inside = pod.netns.run(|| UdpSocket::bind(any).expect("a fresh namespace")).expect("can be entered");
    inside.set_read_timeout(Some(PATIENCE)).expect("a socket");
    pod.rtnl.add_address(pod.veth.peer, IpNetwork::from(pod_address)).expect("eth0 is up");
    inside.send_to(b"first", (ends.host, 80)).expect("a default route");
    let Ok((_, from)) = outside.recv_from(&mut [0; 8]) else { return false };
    assert_eq!(from.ip(), pod_address);
    outside.send_to(b"reply", from).expect("a route");
    inside.recv(&mut [0; 8]).is_ok()
}
