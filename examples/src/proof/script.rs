//! Which questions are asked, by whom, and what must come back. Pure: machines and pods in, checks out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::check::{Check, Expected, Spot};
use super::need::{self, Need};
use crate::manifest::{Pod, Port, Protocol};
use crate::stage::{Machine, Stage, layout};

/// A pod that stands on the stage.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// Its manifest.
    pub pod: &'a Pod,
    /// Its namespace and addresses.
    pub machine: &'a Machine,
}

/// All checks that these pods allow, IPv4 first, in the order in which they are asked. What no pod has, a UDP
/// host port for example, is not asked for.
#[must_use]
pub fn checks<'a>(stage: &'a Stage, pods: &[Actor<'a>]) -> Vec<Check<'a>> {
    [true, false].into_iter().filter_map(|v4| Scene::of(stage, pods, v4)).flat_map(|scene| scene.checks()).collect()
}

/// Who plays in one address family.
struct Scene<'a> {
    stage: &'a Stage,
    v4: bool,
    /// Each machine's address that it speaks with.
    node: IpAddr,
    client: IpAddr,
    router: IpAddr,
    outside: IpAddr,
    /// The pod that asks: the first without ports, or else the last one.
    talker: Talker<'a>,
    /// The first pod with a TCP port.
    served: Option<Target<'a>>,
    /// The first with a TCP host port on every address of the node, and with a UDP one.
    tcp: Option<Target<'a>>,
    udp: Option<Target<'a>>,
    /// The first with a TCP host port on one address of the node.
    bound: Option<Target<'a>>,
    /// A port that no pod has mapped.
    unmapped: u16,
}

struct Talker<'a> {
    machine: &'a Machine,
    address: IpAddr,
}

/// A pod's port with the pod's address.
struct Target<'a> {
    machine: &'a Machine,
    address: IpAddr,
    port: Port,
}

impl<'a> Scene<'a> {
    fn of(stage: &'a Stage, pods: &[Actor<'a>], v4: bool) -> Option<Self> {
        let target = |wanted: &dyn Fn(&Port) -> bool| {
            pods.iter().find_map(|actor| {
                let port = *actor.pod.ports.iter().find(|port| wanted(port))?;
                Some(Target { machine: actor.machine, address: actor.machine.address(v4)?, port })
            })
        };
        let anywhere =
            |port: &Port, protocol| port.protocol == protocol && port.host_port.is_some() && port.host_ip.is_none();
        let on_node = |ip: &IpAddr| ip.is_ipv4() == v4 && stage.node.addresses.contains(ip);
        let talker = pods.iter().find(|actor| actor.pod.ports.is_empty()).or(pods.last())?.machine;
        let host_ports = || pods.iter().flat_map(|actor| &actor.pod.ports).filter_map(|port| port.host_port);
        Some(Self {
            stage,
            v4,
            node: stage.node.address(v4)?,
            client: stage.client.address(v4)?,
            router: stage.router.address(v4)?,
            outside: layout::addresses(&layout::OUTSIDE).into_iter().find(|address| address.is_ipv4() == v4)?,
            talker: Talker { machine: talker, address: talker.address(v4)? },
            served: target(&|port| port.protocol == Protocol::Tcp),
            tcp: target(&|port| anywhere(port, Protocol::Tcp)),
            udp: target(&|port| anywhere(port, Protocol::Udp)),
            bound: target(&|port| {
                port.protocol == Protocol::Tcp && port.host_port.is_some() && port.host_ip.as_ref().is_some_and(on_node)
            }),
            unmapped: (1..=u16::MAX).rev().find(|&free| host_ports().all(|port| port.get() != free))?,
        })
    }

    fn checks(&self) -> Vec<Check<'a>> {
        let mut checks = Vec::new();
        if let Some(target) = &self.served {
            checks.extend(self.between_pods_and_node(target));
        }
        if let Some(target) = &self.tcp {
            checks.extend(self.asked_by_client("tcp", target));
            checks.extend(self.asked_by_pods(target));
            checks.extend(self.asked_by_node(target));
        }
        if let Some(target) = &self.udp {
            checks.extend(self.asked_by_client("udp", target));
        }
        if let Some(target) = &self.bound {
            checks.extend(self.on_one_address(target));
        }
        checks.push(self.to_the_outside());
        checks.push(self.ask(
            "unmapped-port-tcp",
            &self.stage.client,
            self.client,
            self.at_node(self.node, self.unmapped),
        ));
        if let Some(target) = &self.served {
            let ask = self.ask("client-pod-tcp", &self.stage.client, self.client, target.spot());
            checks.push(ask.unreachable_by(self.router));
        }
        checks
    }

    /// Addresses as they are, no translation.
    fn between_pods_and_node(&self, target: &Target<'a>) -> [Check<'a>; 3] {
        let Talker { machine, address } = self.talker;
        let (to_pod, node) = (target.spot(), self.at_node(self.node, layout::NODE_PORT));
        [
            self.ask("pod-pod-tcp", machine, address, to_pod)
                .seen_by(to_pod.name, vec![address])
                .needing([self.talker.route(), target.route()]),
            self.ask("pod-node-tcp", machine, address, node)
                .seen_by(node.name, vec![address])
                .needing([self.talker.route()]),
            self.ask("node-pod-tcp", &self.stage.node, self.node, to_pod)
                .answered_by(to_pod.name)
                .needing([target.route()]),
        ]
    }

    /// The client is answered, and the pod sees the client's own address.
    fn asked_by_client(&self, protocol: &str, target: &Target<'a>) -> Vec<Check<'a>> {
        let ask = |what: &str| {
            let to = self.at_node(self.node, target.host_port());
            let check = self.ask(&format!("{what}-{protocol}"), &self.stage.client, self.client, to);
            check.over(target.port.protocol).needing(target.needs())
        };
        let name = &target.machine.name;
        vec![ask("client-hostport").answered_by(name), ask("client-source").seen_by(name, vec![self.client])]
    }

    /// A pod may use a host port like anybody else, even its own; but must not see itself as the asker then:
    /// it would answer to itself.
    fn asked_by_pods(&self, target: &Target<'a>) -> Vec<Check<'a>> {
        let to = self.at_node(self.node, target.host_port());
        let ask = |what, machine, address, also| {
            let needs = target.needs().into_iter().chain([also]);
            self.ask(what, machine, address, to).answered_by(&target.machine.name).needing(needs)
        };
        vec![
            ask("pod-hostport-tcp", self.talker.machine, self.talker.address, self.talker.route()),
            ask("hairpin-tcp", target.machine, target.address, target.hairpin()),
        ]
    }

    /// The node by its own address and by 127.0.0.1. There is no such line for ::1: the kernel drops what comes
    /// back for it.
    fn asked_by_node(&self, target: &Target<'a>) -> Vec<Check<'a>> {
        let (node, port) = (&self.stage.node, target.host_port());
        let own = self.ask("node-hostport-tcp", node, self.node, self.at_node(self.node, port));
        let mut checks = vec![own.answered_by(&target.machine.name).needing(target.needs())];
        if self.v4 {
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let ask = self.ask("localhost-hostport-tcp", node, loopback, self.at_node(loopback, port));
            let needs = target.needs().into_iter().chain([target.hairpin()]);
            checks.push(ask.answered_by(&target.machine.name).needing(needs));
        }
        checks
    }

    /// A port with a `hostIP`: there it answers, at the node's other addresses nobody does.
    fn on_one_address(&self, target: &Target<'a>) -> Vec<Check<'a>> {
        let ask =
            |what, address| self.ask(what, &self.stage.client, self.client, self.at_node(address, target.host_port()));
        let bound = target.port.host_ip;
        let mut others = self.stage.node.addresses.iter().copied();
        let other = others.find(|address| address.is_ipv4() == self.v4 && Some(*address) != bound);
        let reached = bound.map(|address| {
            ask("hostip-reached-tcp", address).answered_by(&target.machine.name).needing(target.needs())
        });
        reached.into_iter().chain(other.map(|address| ask("hostip-only-tcp", address))).collect()
    }

    /// Beyond the router, where nobody knows pods, the node's address must be seen.
    fn to_the_outside(&self) -> Check<'a> {
        let Talker { machine, address } = self.talker;
        let node = self.stage.node.addresses.iter().copied().filter(|address| address.is_ipv4() == self.v4).collect();
        let to = Spot { name: "outside", address: SocketAddr::new(self.outside, layout::OUTSIDE_PORT) };
        self.ask("pod-outside-tcp", machine, address, to)
            .seen_by("outside", node)
            .needing([self.talker.route(), Need::Masquerade(self.talker.pod())])
    }

    fn at_node(&self, address: IpAddr, port: u16) -> Spot<'a> {
        Spot { name: &self.stage.node.name, address: SocketAddr::new(address, port) }
    }

    /// A question over TCP that must be refused, unless more is said about it.
    fn ask(&self, what: &str, from: &'a Machine, from_address: IpAddr, to: Spot<'a>) -> Check<'a> {
        let id = format!("{what}{}", if self.v4 { 4 } else { 6 });
        Check { id, from, from_address, protocol: Protocol::Tcp, to, expected: Expected::Refused, needs: Vec::new() }
    }
}

impl Talker<'_> {
    fn pod(&self) -> need::Pod {
        need::Pod { name: self.machine.name.clone(), address: self.address }
    }

    fn route(&self) -> Need {
        Need::HostRoute(self.pod())
    }
}

impl<'a> Target<'a> {
    /// The pod's own address and port.
    fn spot(&self) -> Spot<'a> {
        Spot { name: &self.machine.name, address: SocketAddr::new(self.address, self.port.container_port.get()) }
    }

    /// Targets of host port questions have one.
    fn host_port(&self) -> u16 {
        self.port.host_port.map_or(0, std::num::NonZeroU16::get)
    }

    fn pod(&self) -> need::Pod {
        need::Pod { name: self.machine.name.clone(), address: self.address }
    }

    fn route(&self) -> Need {
        Need::HostRoute(self.pod())
    }

    fn hairpin(&self) -> Need {
        Need::Hairpin(self.pod())
    }

    /// What every packet to the host port needs.
    fn needs(&self) -> Vec<Need> {
        let port = Need::HostPort { pod: self.pod(), protocol: self.port.protocol, port: self.host_port() };
        vec![port, self.route()]
    }
}
