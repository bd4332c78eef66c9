//! Namespaces, links, addresses, and the packets between them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use kernel::netns::{self, NetNs};
use kernel::rtnl::{Route, Rtnl, VethPair};
use kernel::sysctl;
use macaddr::MacAddr6;

/// The node's addresses on the LAN; every test may use both of a family.
pub const NODE_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
pub const NODE_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)];
/// The neighbour's.
pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub const NEIGHBOUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// Nothing here takes longer, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where pods send everything: an address that nobody has.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// `RTPROT_STATIC` of linux/rtnetlink.h.
const STATIC: u8 = 4;

/// A namespace that is joined to the node's by a veth pair. Its own end is `eth0`.
pub struct Host {
    pub name: String,
    pub netns: NetNs,
    pub rtnl: Rtnl,
    /// The node's end.
    pub link: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// A neighbour on the node's LAN, and the node's own addresses there. Sends what is not on the LAN to the node.
pub fn lan() -> Host {
    let host = Host::new("lan", NEIGHBOUR_V4, NEIGHBOUR_V6);
    let node = Rtnl::open().unwrap();
    let (near, far) = (index(&node, &host.link), index(&host.rtnl, "eth0"));
    for address in NODE_V4 {
        node.add_address(near, network(address, 24)).unwrap();
    }
    for address in NODE_V6 {
        node.add_address(near, network(address, 64)).unwrap();
    }
    host.rtnl.add_address(far, network(host.v4, 24)).unwrap();
    host.rtnl.add_address(far, network(host.v6, 64)).unwrap();
    host.route("0.0.0.0/0", Some(NODE_V4[0].into()));
    host.route("::/0", Some(NODE_V6[0].into()));
    host
}

/// A pod as podwire makes one: /32 and /128, a gateway that nobody has, and no address on the node's end.
pub fn pod(number: u8) -> Host {
    let v6 = Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, number.into());
    let host = Host::new(&format!("pod{number}"), Ipv4Addr::new(10, 88, 0, number), v6);
    let node = Rtnl::open().unwrap();
    let (near, far) = (index(&node, &host.link), index(&host.rtnl, "eth0"));
    let (near_mac, far_mac) = (mac(&node, &host.link), mac(&host.rtnl, "eth0"));
    for (address, gateway, default) in
        [(host.v4.into(), GATEWAY_V4.into(), "0.0.0.0/0"), (host.v6.into(), GATEWAY_V6.into(), "::/0")]
    {
        let address: IpAddr = address;
        host.rtnl.add_address(far, IpNetwork::from(address)).unwrap();
        host.rtnl.replace_neighbour(far, gateway, near_mac).unwrap();
        let route = Route { gateway: Some(gateway), onlink: true, ..Route::new(default.parse().unwrap(), far, STATIC) };
        host.rtnl.replace_route(&route).unwrap();
        node.replace_route(&Route::new(IpNetwork::from(address), near, STATIC)).unwrap();
        node.replace_neighbour(near, address, far_mac).unwrap();
    }
    host
}

/// The node forwards, as one with pods does.
pub fn forward() {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl::set(key, "1").unwrap();
    }
}

impl Host {
    fn new(name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        let netns = netns::create_named(format!("/run/netns/{name}")).unwrap();
        let link = format!("to-{name}");
        let [.., last] = v4.octets();
        let node = Rtnl::open().unwrap();
        node.create_veth(&VethPair {
            host: &link,
            host_mac: MacAddr6::new(2, 0, 0, 0, 0, last),
            peer: "eth0",
            peer_mac: MacAddr6::new(2, 0, 0, 0, 1, last),
            peer_netns: std::os::fd::AsFd::as_fd(&netns),
            mtu: None,
            arp: true,
            alias: "",
        })
        .unwrap();
        let rtnl = netns.run(Rtnl::open).unwrap().unwrap();
        for link in ["lo", "eth0"] {
            rtnl.set_up(index(&rtnl, link)).unwrap();
        }
        until_up(&node, &link);
        until_up(&rtnl, "eth0");
        Self { name: name.to_owned(), netns, rtnl, link, v4, v6 }
    }

    /// A route of this namespace out of `eth0`.
    pub fn route(&self, dst: &str, gateway: Option<IpAddr>) {
        let route = Route { gateway, ..Route::new(dst.parse().unwrap(), index(&self.rtnl, "eth0"), STATIC) };
        self.rtnl.replace_route(&route).unwrap();
    }

    /// A sysctl of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.netns.run(|| sysctl::set(key, value)).unwrap().unwrap();
    }

    /// Ends as a killed pod does: its link and its namespace's path go, and nobody tells the plugin.
    pub fn die(&self) {
        let node = Rtnl::open().unwrap();
        assert!(node.delete_link(index(&node, &self.link)).unwrap());
        assert!(netns::remove_named(format!("/run/netns/{}", self.name)).unwrap());
    }

    /// Answers on a port, TCP and UDP, IPv4 and IPv6, until the test ends: its name, and whom it sees.
    pub fn serve(&self, port: u16) {
        self.netns.run(|| serve(&self.name, port)).unwrap();
    }

    /// Connects by TCP and returns the answer.
    pub fn tcp(&self, to: impl Into<IpAddr> + Send, port: u16) -> Answer {
        self.netns.run(|| tcp(to, port)).unwrap()
    }

    /// Sends a datagram and returns the answer.
    pub fn udp(&self, to: impl Into<IpAddr> + Send, port: u16) -> Answer {
        self.netns.run(|| udp(to, port)).unwrap()
    }
}

/// Who answered, and the client's address as it was seen there; or why nobody did.
pub type Answer = Result<(String, IpAddr), io::ErrorKind>;

/// What `serve` of a namespace of that name answers a client that it sees as `seen`.
pub fn from(name: &str, seen: impl Into<IpAddr>) -> Answer {
    Ok((name.to_owned(), seen.into()))
}

/// [`Host::serve`], in the calling thread's namespace.
pub fn serve(name: &str, port: u16) {
    // Both sockets take IPv4 as well, where clients are seen by mapped addresses.
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let (listener, socket) = (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let text = |name: &str, peer: SocketAddr| format!("{name} {}", peer.ip().to_canonical());
    let owned = name.to_owned();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            // A client that is gone is no server's business.
            let _ = stream.write_all(text(&owned, peer).as_bytes());
        }
    });
    let owned = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(text(&owned, peer).as_bytes(), peer);
        }
    });
}

/// Connects by TCP from the calling thread's namespace and returns the answer.
pub fn tcp<A: Into<IpAddr>>(to: A, port: u16) -> Answer {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to.into(), port), PATIENCE).map_err(|e| e.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.kind())?;
    Ok(read(&text))
}

/// Sends a datagram from the calling thread's namespace and returns the answer. The socket is connected, so an
/// answer from another address than the one that was asked is none.
pub fn udp<A: Into<IpAddr>>(to: A, port: u16) -> Answer {
    let to = SocketAddr::new(to.into(), port);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let exchange = socket.connect(to).and_then(|()| socket.send(b"?")).and_then(|_| socket.recv(&mut buffer));
    let length = exchange.map_err(|error| error.kind())?;
    Ok(read(std::str::from_utf8(&buffer[..length]).unwrap()))
}

fn read(answer: &str) -> (String, IpAddr) {
    let (name, seen) = answer.split_once(' ').unwrap();
    (name.to_owned(), seen.parse().unwrap())
}

/// Until the kernel has acted on the carrier of both ends: packets are lost before, and a datagram is not sent again.
fn until_up(rtnl: &Rtnl, link: &str) {
    let end = Instant::now() + PATIENCE;
    while !rtnl.link(link).unwrap().unwrap().carrier {
        assert!(Instant::now() < end, "{link} has no carrier");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn index(rtnl: &Rtnl, link: &str) -> u32 {
    rtnl.link(link).unwrap().unwrap().index
}

fn mac(rtnl: &Rtnl, link: &str) -> MacAddr6 {
    rtnl.link(link).unwrap().unwrap().mac.unwrap()
}

fn network(address: impl Into<IpAddr>, prefix: u8) -> IpNetwork {
    IpNetwork::new(address.into(), prefix).unwrap()
}
