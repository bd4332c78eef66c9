//! Tracked flows: which end with a change of mappings, and which go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::common::backend::Backend;
use crate::common::net::{Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, PATIENCE, forward, lan, pod};
use crate::common::plugin::Attachment;
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    udp_from_before_the_mapping_goes_to_the_pod,
    a_mapping_for_one_address_takes_its_udp_and_leaves_that_of_the_others,
    del_cuts_tcp_through_its_ports_and_nothing_else,
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

#[test]
fn gc_cuts_the_flows_of_what_it_removes() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        echo(&pod, 80);
        Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        let stream = connect(&lan, NODE_V4[0], 8080);
        speak(&stream).unwrap();
        crate::common::plugin::gc("podnet", &[]).ok();
        assert_eq!(flows("ipv4", &["tcp", "dport=8080"]), Vec::<String>::new());
        assert_eq!(speak(&stream), Err(ErrorKind::ConnectionReset));
    });
}
