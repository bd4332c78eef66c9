//! portMappings: who reaches the node's port reaches the pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::{Value, json};

use super::packets::{NODE, Outside, outside};
use super::{CALLED, cases, nothing_is_left, sorry};
use crate::host::Host;
use crate::host::net::{PATIENCE, Protocol, Reply, SILENCE, Server, ask, ask_by, ask_for, inside, parse};
use crate::host::pod::Pod;
use crate::host::sctp;
use crate::host::shape::{bare_addresses, family};
use crate::verdict::{Finding, Verdict, ensure, fail, skip};

cases! { "ports":
    "PM-1a" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| from_outside(host, Protocol::Tcp, 0),
        "A mapped TCP port is reached from outside over IPv4",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host asks the host's address at hostPort; the pod's server must answer.";
    "PM-1b" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| from_outside(host, Protocol::Udp, 0),
        "A mapped UDP port is reached from outside over IPv4",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host asks the host's address at hostPort; the pod's server must answer.";
    "PM-1c" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| from_outside(host, Protocol::Tcp, 1),
        "A mapped TCP port is reached from outside over IPv6",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host asks the host's address at hostPort; the pod's server must answer.";
    "PM-1d" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => from_the_node,
        "A mapped port is reached from the node at its own address",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The host asks its own address at hostPort; the pod's server must answer.";
    "PM-1e" since "0.3.0" in "practice: the reference portmap serves localhost" for CALLED => from_localhost,
        "A mapped port is reached at 127.0.0.1",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The host asks 127.0.0.1 at hostPort; the pod's server must answer.";
    "PM-1f" since "0.3.0" in "practice: hairpin" for CALLED => from_itself,
        "A pod reaches its own mapped port at the node's address",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The pod asks the host's address at hostPort; its own server must answer.";
    "PM-1g" since "0.3.0" in "practice: policies and logs go by the client's address" for CALLED => source_is_kept,
        "The pod sees the outside client's own address",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host asks; the server must have seen its address, not the host's.";
    "PM-1h" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => from_another_pod,
        "A mapped port is reached by another pod at the node's address",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A second pod asks the host's address at hostPort; the first pod's server must answer.";
    "PM-1i" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| from_outside(host, Protocol::Udp, 1),
        "A mapped UDP port is reached from outside over IPv6",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host asks the host's address at hostPort; the pod's server must answer.";
    "PM-1j" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => udp_from_the_node,
        "A mapped UDP port is reached from the node",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The host asks its own address at hostPort by UDP; the pod's server must answer.";
    "PM-1k" since "0.3.0" in "practice: what 127.0.0.1 is over IPv4" for CALLED => from_localhost_6,
        "A mapped port is reached at [::1]",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The host asks [::1] at hostPort; the pod's server must answer.";
    "PM-1l" since "0.3.0" in "practice: a containerPort of Kubernetes may be SCTP" for CALLED => |host| sctp(host, 0, HOST_PORT),
        "A mapped SCTP port is reached from outside over IPv4",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host sends an INIT to the host's address at hostPort; an INIT ACK must come from there. A plugin may refuse SCTP by an error.";
    "PM-1m" since "0.3.0" in "practice: a containerPort of Kubernetes may be SCTP" for CALLED => |host| sctp(host, 1, HOST_PORT),
        "A mapped SCTP port is reached from outside over IPv6",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "A client beyond the host sends an INIT to the host's address at hostPort; an INIT ACK must come from there. A plugin may refuse SCTP by an error.";
    "PM-1n" since "0.3.0" in "practice: containerd issue 4321" for CALLED => |host| sctp(host, 0, PORT),
        "A mapped SCTP port may be the same in the pod",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "The same with one number for hostPort and containerPort; an INIT ACK must come. A plugin may refuse SCTP by an error.";
    "PM-2a" since "0.3.0" in "practice: plugins issue 1209" for CALLED => passing_traffic,
        "Traffic through the host to the same port elsewhere is left alone",
        "hostPort: a port on the host.",
        "A pod's neighbour asks a server beyond the host at the port that is mapped on the host; that server must answer.";
    "PM-2b" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => other_ports,
        "Other ports of the host are left alone",
        "hostPort: a port on the host.",
        "A server on the host listens at hostPort + 1 and, by the other protocol, at hostPort; both must answer by themselves.";
    "PM-2c" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => host_ip,
        "hostIP restricts the mapping to that address",
        "hostIP: the address on the host to bind to.",
        "A mapping for the host's address 192.0.2.1; it must answer there, and not at 192.0.2.3, which the host has too.";
    "PM-2d" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => one_port_of_two_addresses,
        "One port of two host addresses leads to two pods",
        "hostIP: the address on the host to bind to.",
        "ADD of two pods that map one port of 192.0.2.1 and of 192.0.2.3; a client beyond the host asks both, and each pod must answer.";
    "PM-2e" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => host_ip_of_ipv6,
        "hostIP may be an IPv6 address",
        "hostIP: the address on the host to bind to.",
        "A mapping for the host's address 2001:db8:1::1; it must answer there, and not at 192.0.2.1.";
    "PM-3a" since "0.3.0" in "practice: containerd has no JSON tags" for CALLED => |host| spelled(host, json!([{ "HostPort": 30080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": "" }])),
        "Keys as containerd spells them are understood",
        "portMappings: hostPort, containerPort, protocol, hostIP.",
        "ADD with HostPort, ContainerPort, Protocol and an empty HostIP; the pod's server must answer at the port.";
    "PM-3b" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| spelled(host, json!([{ "hostPort": 30080, "containerPort": 8080, "protocol": "tcp", "hostIP": "0.0.0.0" }])),
        "A hostIP of 0.0.0.0 means every address",
        "hostIP: the address on the host to bind to.",
        "ADD with such a mapping; the pod's server must answer at the host's address.";
    "PM-3c" since "0.3.0" in "practice: kubelet writes TCP" for CALLED => |host| spelled(host, json!([{ "hostPort": 30080, "containerPort": 8080, "protocol": "TCP" }])),
        "A protocol in capitals is understood",
        "protocol: tcp, udp.",
        "ADD with such a mapping; the pod's server must answer at the host's address.";
    "PM-3d" since "0.3.0" in "practice: CRI-O and containerd send null" for CALLED => |host| harmless(host, Some(Value::Null)),
        "portMappings of null do no harm",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "ADD and DEL with null; both must succeed.";
    "PM-3e" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => |host| harmless(host, Some(json!([]))),
        "An empty list of portMappings does no harm",
        "portMappings: Pass mapping from ports on the host to ports in the container network namespace.",
        "ADD and DEL with an empty list; both must succeed.";
    "PM-3f" since "0.3.0" in "3, Deriving runtimeConfig" for CALLED => |host| harmless(host, None),
        "A missing runtimeConfig does no harm",
        "any capability supported by the plugin configuration and provided by the runtime should be inserted in the runtimeConfig.",
        "ADD and DEL without runtimeConfig; both must succeed.";
    "PM-3g" since "0.3.0" in "CONVENTIONS, portMappings" for CALLED => several,
        "Several mappings of one pod all work",
        "portMappings: A list of portmapping entries.",
        "ADD with three mappings, tcp and udp at one port among them; all must answer.";
    "PM-4a" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, json!([{ "hostPort": 0, "containerPort": 80, "protocol": "tcp" }])),
        "hostPort 0 is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with such a mapping; it must fail with an error object.";
    "PM-4b" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, json!([{ "hostPort": 70000, "containerPort": 80, "protocol": "tcp" }])),
        "hostPort 70000 is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with such a mapping; it must fail with an error object.";
    "PM-4c" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, json!([{ "hostPort": 30080, "containerPort": -1, "protocol": "tcp" }])),
        "A negative containerPort is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with such a mapping; it must fail with an error object.";
    "PM-4d" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, json!([{ "hostPort": 30080, "containerPort": 80, "protocol": "carrier-pigeon" }])),
        "An unknown protocol is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with such a mapping; it must fail with an error object.";
    "PM-4e" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, json!([{ "hostPort": 30080, "containerPort": 80, "protocol": "tcp", "hostIP": "nonsense" }])),
        "A hostIP that is no address is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with such a mapping; it must fail with an error object.";
    "PM-5a" since "0.3.0" in "2, DEL" for CALLED => closed_after_del,
        "After DEL the port is closed",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "The pod's server answers at the host's port; after DEL nobody must answer there.";
    "PM-5b" since "0.4.0" in "2, DEL" for CALLED => forgotten_mappings,
        "DEL without the mappings clears them all the same",
        "DEL command invocations are always considered best-effort, even if some resources or state are missing.",
        "ADD with a mapping, DEL without runtimeConfig, without prevResult and with an empty CNI_NETNS; the host must be as before.";
    "PM-5c" since "0.3.0" in "practice: plugins issue 123" for CALLED => udp_moves_on,
        "A UDP client reaches the next pod that has the port",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "A client beyond the host asks by one socket; the pod is DELeted and another ADDed with the same port; by the same socket the other must answer.";
    "PM-5d" since "0.3.0" in "2, DEL" for CALLED => other_pods_port,
        "DEL of one pod leaves the other's ports",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "ADD of two pods with a port each, DEL of one; the other's port must answer.";
    "PM-5e" since "0.3.0" in "practice: plugins issue 123" for CALLED => no_flow_is_left,
        "After DEL no UDP flow leads to the pod",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "A client beyond the host asks by UDP, DEL; `conntrack -L` must show no entry of the port that leads to the pod.";
    "PM-6" since "0.3.0" in "2, CHECK" for CALLED => check_after_many,
        "CHECK succeeds with mappings of several pods",
        "The plugin must handle CHECK being called immediately after an ADD.",
        "ADD of three pods with a port each; CHECK of each must succeed.";
}

const PORT: u16 = 8080;
const HOST_PORT: u16 = 30080;

fn mapping(host_port: u16, protocol: Protocol) -> Value {
    json!([{ "hostPort": host_port, "containerPort": PORT, "protocol": protocol.word() }])
}

/// Skips unless the target maps ports.
fn maps(host: &Host) -> Verdict {
    if !host.target.has_capability("portMappings") {
        skip!("the target does not declare the capability portMappings");
    }
    Ok(())
}

/// A pod with a server, and these mappings.
fn serving(host: &Host, name: &str, mappings: Value) -> Verdict<(Pod, Value, Server)> {
    serve(host, host.pod()?, name, mappings)
}

/// The same with a pod that has a name, which the runtime hands on.
fn serving_by_name(host: &Host, name: &str, mappings: Value) -> Verdict<(Pod, Value, Server)> {
    serve(host, super::named_pod(host)?, name, mappings)
}

fn serve(host: &Host, pod: Pod, name: &str, mappings: Value) -> Verdict<(Pod, Value, Server)> {
    let pod = super::remembered(host, pod.with("portMappings", mappings));
    let result = host.attach(&pod)?;
    let server = Server::start(Some(&pod.path), PORT, name)?;
    Ok((pod, result, server))
}

fn prepared(host: &Host) -> Verdict<Outside> {
    maps(host)?;
    outside()
}

fn node(index: usize) -> Verdict<IpAddr> {
    NODE[index].parse().map_err(|_| Finding::Trouble("no address".to_owned()))
}

fn expect(reply: Option<Reply>, server: &str, what: &str) -> Verdict<Reply> {
    match reply {
        Some(reply) if reply.server == server => Ok(reply),
        Some(reply) => fail!("{what}: {} answered instead of {server}", reply.server),
        None => fail!("{what}: no answer"),
    }
}

fn from_outside(host: &Host, protocol: Protocol, index: usize) -> Verdict {
    let outside = prepared(host)?;
    let (_pod, result, _server) = serving_by_name(host, "pod", mapping(HOST_PORT, protocol))?;
    let wanted = if index == 0 { "4" } else { "6" };
    if !bare_addresses(&result).iter().any(|address| family(address) == wanted) {
        skip!("the pod has no IPv{wanted} address");
    }
    let reply = ask(Some(&outside.path), protocol, SocketAddr::new(node(index)?, HOST_PORT), 100)?;
    expect(reply, "pod", "from outside").map(drop)
}

fn from_the_node(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    expect(ask(None, Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT), 100)?, "pod", "from the node").map(drop)
}

fn udp_from_the_node(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Udp))?;
    expect(ask(None, Protocol::Udp, SocketAddr::new(node(0)?, HOST_PORT), 100)?, "pod", "from the node").map(drop)
}

fn from_another_pod(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let (neighbour, _, _other) = serving(host, "neighbour", json!([]))?;
    let reply = ask(Some(&neighbour.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    expect(reply, "pod", "from another pod").map(drop)
}

fn from_localhost(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HOST_PORT);
    expect(ask(None, Protocol::Tcp, to, 100)?, "pod", "at 127.0.0.1").map(drop)
}

fn from_localhost_6(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (_pod, result, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    if !bare_addresses(&result).iter().any(|address| family(address) == "6") {
        skip!("the pod has no IPv6 address");
    }
    let to = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), HOST_PORT);
    expect(ask(None, Protocol::Tcp, to, 100)?, "pod", "at [::1]").map(drop)
}

fn from_itself(host: &Host) -> Verdict {
    let _outside = prepared(host)?;
    let (pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let reply = ask(Some(&pod.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    expect(reply, "pod", "from the pod itself").map(drop)
}

fn source_is_kept(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let reply = ask(Some(&outside.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    let reply = expect(reply, "pod", "from outside")?;
    ensure!(reply.asker == super::packets::BEYOND[0], "the pod saw {}", reply.asker);
    Ok(())
}

fn sctp(host: &Host, index: usize, port: u16) -> Verdict {
    let outside = prepared(host)?;
    let mappings = json!([{ "hostPort": port, "containerPort": PORT, "protocol": "sctp" }]);
    let pod = super::remembered(host, host.pod()?.with("portMappings", mappings));
    let _server = sctp::Server::start(&pod.path, PORT)?;
    if !sctp::works_in(&pod.path, PORT)? {
        skip!("this kernel does not let SCTP through raw sockets");
    }
    let result = match host.attach(&pod) {
        Err(Finding::Failed(why)) if why.to_lowercase().contains("sctp") => skip!("the plugin refuses SCTP: {why}"),
        result => result?,
    };
    let wanted = if index == 0 { "4" } else { "6" };
    if !bare_addresses(&result).iter().any(|address| family(address) == wanted) {
        skip!("the pod has no IPv{wanted} address");
    }
    let answered = sctp::is_answered(&outside.path, SocketAddr::new(node(index)?, port), PATIENCE)?;
    ensure!(answered, "from outside: no INIT ACK from the host's address at {port}");
    Ok(())
}

fn passing_traffic(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let (neighbour, result, _other) = serving(host, "neighbour", json!([]))?;
    // The outside learns the way back, so that the answer does not depend on masquerading.
    for address in bare_addresses(&result).iter().filter(|address| family(address) == "4") {
        let route = ["-n", "outside", "route", "replace", address, "via", NODE[0]];
        crate::host::exec::tool("ip", &route)?;
    }
    let _beyond = Server::start(Some(&outside.path), HOST_PORT, "beyond")?;
    let to = SocketAddr::new(super::packets::BEYOND[0].parse().unwrap_or(Ipv4Addr::LOCALHOST.into()), HOST_PORT);
    expect(ask(Some(&neighbour.path), Protocol::Tcp, to, 100)?, "beyond", "through the host").map(drop)
}

fn other_ports(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let _next = Server::start(None, HOST_PORT + 1, "node")?;
    let _same = Server::start(None, HOST_PORT, "node")?;
    let next = ask(Some(&outside.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT + 1), 100)?;
    expect(next, "node", "at the next port")?;
    let same = ask(Some(&outside.path), Protocol::Udp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    expect(same, "node", "by the other protocol").map(drop)
}

fn host_ip(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    crate::host::exec::tool("ip", &["address", "add", "192.0.2.3/24", "dev", "scafout"])?;
    let mut mappings = mapping(HOST_PORT, Protocol::Tcp);
    mappings[0]["hostIP"] = json!(NODE[0]);
    let (_pod, _, _server) = serving(host, "pod", mappings)?;
    let at = |address: IpAddr, patience| {
        ask_for(Some(&outside.path), Protocol::Tcp, SocketAddr::new(address, HOST_PORT), 100, patience)
    };
    expect(at(node(0)?, PATIENCE)?, "pod", "at hostIP")?;
    let other = at(Ipv4Addr::new(192, 0, 2, 3).into(), SILENCE)?;
    ensure!(other.is_none(), "it also answers at another address: {other:?}");
    Ok(())
}

fn one_port_of_two_addresses(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    crate::host::exec::tool("ip", &["address", "add", "192.0.2.3/24", "dev", "scafout"])?;
    let of =
        |address: &str| json!([{ "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp", "hostIP": address }]);
    let (_one, _, _first) = serving(host, "one", of(NODE[0]))?;
    let (_two, _, _second) = serving(host, "two", of("192.0.2.3"))?;
    for (address, name) in [(node(0)?, "one"), (Ipv4Addr::new(192, 0, 2, 3).into(), "two")] {
        let reply = ask(Some(&outside.path), Protocol::Tcp, SocketAddr::new(address, HOST_PORT), 100)?;
        expect(reply, name, &format!("at {address}"))?;
    }
    Ok(())
}

fn host_ip_of_ipv6(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let mappings = json!([{ "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp", "hostIP": NODE[1] }]);
    let (_pod, result, _server) = serving(host, "pod", mappings)?;
    if !bare_addresses(&result).iter().any(|address| family(address) == "6") {
        skip!("the pod has no IPv6 address");
    }
    let at = |index: usize, patience| {
        ask_for(Some(&outside.path), Protocol::Tcp, SocketAddr::new(node(index)?, HOST_PORT), 100, patience)
    };
    expect(at(1, PATIENCE)?, "pod", "at hostIP")?;
    let other = at(0, SILENCE)?;
    ensure!(other.is_none(), "it also answers over IPv4: {other:?}");
    Ok(())
}

fn spelled(host: &Host, mappings: Value) -> Verdict {
    let outside = prepared(host)?;
    let (_pod, _, _server) = serving(host, "pod", mappings)?;
    let reply = ask(Some(&outside.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    expect(reply, "pod", "from outside").map(drop)
}

fn harmless(host: &Host, mappings: Option<Value>) -> Verdict {
    maps(host)?;
    let pod = host.pod()?;
    let pod = match mappings {
        Some(mappings) => super::remembered(host, pod.with("portMappings", mappings)),
        None => pod,
    };
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))
}

fn several(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let mappings = json!([
        { "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp" },
        { "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "udp" },
        { "hostPort": HOST_PORT + 1, "containerPort": PORT, "protocol": "tcp" },
    ]);
    let (_pod, _, _server) = serving(host, "pod", mappings)?;
    for (protocol, port) in [(Protocol::Tcp, HOST_PORT), (Protocol::Udp, HOST_PORT), (Protocol::Tcp, HOST_PORT + 1)] {
        let reply = ask(Some(&outside.path), protocol, SocketAddr::new(node(0)?, port), 100)?;
        expect(reply, "pod", &format!("at {port} by {protocol:?}"))?;
    }
    Ok(())
}

fn refused(host: &Host, mappings: Value) -> Verdict {
    maps(host)?;
    let pod = super::remembered(host, host.pod()?.with("portMappings", mappings));
    for index in 0..host.target.plugins.len() {
        let call = host.call_at("ADD", index).pod(&pod);
        if crate::target::declares(call.config(), "portMappings") {
            let call = if index == 0 { call } else { call.prev(&host.attach_until(&pod, index)?) };
            return sorry(&call.run()?).map(drop);
        }
    }
    skip!("no plugin of the chain declares portMappings")
}

fn closed_after_del(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (pod, result, _server) = serving_by_name(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    let to = SocketAddr::new(node(0)?, HOST_PORT);
    expect(ask(Some(&outside.path), Protocol::Tcp, to, 100)?, "pod", "before DEL")?;
    host.detach(&pod, Some(&result))?;
    let reply = ask_for(Some(&outside.path), Protocol::Tcp, to, 100, SILENCE)?;
    ensure!(reply.is_none(), "after DEL there is an answer: {reply:?}");
    Ok(())
}

fn forgotten_mappings(host: &Host) -> Verdict {
    maps(host)?;
    let (pod, _, server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Tcp))?;
    drop(server);
    pod.remove_namespace()?;
    host.detach_with(&pod, None, |call| {
        call.without_key("runtimeConfig").without_key("prevResult").env("CNI_NETNS", "")
    })?;
    nothing_is_left(host)
}

fn udp_moves_on(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (pod, result, _server) = serving(host, "first", mapping(HOST_PORT, Protocol::Udp))?;
    let socket = inside(Some(&outside.path), || {
        UdpSocket::bind("0.0.0.0:0").map_err(|error| Finding::Trouble(format!("cannot bind: {error}")))
    })?;
    let to = SocketAddr::new(node(0)?, HOST_PORT);
    let question = || ask_by(&socket, to, b"who?", PATIENCE).and_then(|text| parse(&text));
    expect(question(), "first", "before DEL")?;
    host.detach(&pod, Some(&result))?;
    // While nobody has the port, the client goes on asking: that entry must not outlive the next ADD either.
    let _ = ask_by(&socket, to, b"anybody?", SILENCE / 4);
    let (_next, _, _other) = serving(host, "second", mapping(HOST_PORT, Protocol::Udp))?;
    expect(question(), "second", "after DEL and ADD").map(drop)
}

fn no_flow_is_left(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (pod, result, _server) = serving(host, "pod", mapping(HOST_PORT, Protocol::Udp))?;
    let reply = ask(Some(&outside.path), Protocol::Udp, SocketAddr::new(node(0)?, HOST_PORT), 100)?;
    expect(reply, "pod", "before DEL")?;
    let port = HOST_PORT.to_string();
    let flows = || -> Verdict<String> {
        let output = crate::host::exec::tool("conntrack", &["-L", "-p", "udp", "--orig-port-dst", &port])?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    };
    if flows()?.is_empty() {
        skip!("the mapping does not go through connection tracking");
    }
    host.detach(&pod, Some(&result))?;
    let left = flows()?;
    let to_pod = bare_addresses(&result).into_iter().find(|address| left.contains(&format!("src={address} ")));
    ensure!(to_pod.is_none(), "after DEL there is: {left}");
    Ok(())
}

fn other_pods_port(host: &Host) -> Verdict {
    let outside = prepared(host)?;
    let (pod, result, _server) = serving(host, "one", mapping(HOST_PORT, Protocol::Tcp))?;
    let (_other, _, _second) = serving(host, "two", mapping(HOST_PORT + 1, Protocol::Tcp))?;
    host.detach(&pod, Some(&result))?;
    let reply = ask(Some(&outside.path), Protocol::Tcp, SocketAddr::new(node(0)?, HOST_PORT + 1), 100)?;
    expect(reply, "two", "after DEL of the other").map(drop)
}

fn check_after_many(host: &Host) -> Verdict {
    maps(host)?;
    host.needs("0.4.0")?;
    let mut attached = Vec::new();
    for number in 0..3 {
        let pod = super::busy(host, host.pod()?, number);
        let result = host.attach(&pod)?;
        attached.push((pod, result));
    }
    attached.iter().try_for_each(|(pod, result)| host.check(pod, result))
}
