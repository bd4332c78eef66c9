//! Tracked flows: which end with a change of mappings, and which go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::common::backend::Backend;
use crate::common::net::{Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, PATIENCE, forward, lan, pod};
use crate::common::plugin::{Attachment, feed};
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    udp_from_before_the_mapping_goes_to_the_pod,
    a_mapping_for_one_address_takes_its_udp_and_leaves_that_of_the_others,
    del_cuts_tcp_through_its_ports_and_nothing_else,
    gc_cuts_the_flows_of_what_it_removes,
    a_take_over_cuts_established_connections,
    a_service_to_the_same_port_of_the_pod_goes_on,
    udp_that_another_network_decides_about_goes_on,
);

/// One client that keeps its port, as a DNS resolver or a QUIC connection does.
struct Client(UdpSocket);

impl Client {
    fn of(host: &Host, to: impl Into<IpAddr>, port: u16) -> Self {
        let to = SocketAddr::new(to.into(), port);
        let from: IpAddr = if to.is_ipv4() { NEIGHBOUR_V4.into() } else { NEIGHBOUR_V6.into() };
        let socket = host.netns.run(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        Self(socket)
    }

    /// The name of whoever answers a datagram. What is refused tells so at the next call, hence the second.
    fn ask(&self) -> Result<String, ErrorKind> {
        let mut buffer = [0; 64];
        let answer = self.0.send(b"?").and_then(|_| self.0.recv(&mut buffer)).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&buffer[..answer]).split(' ').next().unwrap_or_default().to_owned())
    }
}

/// conntrack(8)'s flows of a family that have all these words, without their states and times.
fn flows(family: &str, words: &[&str]) -> Vec<String> {
    let output = sandbox::command("conntrack").args(["-L", "-f", family]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let has_all = |line: &&str| words.iter().all(|word| line.split_whitespace().any(|part| part == *word));
    listed.lines().filter(has_all).map(str::to_owned).collect()
}

fn udp(number: u16, container: u16) -> Value {
    json!([{ "hostPort": number, "containerPort": container, "protocol": "udp" }])
}

fn udp_from_before_the_mapping_goes_to_the_pod(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(5353);
    for (node, family) in [(IpAddr::from(NODE_V4[0]), "ipv4"), (NODE_V6[0].into(), "ipv6")] {
        // Something has to track flows before there is a mapping.
        crate::common::plugin::nft(&["add", "table", "inet", "tracks"]);
        crate::common::plugin::nft(&["add", "chain", "inet", "tracks", "c", "{ type filter hook input priority 0; }"]);
        crate::common::plugin::nft(&["add", "rule", "inet", "tracks", "c", "ct", "state", "new", "accept"]);
        let client = Client::of(&lan, node, 53);
        assert_eq!(client.ask(), Err(ErrorKind::ConnectionRefused));
        assert_eq!(flows(family, &["udp", "dport=53"]).len(), 1);
        let attachment = Attachment::new(&pod, &udp(53, 5353)).on(backend);
        attachment.add().ok();
        assert_eq!(client.ask().as_deref(), Ok("pod2"));
        attachment.del().ok();
        assert_eq!(client.ask(), Err(ErrorKind::ConnectionRefused));
    }
}

fn a_mapping_for_one_address_takes_its_udp_and_leaves_that_of_the_others(backend: Backend) {
    forward();
    let (lan, every, one) = (lan(), pod(2), pod(3));
    every.serve(5353);
    one.serve(5353);
    Attachment::new(&every, &udp(53, 5353)).on(backend).add().ok();
    let (first, second) = (Client::of(&lan, NODE_V4[0], 53), Client::of(&lan, NODE_V4[1], 53));
    assert_eq!((first.ask().as_deref(), second.ask().as_deref()), (Ok("pod2"), Ok("pod2")));
    let before = flows("ipv4", &["udp", "dst=192.0.2.2"]);
    let exact = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1" }]);
    let exact = Attachment::new(&one, &exact).on(backend);
    exact.add().ok();
    assert_eq!((first.ask().as_deref(), second.ask().as_deref()), (Ok("pod3"), Ok("pod2")));
    assert_eq!(flows("ipv4", &["udp", "dst=192.0.2.2"]).len(), before.len());
    exact.del().ok();
    assert_eq!(first.ask().as_deref(), Ok("pod2"));
}

#[test]
fn an_earlier_mapping_for_one_address_keeps_its_udp() {
    private_host(|| {
        forward();
        let (lan, every, one) = (lan(), pod(2), pod(3));
        every.serve(5353);
        one.serve(5353);
        let exact = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1" }]);
        Attachment::new(&one, &exact).add().ok();
        let client = Client::of(&lan, NODE_V4[0], 53);
        assert_eq!(client.ask().as_deref(), Ok("pod3"));
        let before = id_of(&flows_with_ids("dst=192.0.2.1"));
        Attachment::new(&every, &udp(53, 5353)).add().ok();
        assert_eq!(id_of(&flows_with_ids("dst=192.0.2.1")), before);
        assert_eq!(client.ask().as_deref(), Ok("pod3"));
    });
}

fn flows_with_ids(word: &str) -> String {
    let output = sandbox::command("conntrack").args(["-L", "-f", "ipv4", "-o", "id"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = listed.lines().filter(|line| line.split_whitespace().any(|part| part == word)).collect();
    let [line] = lines.as_slice() else { panic!("{listed}") };
    (*line).to_owned()
}

fn id_of(line: &str) -> String {
    line.split_whitespace().find(|word| word.starts_with("id=")).unwrap().to_owned()
}

#[test]
fn forwarded_udp_to_the_same_port_is_not_touched() {
    private_host(|| {
        forward();
        let (lan, server, pod) = (lan(), pod(9), pod(2));
        // Another machine, as far as the node can tell: it forwards to it and translates nothing.
        server.serve(53);
        pod.serve(53);
        let other = Attachment::new(&pod, &json!([{ "hostPort": 1, "containerPort": 1 }]));
        other.add().ok();
        let client = Client::of(&lan, server.v4, 53);
        assert_eq!(client.ask().as_deref(), Ok("pod9"));
        let before = id_of(&flows_with_ids("dst=10.88.0.9"));
        let attachment = Attachment::new(&pod, &udp(53, 53)).with("name", json!("second"));
        attachment.add().ok();
        assert_eq!(id_of(&flows_with_ids("dst=10.88.0.9")), before);
        attachment.del().ok();
        assert_eq!(id_of(&flows_with_ids("dst=10.88.0.9")), before);
        assert_eq!(client.ask().as_deref(), Ok("pod9"));
    });
}

/// Echoes lines until the client goes, as a server with long connections does.
fn echo(host: &Host, port: u16) {
    let listener = host.netns.run(|| TcpListener::bind(("::", port)).unwrap()).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

fn connect(host: &Host, to: impl Into<IpAddr>, port: u16) -> TcpStream {
    let to = SocketAddr::new(to.into(), port);
    let stream = host.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends and waits for the echo.
fn speak(mut stream: &TcpStream) -> Result<(), ErrorKind> {
    let mut buffer = [0; 4];
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut buffer)).map_err(|error| error.kind())
}

fn del_cuts_tcp_through_its_ports_and_nothing_else(backend: Backend) {
    forward();
    let (lan, pod, other) = (lan(), pod(2), pod(3));
    echo(&pod, 80);
    echo(&other, 80);
    let (first, second) =
        (json!({ "hostPort": 8080, "containerPort": 80 }), json!({ "hostPort": 8081, "containerPort": 80 }));
    let attachment = Attachment::new(&pod, &json!([first, second])).on(backend);
    attachment.add().ok();
    Attachment::new(&other, &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend).add().ok();
    let cut: Vec<TcpStream> = vec![
        connect(&lan, NODE_V4[0], 8080),
        connect(&lan, NODE_V4[1], 8081),
        connect(&lan, NODE_V6[0], 8080),
        connect(&lan, NODE_V6[1], 8081),
    ];
    let kept: Vec<TcpStream> = vec![
        connect(&lan, pod.v4, 80),
        connect(&lan, pod.v6, 80),
        connect(&lan, NODE_V4[0], 9090),
        connect(&lan, NODE_V6[0], 9090),
    ];
    for stream in cut.iter().chain(&kept) {
        speak(stream).unwrap();
    }
    attachment.del().ok();
    for (family, pod) in [("ipv4", "src=10.88.0.2"), ("ipv6", "src=fd88::2")] {
        assert_eq!(flows(family, &["tcp", pod, "dport=8080"]), Vec::<String>::new());
        assert_eq!(flows(family, &["tcp", pod, "dport=8081"]), Vec::<String>::new());
        assert_eq!(flows(family, &["tcp", pod, "dport=80"]).len(), 1);
    }
    for stream in &kept {
        speak(stream).unwrap();
    }
    for stream in &cut {
        assert_eq!(speak(stream), Err(ErrorKind::ConnectionReset));
    }
}

fn gc_cuts_the_flows_of_what_it_removes(backend: Backend) {
    forward();
    let (lan, pod, other) = (lan(), pod(2), pod(3));
    echo(&pod, 80);
    echo(&other, 80);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    Attachment::new(&other, &json!([{ "hostPort": 8081, "containerPort": 80 }])).on(backend).add().ok();
    let cut = [connect(&lan, NODE_V4[0], 8080), connect(&lan, NODE_V6[0], 8080)];
    let kept = [connect(&lan, NODE_V4[0], 8081), connect(&lan, NODE_V6[0], 8081), connect(&lan, pod.v4, 80)];
    cut.iter().chain(&kept).for_each(|stream| speak(stream).unwrap());
    crate::common::plugin::gc("podnet", &[("pod3", "eth0")]).ok();
    for family in ["ipv4", "ipv6"] {
        assert_eq!(flows(family, &["tcp", "dport=8080"]), Vec::<String>::new());
    }
    kept.iter().for_each(|stream| speak(stream).unwrap());
    for stream in &cut {
        assert_eq!(speak(stream), Err(ErrorKind::ConnectionReset));
    }
}

fn a_take_over_cuts_established_connections(backend: Backend) {
    forward();
    let (lan, old, new) = (lan(), pod(2), pod(3));
    echo(&old, 80);
    echo(&new, 80);
    let [held, next] =
        [&old, &new].map(|pod| Attachment::new(pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend));
    held.add().ok();
    let streams = [connect(&lan, NODE_V4[0], 8080), connect(&lan, NODE_V6[1], 8080)];
    streams.iter().for_each(|stream| speak(stream).unwrap());
    old.die();
    next.add().ok();
    for (family, pod) in [("ipv4", "src=10.88.0.2"), ("ipv6", "src=fd88::2")] {
        assert_eq!(flows(family, &["tcp", pod]), Vec::<String>::new());
    }
    for stream in &streams {
        assert_eq!(speak(stream), Err(ErrorKind::ConnectionReset));
    }
    speak(&connect(&lan, NODE_V4[0], 8080)).unwrap();
}

/// As an ingress controller has it: a host port, and a Service for whoever is in the cluster.
fn a_service_to_the_same_port_of_the_pod_goes_on(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    echo(&pod, 80);
    for (family, service, endpoint) in [("ip", "10.96.0.10", "10.88.0.2:80"), ("ip6", "fd96::10", "[fd88::2]:80")] {
        let text = format!(
            "table {family} service {{ chain nat {{ type nat hook prerouting priority -110; \
             {family} daddr {service} tcp dport 80 dnat to {endpoint}; }}; }}"
        );
        feed("nft", &["-f", "-"], &text);
    }
    let attachment = Attachment::new(&pod, &json!([{ "hostPort": 80, "containerPort": 80 }])).on(backend);
    attachment.add().ok();
    let services: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd96::10".parse().unwrap()];
    let kept = services.map(|service| connect(&lan, service, 80));
    let cut = [connect(&lan, NODE_V4[0], 80), connect(&lan, NODE_V6[0], 80)];
    kept.iter().chain(&cut).for_each(|stream| speak(stream).unwrap());
    attachment.del().ok();
    kept.iter().for_each(|stream| speak(stream).unwrap());
    for stream in &cut {
        assert_eq!(speak(stream), Err(ErrorKind::ConnectionReset));
    }
}

fn udp_that_another_network_decides_about_goes_on(backend: Backend) {
    forward();
    let (lan, limited, open) = (lan(), pod(2), pod(3));
    limited.serve(5353);
    open.serve(5353);
    let ports = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "0.0.0.0" }]);
    let near = json!(["-s", "192.0.2.0/24"]);
    let near = Attachment::new(&limited, &ports).with("conditionsV4", near).with("name", json!("near"));
    let near = near.on(backend);
    near.add().ok();
    let client = Client::of(&lan, NODE_V4[0], 53);
    assert_eq!(client.ask().as_deref(), Ok("pod2"));
    let before = id_of(&flows_with_ids("dst=192.0.2.1"));
    // A mapping that comes behind, and one whose conditions the client does not meet.
    Attachment::new(&open, &ports).on(backend).add().ok();
    let far = Attachment::new(&open, &ports).with("conditionsV4", json!(["-s", "198.51.100.0/24"]));
    far.with("name", json!("far")).on(backend).add().ok();
    assert_eq!(id_of(&flows_with_ids("dst=192.0.2.1")), before);
    assert_eq!(client.ask().as_deref(), Ok("pod2"));
    // One that comes before gets the client that another one had.
    near.del().ok();
    assert_eq!(client.ask().as_deref(), Ok("pod3"));
    near.add().ok();
    assert_eq!(client.ask().as_deref(), Ok("pod2"));
}
