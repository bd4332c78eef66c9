//! Real connections through the example of host ports: a client's namespace, the host, two pods.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use kernel::netns::{self, NetNs};
use kernel::nft::Nft;
use kernel::sysctl;
use nft_model::{Change, Element, Family, Proto, Table};

use crate::models::{exact_key, hostport, ip, target, wild_key};

/// The addresses of a family.
struct Addresses {
    host: &'static str,
    other: &'static str,
    client: &'static str,
    gateway: &'static str,
    pods: [&'static str; 2],
    link: u8,
    whole: u8,
}

const V4: Addresses = Addresses {
    host: "192.168.50.1",
    other: "192.168.50.3",
    client: "192.168.50.2",
    gateway: "10.88.0.1",
    pods: ["10.88.0.2", "10.88.0.3"],
    link: 24,
    whole: 32,
};

const V6: Addresses = Addresses {
    host: "fd50::1",
    other: "fd50::3",
    client: "fd50::2",
    gateway: "fd88::1",
    pods: ["fd88::2", "fd88::3"],
    link: 64,
    whole: 128,
};

fn addresses(family: Family) -> Addresses {
    match family {
        Family::Ip => V4,
        Family::Ip6 => V6,
    }
}

/// Everything between which packets go.
struct Stage {
    client: NetNs,
    pods: [NetNs; 2],
    host: NetNs,
}

fn run_ip(arguments: &str) {
    let output = sandbox::command("ip").args(arguments.split(' ')).output().expect("ip starts");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Stage {
    fn build() -> Self {
        let [client, one, two] = ["client", "pod0", "pod1"].map(|name| {
            let namespace = netns::create_named(format!("/run/netns/{name}")).expect("a namespace");
            run_ip(&format!("link add h{name} type veth peer name eth0 netns {name}"));
            run_ip(&format!("link set h{name} up"));
            run_ip(&format!("-n {name} link set lo up"));
            run_ip(&format!("-n {name} link set eth0 up"));
            namespace
        });
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl::set(name, "1").expect("writable");
        }
        for number in 0..2 {
            // Packets from 127.0.0.1 to a pod, before they are masqueraded, need this.
            sysctl::set(&format!("net/ipv4/conf/hpod{number}/route_localnet"), "1").expect("writable");
        }
        for Addresses { host, other, client, gateway, pods, link, whole } in [V4, V6] {
            let nodad = if host.contains(':') { " nodad" } else { "" };
            run_ip(&format!("addr add {host}/{link} dev hclient{nodad}"));
            run_ip(&format!("addr add {other}/{link} dev hclient{nodad}"));
            run_ip(&format!("-n client addr add {client}/{link} dev eth0{nodad}"));
            run_ip(&format!("-n client route add default via {host}"));
            for (number, pod) in pods.iter().enumerate() {
                run_ip(&format!("addr add {gateway}/{whole} dev hpod{number}{nodad}"));
                run_ip(&format!("route add {pod}/{whole} dev hpod{number}"));
                run_ip(&format!("-n pod{number} addr add {pod}/{whole} dev eth0{nodad}"));
                run_ip(&format!("-n pod{number} route add default via {gateway} dev eth0 onlink"));
            }
        }
        let stage = Self { client, pods: [one, two], host: NetNs::current().expect("a namespace") };
        stage.serve(0, 80, "first");
        stage.serve(1, 80, "second");
        // What a pod itself has on a mapped port.
        stage.serve(1, 8080, "own");
        stage
    }

    /// A server in a pod that tells its name and who it sees.
    fn serve(&self, pod: usize, port: u16, name: &'static str) {
        let listen = move || TcpListener::bind(("::", port)).expect("a free port");
        let listener = self.pods[pod].run(listen).expect("a thread");
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("a connection");
                let peer = connection.peer_addr().expect("a peer").ip().to_canonical();
                // A client that went away again is its own business.
                let _ = write!(connection, "{name} {peer}");
            }
        });
    }
}

/// Who answers at an address and port, and whom they see; `None` if nobody does.
fn ask(from: &NetNs, address: &str, port: u16) -> Option<(String, IpAddr)> {
    let address = SocketAddr::new(ip(address), port);
    let ask = move || {
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(30)).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (name, peer) = answer.split_once(' ').expect("name and peer");
        Some((name.to_owned(), ip(peer)))
    };
    from.run(ask).expect("a thread")
}

fn seen(name: &str, peer: &str) -> Option<(String, IpAddr)> {
    Some((name.to_owned(), ip(peer)))
}

fn mapped(family: Family, frame: &Table) -> Vec<Change> {
    let Addresses { host, pods, .. } = addresses(family);
    let exact = Element::map(exact_key(host, Proto::Tcp, 8080), target(pods[0], 80));
    let wild = [8080, 9090].map(|port| Element::map(wild_key(Proto::Tcp, port), target(pods[1], 80)));
    let hairpin = pods.map(|pod| Element::new([ip(pod).into(), ip(pod).into()]));
    vec![
        frame.add_elements("exact", vec![exact]).expect("fits"),
        frame.add_elements("wild", wild.to_vec()).expect("fits"),
        frame.add_elements("hairpin", hairpin.to_vec()).expect("fits"),
    ]
}

fn connections(family: Family) {
    let stage = Stage::build();
    let Addresses { host, other, client, gateway, pods, .. } = addresses(family);
    let frame = hostport(family).without_elements();
    let mut nft = Nft::open().expect("a socket");
    assert_eq!(ask(&stage.client, host, 8080), None);
    nft.commit(&[vec![Change::AddTable(frame.clone())], mapped(family, &frame)].concat()).expect("commit");

    // From outside: the exact address beats the wildcard, and the client's address stays what it is.
    assert_eq!(ask(&stage.client, host, 8080), seen("first", client));
    assert_eq!(ask(&stage.client, other, 8080), seen("second", client));
    assert_eq!(ask(&stage.client, host, 9090), seen("second", client));
    assert_eq!(ask(&stage.client, host, 9091), None);
    // What goes through the host is nobody's host port.
    assert_eq!(ask(&stage.client, pods[1], 8080), seen("own", client));
    assert_eq!(ask(&stage.pods[0], pods[1], 8080), seen("own", pods[0]));
    // From a pod to itself, where the answer must come back by way of the host, and to the other one.
    assert_eq!(ask(&stage.pods[0], host, 8080), seen("first", gateway));
    assert_eq!(ask(&stage.pods[1], other, 8080), seen("second", gateway));
    assert_eq!(ask(&stage.pods[0], other, 8080), seen("second", pods[0]));
    // From the host.
    assert_eq!(ask(&stage.host, host, 8080).map(|(name, _)| name), Some("first".to_owned()));
    assert_eq!(ask(&stage.host, other, 8080).map(|(name, _)| name), Some("second".to_owned()));
    if family == Family::Ip {
        assert_eq!(ask(&stage.host, "127.0.0.1", 9090), seen("second", gateway));
    }

    // Without the exact mapping the wildcard's turn comes; without that, nobody's.
    let exact = vec![exact_key(host, Proto::Tcp, 8080)];
    nft.commit(&[frame.destroy_elements("exact", exact).expect("fits")]).expect("commit");
    assert_eq!(ask(&stage.client, host, 8080), seen("second", client));
    let wild = vec![wild_key(Proto::Tcp, 8080)];
    nft.commit(&[frame.destroy_elements("wild", wild).expect("fits")]).expect("commit");
    assert_eq!(ask(&stage.client, host, 8080), None);
    assert_eq!(ask(&stage.client, host, 9090), seen("second", client));
}

#[test]
fn host_ports_lead_to_pods() {
    sandbox::private_host(|| connections(Family::Ip));
}

#[test]
fn host_ports_lead_to_pods_over_ipv6() {
    sandbox::private_host(|| connections(Family::Ip6));
}

#[test]
fn a_commit_is_in_force_when_it_returns() {
    sandbox::private_host(|| {
        let stage = Stage::build();
        let frame = hostport(Family::Ip).without_elements();
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame.clone())]).expect("commit");
        let element = Element::map(wild_key(Proto::Tcp, 7000), target(V4.pods[0], 80));
        let add = frame.add_elements("wild", vec![element.clone()]).expect("fits");
        let destroy = frame.destroy_elements("wild", vec![element.key]).expect("fits");
        for _ in 0..20 {
            nft.commit(std::slice::from_ref(&add)).expect("commit");
            assert_eq!(ask(&stage.client, V4.host, 7000), seen("first", V4.client));
            nft.commit(std::slice::from_ref(&destroy)).expect("commit");
            assert_eq!(ask(&stage.client, V4.host, 7000), None);
        }
    });
}
