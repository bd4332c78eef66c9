//! What arrives: packets between pods, the node, and what is outside of it.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{MAIN, cases};
use crate::host::Host;
use crate::host::exec::tool;
use crate::host::net::{Protocol, Reply, Server, ask};
use crate::host::pod::{self, Pod};
use crate::host::shape::{bare_addresses, family};
use crate::verdict::{Finding, Verdict, ensure, fail, skip};

cases! { "packets":
    "DP-1" since "0.1.0" in "2, Overview" for MAIN => |host| pod_to_pod(host, "4", Protocol::Tcp, 1_000_000),
        "A pod reaches a pod by TCP over IPv4",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A megabyte goes from one pod to a server in another; it must arrive whole.";
    "DP-2" since "0.1.0" in "2, Overview" for MAIN => |host| pod_to_pod(host, "4", Protocol::Udp, 1200),
        "A pod reaches a pod by UDP over IPv4",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A datagram goes from one pod to a server in another; it must arrive whole.";
    "DP-3" since "0.3.0" in "2, Overview" for MAIN => |host| pod_to_pod(host, "6", Protocol::Tcp, 1_000_000),
        "A pod reaches a pod by TCP over IPv6",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A megabyte goes from one pod to a server in another; it must arrive whole.";
    "DP-4" since "0.3.0" in "2, Overview" for MAIN => |host| pod_to_pod(host, "6", Protocol::Udp, 1200),
        "A pod reaches a pod by UDP over IPv6",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A datagram goes from one pod to a server in another; it must arrive whole.";
    "DP-5" since "0.1.0" in "1, Plugin configuration objects" for MAIN => address_is_kept,
        "A pod sees the other pod's own address",
        "ipMasq: This is necessary if the host will act as a gateway to subnets that are not able to route to the IP assigned to the container.",
        "A pod asks a server in another pod who is asking; the answer must be the pod's own address.";
    "DP-6" since "0.1.0" in "2, Overview" for MAIN => node_to_pod,
        "The node reaches a pod",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A server in a pod is asked from the host, by TCP and UDP, over each family; it must answer.";
    "DP-7" since "0.1.0" in "2, Overview" for MAIN => pod_to_node,
        "A pod reaches the node",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A server on the host is asked from a pod, by TCP and UDP, at the host's address in another network; it must answer.";
    "DP-8" since "0.1.0" in "1, Plugin configuration objects" for MAIN => |host| pod_to_outside(host, "4"),
        "With ipMasq, a pod reaches what has no route back, over IPv4",
        "ipMasq: If supported by the plugin, sets up an IP masquerade on the host for this network.",
        "A server in a namespace beyond the host, which knows no pods, is asked from a pod; it must see the host's address.";
    "DP-9" since "0.3.0" in "1, Plugin configuration objects" for MAIN => |host| pod_to_outside(host, "6"),
        "With ipMasq, a pod reaches what has no route back, over IPv6",
        "ipMasq: If supported by the plugin, sets up an IP masquerade on the host for this network.",
        "A server in a namespace beyond the host, which knows no pods, is asked from a pod; it must see the host's address.";
    "DP-10" since "0.1.0" in "2, Overview" for MAIN => itself,
        "A pod reaches itself at its own address",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A server in a pod is asked from the same pod at each of its addresses; it must answer.";
    "DP-11" since "0.1.0" in "2, DEL" for MAIN => silent_after_del,
        "After DEL nothing answers at the pod's address",
        "Delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "A server in a pod is asked from another pod before and after DEL; only the first question may be answered.";
    "DP-12" since "0.1.0" in "2, DEL" for MAIN => others_go_on,
        "After DEL of one pod the others still reach each other",
        "Delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "Three pods, one is DELeted; the other two must reach each other.";
    "DP-13" since "0.1.0" in "2, DEL" for MAIN => reused_address,
        "A pod with another's former address is reached",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "In a small pool pods come and go until an address is given out again; that pod must be reached from the host and a pod.";
    "DP-14" since "0.1.0" in "2, Overview" for MAIN => large_datagram,
        "A datagram larger than the MTU arrives",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A datagram of 9000 bytes goes from one pod to another and to the host; it must arrive whole.";
    "DP-15" since "0.1.0" in "practice: nothing should wait for address detection" for MAIN => first_packet,
        "A pod can use its addresses as soon as ADD has answered",
        "If the CNI plugin is successful, it must output a result structure.",
        "ADD; right afterwards a socket in the pod is bound to each address of the result, which a tentative address refuses.";
    "DP-16" since "0.1.0" in "3, Lifecycle & Ordering" for MAIN => survives_others,
        "A connection survives that other pods come and go",
        "Plugins must handle being executed concurrently across different containers.",
        "A TCP connection between two pods is open while three others are ADDed and DELeted; data must still go through it.";
    "DP-17" since "0.1.0" in "2, Overview" for MAIN => full_packets,
        "A packet as large as the interface's MTU goes through",
        "Interface plugins create a network interface inside the container and ensure it has connectivity.",
        "A datagram that fills a packet goes from one pod to another; it must arrive, and `ip -j route get` in the asking pod must know of no smaller MTU on the way.";
}

const PORT: u16 = 8080;

/// Skips if the target is not there to connect.
pub(super) fn connecting(host: &Host) -> Verdict {
    if let Some(why) = &host.target.traits.without_packets {
        skip!("{why}");
    }
    if !host.target.traits.connects {
        skip!("the target file does not promise that pods are connected");
    }
    Ok(())
}

/// Skips if pods and the node are not there to reach each other.
fn on_the_node(host: &Host) -> Verdict {
    if !host.target.traits.node {
        skip!("the target file does not promise that pods and the node reach each other");
    }
    Ok(())
}

pub(super) fn attached(host: &Host) -> Verdict<(Pod, Value)> {
    connecting(host)?;
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

/// The pod's address of this family; skips if the target does not promise one.
fn address(host: &Host, result: &Value, wanted: &str) -> Verdict<IpAddr> {
    let promised = if wanted == "4" { host.target.traits.ipv4 } else { host.target.traits.ipv6 };
    if !promised {
        skip!("neither the target file nor the conflist promises IPv{wanted}");
    }
    let found = bare_addresses(result).into_iter().find(|address| family(address) == wanted);
    match found.and_then(|address| address.parse().ok()) {
        Some(address) => Ok(address),
        None => fail!("the pod has no IPv{wanted} address: {result}"),
    }
}

fn parsed(result: &Value) -> Vec<IpAddr> {
    bare_addresses(result).iter().filter_map(|address| address.parse().ok()).collect()
}

/// That the question is answered by this server, with all bytes.
fn reaches(from: Option<&Pod>, protocol: Protocol, to: SocketAddr, bytes: usize, server: &str) -> Verdict<Reply> {
    let path = from.map(|pod| pod.path.as_str());
    let name = from.map_or("the host", |pod| pod.id.as_str());
    match ask(path, protocol, to, bytes)? {
        Some(reply) if reply.server == server && reply.bytes == bytes => Ok(reply),
        Some(reply) => fail!("{name} asked {server} at {to} by {protocol:?} with {bytes} bytes and got {reply:?}"),
        None => fail!("{name} got no answer from {server} at {to} by {protocol:?} with {bytes} bytes"),
    }
}

/// The same with a pod that has a name.
fn attached_by_name(host: &Host) -> Verdict<(Pod, Value)> {
    connecting(host)?;
    let pod = super::named_pod(host)?;
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

/// The same with a pod that uses what the plugin offers.
fn attached_busy(host: &Host) -> Verdict<(Pod, Value)> {
    connecting(host)?;
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

fn pod_to_pod(host: &Host, family: &str, protocol: Protocol, bytes: usize) -> Verdict {
    let ((one, _), (two, result)) = (attached_by_name(host)?, attached(host)?);
    let to = SocketAddr::new(address(host, &result, family)?, PORT);
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    reaches(Some(&one), protocol, to, bytes, "two").map(drop)
}

fn address_is_kept(host: &Host) -> Verdict {
    let ((one, mine), (two, result)) = (attached(host)?, attached(host)?);
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    for to in parsed(&result) {
        let reply = reaches(Some(&one), Protocol::Tcp, SocketAddr::new(to, PORT), 10, "two")?;
        ensure!(
            bare_addresses(&mine).contains(&reply.asker),
            "{to} saw {} instead of {:?}",
            reply.asker,
            bare_addresses(&mine)
        );
    }
    Ok(())
}

fn node_to_pod(host: &Host) -> Verdict {
    on_the_node(host)?;
    let (pod, result) = attached_busy(host)?;
    let _server = Server::start(Some(&pod.path), PORT, "pod")?;
    for to in parsed(&result) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            reaches(None, protocol, SocketAddr::new(to, PORT), 1000, "pod")?;
        }
    }
    Ok(())
}

/// A namespace beyond the host, which has no routes to pods. Addresses: the host's, then the outside's.
pub(super) struct Outside {
    /// CNI_NETNS of that namespace.
    pub path: String,
}

/// The host's addresses towards the outside.
pub(super) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];
/// The outside's addresses.
pub(super) const BEYOND: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];

pub(super) fn outside() -> Verdict<Outside> {
    tool("ip", &["netns", "add", "outside"])?;
    tool("ip", &["link", "add", "scafout", "type", "veth", "peer", "name", "eth0", "netns", "outside"])?;
    pod::without_detection(None, "scafout")?;
    pod::without_detection(Some("/run/netns/outside"), "eth0")?;
    let near = [
        "address add 192.0.2.1/24 dev scafout",
        "address add 2001:db8:1::1/64 dev scafout nodad",
        "link set scafout up",
    ];
    pod::tool_batch(&[], &near)?;
    let far = [
        "link set lo up",
        "address add 192.0.2.2/24 dev eth0",
        "address add 2001:db8:1::2/64 dev eth0 nodad",
        "link set eth0 up",
    ];
    pod::tool_batch(&["-n", "outside"], &far)?;
    Ok(Outside { path: "/run/netns/outside".to_owned() })
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The residue check would find it.
        let _ = tool("ip", &["link", "delete", "scafout"]);
        let _ = tool("ip", &["netns", "delete", "outside"]);
    }
}

fn pod_to_node(host: &Host) -> Verdict {
    on_the_node(host)?;
    let (pod, result) = attached(host)?;
    let _outside = outside()?;
    let _server = Server::start(None, PORT, "node")?;
    for to in NODE.iter().filter(|to| bare_addresses(&result).iter().any(|own| family(own) == family(to))) {
        let to: IpAddr = to.parse().map_err(|_| Finding::Trouble(format!("{to} is no address")))?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            reaches(Some(&pod), protocol, SocketAddr::new(to, PORT), 1000, "node")?;
        }
    }
    Ok(())
}

fn pod_to_outside(host: &Host, wanted: &str) -> Verdict {
    if !host.target.traits.masquerades {
        skip!("neither the target file nor the conflist promises masquerading");
    }
    let (pod, result) = attached(host)?;
    address(host, &result, wanted)?;
    let outside = outside()?;
    let _server = Server::start(Some(&outside.path), PORT, "outside")?;
    let index = usize::from(wanted == "6");
    let to: IpAddr = BEYOND[index].parse().map_err(|_| Finding::Trouble("no address".to_owned()))?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let reply = reaches(Some(&pod), protocol, SocketAddr::new(to, PORT), 1000, "outside")?;
        ensure!(reply.asker == NODE[index], "the outside saw {} instead of {}", reply.asker, NODE[index]);
    }
    Ok(())
}

fn itself(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    let _server = Server::start(Some(&pod.path), PORT, "pod")?;
    for to in parsed(&result) {
        reaches(Some(&pod), Protocol::Tcp, SocketAddr::new(to, PORT), 10, "pod")?;
    }
    Ok(())
}

fn silent_after_del(host: &Host) -> Verdict {
    let ((one, _), (two, result)) = (attached(host)?, attached(host)?);
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    for to in parsed(&result) {
        reaches(Some(&one), Protocol::Tcp, SocketAddr::new(to, PORT), 10, "two")?;
    }
    host.detach(&two, Some(&result))?;
    for to in parsed(&result) {
        let patience = crate::host::net::SILENCE;
        let reply = crate::host::net::ask_for(Some(&one.path), Protocol::Tcp, SocketAddr::new(to, PORT), 10, patience)?;
        ensure!(reply.is_none(), "after DEL {to} still answers: {reply:?}");
    }
    Ok(())
}

fn others_go_on(host: &Host) -> Verdict {
    let ((one, _), (two, result), (gone, lost)) = (attached(host)?, attached(host)?, attached(host)?);
    host.detach(&gone, Some(&lost))?;
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    for to in parsed(&result) {
        reaches(Some(&one), Protocol::Tcp, SocketAddr::new(to, PORT), 10, "two")?;
    }
    Ok(())
}

fn reused_address(host: &Host) -> Verdict {
    connecting(host)?;
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let asker = host.pod()?;
    host.attach_with(&asker, patch)?;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let pod = host.pod()?;
        let result = host.attach_with(&pod, patch)?;
        let addresses = parsed(&result);
        let _server = Server::start(Some(&pod.path), PORT, "pod")?;
        for to in &addresses {
            // The host and its neighbour learn the address, so that the next holder meets what they remember.
            if host.target.traits.node {
                reaches(None, Protocol::Tcp, SocketAddr::new(*to, PORT), 10, "pod")?;
            }
            reaches(Some(&asker), Protocol::Tcp, SocketAddr::new(*to, PORT), 10, "pod")?;
        }
        if addresses.iter().any(|address| seen.contains(address)) {
            return Ok(());
        }
        seen.extend(addresses);
        host.detach(&pod, Some(&result))?;
    }
    skip!("no address was given out again in 20 rounds")
}

fn large_datagram(host: &Host) -> Verdict {
    let ((one, _), (two, result)) = (attached(host)?, attached(host)?);
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    for to in parsed(&result) {
        reaches(Some(&one), Protocol::Udp, SocketAddr::new(to, PORT), 9000, "two")?;
        if host.target.traits.node {
            reaches(None, Protocol::Udp, SocketAddr::new(to, PORT), 9000, "two")?;
        }
    }
    Ok(())
}

fn full_packets(host: &Host) -> Verdict {
    let ((one, _), (two, result)) = (attached(host)?, attached(host)?);
    let mtu = one.link()?.and_then(|link| link.get("mtu")?.as_u64()).unwrap_or_default();
    let Some(room) = usize::try_from(mtu).ok().filter(|mtu| *mtu >= 1280) else { fail!("the MTU is {mtu}") };
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    for to in parsed(&result) {
        let headers = if to.is_ipv4() { 20 + 8 } else { 40 + 8 };
        reaches(Some(&one), Protocol::Udp, SocketAddr::new(to, PORT), room - headers, "two")?;
        let route = one.ip(&["route", "get", &to.to_string()])?;
        ensure!(!route.to_string().contains("\"mtu\""), "the way to {to} has a smaller MTU than {mtu}: {route}");
    }
    Ok(())
}

fn first_packet(host: &Host) -> Verdict {
    connecting(host)?;
    for number in 0..4 {
        // All four live at once, so each has host ports of its own.
        let pod = super::busy(host, host.pod()?, number);
        let result = host.attach(&pod)?;
        for address in parsed(&result) {
            let bound =
                crate::host::net::inside(Some(&pod.path), || Ok(std::net::UdpSocket::bind((address, 0)).is_ok()))?;
            ensure!(bound, "{address} cannot be used yet");
        }
    }
    Ok(())
}

fn survives_others(host: &Host) -> Verdict {
    use std::io::{Read, Write};
    let ((one, _), (two, result)) = (attached(host)?, attached(host)?);
    let _server = Server::start(Some(&two.path), PORT, "two")?;
    let Some(to) = parsed(&result).first().copied() else { fail!("the pod has no address") };
    let stream = crate::host::net::inside(Some(&one.path), || {
        crate::host::net::connect(SocketAddr::new(to, PORT), crate::host::net::PATIENCE)
            .map_err(|error| Finding::Failed(format!("cannot connect to {to}: {error}")))
    })?;
    for _ in 0..3 {
        let (pod, result) = attached(host)?;
        host.detach(&pod, Some(&result))?;
    }
    let talk = || -> std::io::Result<String> {
        let mut stream = &stream;
        stream.set_read_timeout(Some(crate::host::net::PATIENCE * 3))?;
        stream.write_all(b"still there?")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = talk().map_err(|error| Finding::Failed(format!("the connection broke: {error}")))?;
    ensure!(text.starts_with("two ") && text.ends_with(" 12"), "the answer was {text:?}");
    Ok(())
}
