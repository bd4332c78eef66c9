//! Proofs between nodes: each line is one question that was really asked, and what really came back.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::layout;
use crate::exchange::{Answer, Reply};
use crate::manifest::Protocol;
use crate::proof::Outcome;
use crate::stage::{self, Machine, StageError};

/// How long an answer may take. All of them are there in milliseconds; only what is broken waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// One node with its pod.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The node.
    pub node: &'a Machine,
    /// Its pod.
    pub pod: &'a Machine,
}

/// What one node and its pod see of another node's, and the client of the latter.
///
/// # Errors
/// If an asker's namespace cannot be entered; a bad answer is an [`Outcome`].
pub fn between(from: Side<'_>, to: Side<'_>, client: &Machine) -> Result<Vec<Outcome>, StageError> {
    let mut outcomes = Vec::new();
    for v4 in [true, false] {
        let (host_port, port) = layout::PORTS;
        let mut ask = |what: &str, asker: &Machine, target: &Machine, port: u16, seen: &Machine| {
            let (Some(own), Some(at), Some(seen)) = (asker.address(v4), target.address(v4), seen.address(v4)) else {
                return Ok(());
            };
            let (to_address, id) = (SocketAddr::from((at, port)), id(what, from.node, to.node, v4));
            let reply = stage::ask(asker, Protocol::Tcp, to_address, PATIENCE)?;
            let passed =
                matches!(&reply, Reply::Answer(answer) if answer.name == to.pod.name && answer.peer.ip() == seen);
            let expected = if passed { String::new() } else { format!("; expected {} saw {seen}", to.pod.name) };
            let sent = format!("{} {own} -> {} {to_address}", asker.name, target.name);
            outcomes.push(Outcome { id, passed, sent, came_back: format!("{reply}{expected}"), needs: Vec::new() });
            Ok::<(), StageError>(())
        };
        ask("pod-pod-tcp", from.pod, to.pod, port, from.pod)?;
        ask("node-pod-tcp", from.node, to.pod, port, from.node)?;
        // Nodes are not in the cluster's range: whoever asks one of them is masqueraded by its own node.
        ask("pod-hostport-tcp", from.pod, to.node, host_port, from.node)?;
        ask("client-hostport-tcp", client, to.node, host_port, client)?;
        outcomes.extend(largest(from, to, v4)?);
    }
    Ok(outcomes)
}

/// A datagram that fills the wire's MTU goes through whole. By default the kernel forbids routers to break up what
/// fits the way (`IP_PMTUDISC_WANT`, ip(7)), and breaks up by itself what does not, which it counts.
fn largest(from: Side<'_>, to: Side<'_>, v4: bool) -> Result<Option<Outcome>, StageError> {
    let Some((own, at)) = from.pod.address(v4).zip(to.pod.address(v4)) else { return Ok(None) };
    let headers = if v4 { 20 + 8 } else { 40 + 8 };
    let target = SocketAddr::from((at, layout::PORTS.1));
    let ask = move || -> io::Result<(Answer, u64)> {
        let before = broken_up(v4)?;
        let answer = send(target, usize::from(layout::MTU) - headers)?;
        Ok((answer, broken_up(v4)? - before))
    };
    let asked = from.pod.netns.run(ask).map_err(|source| stage::namespace(&from.pod.name, source))?;
    let (passed, came_back) = match asked {
        Ok((answer, 0)) => {
            (answer.name == to.pod.name && answer.peer.ip() == own, format!("{} saw {}", answer.name, answer.peer.ip()))
        }
        Ok((_, pieces)) => (false, format!("it was broken up into {pieces} pieces")),
        Err(error) => (false, error.to_string()),
    };
    let sent = format!("{} {own} -> {} {target}, {} bytes unbroken", from.pod.name, to.pod.name, layout::MTU);
    let id = id("pod-pod-mtu-udp", from.node, to.node, v4);
    Ok(Some(Outcome { id, passed, sent, came_back, needs: Vec::new() }))
}

fn id(what: &str, from: &Machine, to: &Machine, v4: bool) -> String {
    format!("{}-{}-{what}{}", from.name, to.name, if v4 { 4 } else { 6 })
}

fn send(to: SocketAddr, length: usize) -> io::Result<Answer> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(&vec![b'.'; length])?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer)?;
    serde_json::from_slice(&answer[..length]).map_err(io::Error::from)
}

/// How many fragments this namespace has made (`IpFragCreates`, RFC 2011 and RFC 2465).
fn broken_up(v4: bool) -> io::Result<u64> {
    let count = if v4 {
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let place = names.split(' ').position(|name| name == "FragCreates");
        place.and_then(|place| values.split(' ').nth(place).map(str::to_owned))
    } else {
        let text = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        text.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).map(|value| value.trim().to_owned())
    };
    count.and_then(|count| count.parse().ok()).ok_or_else(|| io::Error::other("the kernel counts no fragments"))
}
