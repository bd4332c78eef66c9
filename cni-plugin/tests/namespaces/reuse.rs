//! An address that goes from one pod to the next at once: traffic goes to the new one, however it began.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{DEADLINE, TestPod, addresses, dual_stack, run, text, until_up, until_usable, with};

const ROUNDS: usize = 500;
const PORT: u16 = 7000;

/// One address of each family, so that every pod gets the one that the last had.
fn one_address() -> Value {
    with(
        dual_stack(),
        &json!({ "ipam": { "type": "podwire-ipam", "podCIDR": ["10.244.1.5/32", "fd00:10:244:1::5/128"] } }),
    )
}

/// A client beyond the node, so that the node forwards and tracks what it sends.
fn client_beyond_the_node() -> NetNs {
    let path = "/run/netns/client";
    let client = kernel::netns::create_named(path).unwrap();
    for arguments in [
        "link add uplink type veth peer name eth0 netns client",
        "address add 192.168.50.1/24 dev uplink",
        "address add fd50::1/64 dev uplink nodad",
        "link set uplink up",
        "-n client address add 192.168.50.9/24 dev eth0",
        "-n client address add fd50::9/64 dev eth0 nodad",
        "-n client link set eth0 up",
        "-n client route add default via 192.168.50.1",
        "-n client route add default via fd50::1",
    ] {
        text("ip", &arguments.split(' ').collect::<Vec<_>>());
    }
    // Until then datagrams are lost.
    until_up("uplink");
    client.run(|| until_up("eth0")).unwrap();
    until_usable("fd50::1");
    client.run(|| until_usable("fd50::9")).unwrap();
    client
}

/// What runs in a pod: says its name to whoever asks, until it is told to stop.
struct Server {
    sockets: Vec<(TcpListener, UdpSocket)>,
}

impl Server {
    fn in_pod(pod: &TestPod, ips: &[IpAddr]) -> Self {
        let bind = |ip: &IpAddr| {
            let at = SocketAddr::new(*ip, PORT);
            (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap())
        };
        Self { sockets: pod.netns.run(|| ips.iter().map(bind).collect()).unwrap() }
    }

    /// Answers one question of each kind at each address.
    fn answer(self, name: &str) -> JoinHandle<()> {
        let name = name.to_owned();
        std::thread::spawn(move || {
            for (listener, datagrams) in self.sockets {
                datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
                let (_, from) = datagrams.recv_from(&mut [0; 16]).unwrap();
                datagrams.send_to(name.as_bytes(), from).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                std::io::Write::write_all(&mut stream, name.as_bytes()).unwrap();
            }
        })
    }
}

/// Asks by a datagram of a socket that has been asking for a while, and by a fresh connection.
fn ask(client: &NetNs, datagrams: &UdpSocket, ip: IpAddr) -> [String; 2] {
    let to = SocketAddr::new(ip, PORT);
    datagrams.send_to(b"who?", to).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
    assert_eq!(from, to);
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    [String::from_utf8(buffer[..length].to_vec()).unwrap(), heard]
}

#[test]
fn traffic_goes_to_the_new_pod_500_times_of_500() {
    sandbox::private_host(|| {
        let client = client_beyond_the_node();
        let sockets = ["192.168.50.9:5000", "[fd50::9]:5000"].map(|at| {
            let socket = client.run(|| UdpSocket::bind(at)).unwrap().unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        });
        let config = one_address();
        for round in 0..ROUNDS {
            let pod = TestPod::new(&format!("pod-{round}"));
            let ips = addresses(&pod.add(&config).ok().json());
            let server = Server::in_pod(&pod, &ips).answer(&pod.id);
            for (ip, socket) in ips.into_iter().zip(&sockets) {
                assert_eq!(ask(&client, socket, ip), [pod.id.clone(), pod.id.clone()], "round {round}, {ip}");
            }
            server.join().unwrap();
            match round % 3 {
                // With its namespace, with the namespace still there but unnamed, with it gone.
                0 => drop(pod.del(&config).ok()),
                1 => {
                    let mut env = pod.env("DEL");
                    env.retain(|(name, _)| *name != "CNI_NETNS");
                    run(&env, &config).ok();
                }
                _ => {
                    kernel::netns::remove_named(&pod.path).unwrap();
                    pod.del(&config).ok();
                }
            }
            drop(kernel::netns::remove_named(&pod.path));
        }
    });
}

/// The reference `static` gives the same address to whoever asks, as an IPAM does that forgot a pod whose DEL never came.
#[test]
fn an_address_is_taken_over_from_a_pod_that_was_never_deleted() {
    sandbox::private_host(|| {
        let client = client_beyond_the_node();
        let datagrams = client.run(|| UdpSocket::bind("192.168.50.9:5000")).unwrap().unwrap();
        datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
        let ipam = json!({ "type": "static", "addresses": [{ "address": "10.244.1.5/32" }] });
        let config = with(dual_stack(), &json!({ "cniVersion": "1.0.0", "ipam": ipam }));
        let ask_of = |pod: &TestPod, ip: IpAddr| {
            let server = Server::in_pod(pod, &[ip]).answer(&pod.id);
            assert_eq!(ask(&client, &datagrams, ip), [pod.id.clone(), pod.id.clone()]);
            server.join().unwrap();
        };
        let (old, new) = (TestPod::new("old"), TestPod::new("new"));
        let ips = addresses(&old.add(&config).ok().json());
        ask_of(&old, ips[0]);
        let result = new.add(&config).ok().json();
        assert_eq!(addresses(&result), ips);
        ask_of(&new, ips[0]);
        // The DEL that comes at last is about the old pod alone.
        old.del(&config).ok();
        ask_of(&new, ips[0]);
        new.check(&config, &result).ok();
    });
}
