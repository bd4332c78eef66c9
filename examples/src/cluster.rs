//! Several nodes on one wire, each with pods of its own from a range of its own, and routes between them: what a cluster
//! without any overlay is. Every node has its own network, `/run` and `/var/lib`, so the plugins find there what they
//! find on a machine.

pub mod layout;
pub mod proof;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni_spec::Environment;
use kernel::netns::{self, NetNs};
use serde_json::{Value, json};

use self::proof::Side;
use crate::conflist::{Conflist, ConflistError};
use crate::container::container_of;
use crate::demo::DemoError;
use crate::exchange::Reply;
use crate::manifest::{self, ManifestError, Pod, Protocol};
use crate::proof::Outcome;
use crate::residue::{self, snapshot};
use crate::runtime::{Container, Runtime, chain};
use crate::server::Servers;
use crate::stage::{self, Machine};

/// How long a fresh wire may take until packets pass.
const READY: Duration = Duration::from_secs(20);
/// How long one try of that may take.
const READY_TRY: Duration = Duration::from_millis(200);

/// What keeps the cluster from being played to its end.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A node could not be made, or is gone.
    #[error("node {node}")]
    Node {
        /// Its name.
        node: String,
        /// Why.
        #[source]
        source: sandbox::SandboxError,
    },
    /// A node's list was refused.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// A pod's manifest was refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// As on a single node.
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// What is played, and with which plugins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes, 2 to [`layout::MOST`].
    pub nodes: u8,
    /// The chain of the first node, whose ranges the other nodes' replace.
    pub list: Conflist,
    /// Folders with executables; the first that has one wins.
    pub plugin_path: Vec<PathBuf>,
    /// What plugins inherit.
    pub environment: Environment,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    client: Machine,
    nodes: Vec<Node>,
}

/// One node, with the one pod that runs on it.
#[derive(Debug)]
struct Node {
    machine: Machine,
    runtime: Arc<Runtime>,
    list: Conflist,
    before: BTreeSet<String>,
    pod: Option<Placed>,
    servers: Vec<Servers>,
    /// Dropped last: the namespaces go with it.
    host: sandbox::Machine,
}

#[derive(Debug)]
struct Placed {
    machine: Machine,
    container: Container,
}

impl Cluster {
    /// Builds wire and nodes around the calling process, which must be in a sandbox already.
    ///
    /// # Errors
    /// If a step fails, or packets do not pass between the nodes in time.
    pub fn build(settings: &Settings) -> Result<Self, ClusterError> {
        let client = Machine {
            name: "client".to_owned(),
            netns: Arc::new(NetNs::current().map_err(|source| stage_error("client", source))?),
            addresses: layout::addresses(&layout::CLIENT),
        };
        let mut hosts = Vec::new();
        for number in 1..=settings.nodes {
            let failed = |source| ClusterError::Node { node: name(number), source };
            hosts.push((number, sandbox::Machine::start().map_err(failed)?));
        }
        let threads = hosts.iter().map(|(number, host)| on(host, *number, nix::unistd::gettid));
        let threads: Vec<i32> = threads.map(|thread| thread.map(nix::unistd::Pid::as_raw)).collect::<Result<_, _>>()?;
        stage::ip(&client, &layout::wire(&threads)).map_err(DemoError::from)?;
        let nodes = hosts.into_iter().map(|(number, host)| Node::build(settings, number, host));
        let mut cluster = Self { client, nodes: nodes.collect::<Result<_, _>>()? };
        cluster.wait_until_ready()?;
        cluster.nodes.iter_mut().try_for_each(Node::remember)?;
        Ok(cluster)
    }

    /// Attaches one pod on each node.
    ///
    /// # Errors
    /// The first that cannot be attached.
    pub fn attach(&mut self) -> Result<(), ClusterError> {
        self.nodes.iter_mut().try_for_each(Node::attach)
    }

    /// The nodes and their pods, a line each.
    #[must_use]
    pub fn picture(&self) -> Vec<String> {
        let addresses =
            |machine: &Machine| machine.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
        let mut lines = vec![format!("client    {}   has no route to pods", addresses(&self.client)), "  |".to_owned()];
        for node in &self.nodes {
            lines.push(format!("  +-- {}   {}", node.machine.name, addresses(&node.machine)));
            let pod =
                node.pod.iter().map(|pod| format!("  |     +-- {}   {}", pod.machine.name, addresses(&pod.machine)));
            lines.extend(pod);
        }
        lines
    }

    /// CHECK on each node, and the proofs by packets: each node and its pod ask the next node's, the last the first's.
    ///
    /// # Errors
    /// If a namespace cannot be entered; a bad answer is an [`Outcome`].
    pub fn prove(&self) -> Result<Vec<Outcome>, ClusterError> {
        let mut outcomes = Vec::new();
        for node in &self.nodes {
            outcomes.extend(node.check()?);
        }
        let sides: Vec<Side<'_>> = self.nodes.iter().filter_map(Node::side).collect();
        for (from, to) in sides.iter().zip(sides.iter().cycle().skip(1)) {
            outcomes.extend(proof::between(*from, *to, &self.client).map_err(DemoError::from)?);
        }
        Ok(outcomes)
    }

    /// Detaches all pods, and compares each node with what it was before.
    ///
    /// # Errors
    /// The first pod that cannot be detached.
    pub fn detach(&mut self) -> Result<Vec<Outcome>, ClusterError> {
        self.nodes.iter_mut().map(Node::detach).collect()
    }

    fn wait_until_ready(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + READY;
        for from in [&self.client].into_iter().chain(self.nodes.iter().map(|node| &node.machine)) {
            for to in self.nodes.iter().flat_map(|node| node.machine.addresses.clone()) {
                let to = SocketAddr::from((to, stage::layout::NODE_PORT));
                loop {
                    let reply = stage::ask(from, Protocol::Tcp, to, READY_TRY).map_err(DemoError::from)?;
                    if matches!(reply, Reply::Answer(_)) {
                        break;
                    }
                    if Instant::now() > deadline {
                        let (from, reply) = (from.name.clone(), Box::new(reply));
                        return Err(DemoError::from(stage::StageError::NotReady { from, to, reply }).into());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Node {
    fn build(settings: &Settings, number: u8, host: sandbox::Machine) -> Result<Self, ClusterError> {
        let netns = on(&host, number, NetNs::current)?.map_err(|source| stage_error(&name(number), source))?;
        let addresses = layout::addresses(&layout::node(number));
        let machine = Machine { name: name(number), netns: Arc::new(netns), addresses };
        // Its link-local address is there at once, not seconds later; and a node that has met no plugin forwards nothing.
        let quiet = [
            ("net/ipv6/conf/uplink/accept_dad", "0"),
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
        ];
        stage::set(&machine, &quiet).map_err(DemoError::from)?;
        stage::ip(&machine, &layout::uplink(number, settings.nodes)).map_err(DemoError::from)?;
        let at = |address: &IpAddr| (Protocol::Tcp, SocketAddr::from((*address, stage::layout::NODE_PORT)));
        let listen: Vec<_> = machine.addresses.iter().map(at).collect();
        let servers = Servers::start(&machine.name, &machine.netns, &listen);
        let servers = vec![servers.map_err(|source| DemoError::from(stage::StageError::from(source)))?];
        let runtime = Runtime::new(settings.plugin_path.clone(), "/var/lib/cni".into(), settings.environment.clone());
        let list = list_of(&settings.list, number)?;
        Ok(Self { machine, runtime: Arc::new(runtime), list, before: BTreeSet::new(), pod: None, servers, host })
    }

    /// Does the work on this node.
    fn on<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClusterError> {
        self.host.run(work).map_err(|source| ClusterError::Node { node: self.machine.name.clone(), source })
    }

    /// Remembers what the node is like without pods, once its own addresses are in force.
    fn remember(&mut self) -> Result<(), ClusterError> {
        self.before = self.on(|| snapshot::take_settled(READY))?.map_err(DemoError::from)?;
        Ok(())
    }

    fn attach(&mut self) -> Result<(), ClusterError> {
        let pod = pod_on(&self.machine.name)?;
        let container = container_of(&pod).map_err(|source| DemoError::Id { pod: pod.name.clone(), source })?;
        let (name, path) = (pod.name.clone(), container.netns.clone());
        let netns = self.on(move || stage::make_pod(&name, &path))?.map_err(DemoError::from)?;
        let (runtime, list, called) = (Arc::clone(&self.runtime), self.list.clone(), container.clone());
        let added = self.on(move || runtime.attach(&list, &called))?;
        let added = added.map_err(|source| DemoError::Attach { pod: pod.name.clone(), source: Box::new(source) })?;
        let addresses: Vec<IpAddr> = added.result.ips.iter().map(|ip| ip.address.ip()).collect();
        let port = layout::PORTS.1;
        let both =
            |address: &IpAddr| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, (*address, port).into()));
        let listen: Vec<_> = addresses.iter().flat_map(both).collect();
        let servers = Servers::start(&pod.name, &netns, &listen);
        self.servers
            .push(servers.map_err(|source| DemoError::Serve { pod: pod.name.clone(), source: Box::new(source) })?);
        self.pod = Some(Placed { machine: Machine { name: pod.name, netns, addresses }, container });
        Ok(())
    }

    fn check(&self) -> Result<Option<Outcome>, ClusterError> {
        let Some(pod) = &self.pod else { return Ok(None) };
        let (runtime, list, container) = (Arc::clone(&self.runtime), self.list.clone(), pod.container.clone());
        let checked = self.on(move || runtime.check(&list, &container))?;
        let came_back = checked.as_ref().err().map_or_else(|| "all as ADD made it".to_owned(), |error| chain(error));
        let id = format!("{}-cni-check", self.machine.name);
        let sent = format!("CHECK of {}", pod.machine.name);
        Ok(Some(Outcome { id, passed: checked.is_ok(), sent, came_back, needs: Vec::new() }))
    }

    fn side(&self) -> Option<Side<'_>> {
        Some(Side { node: &self.machine, pod: &self.pod.as_ref()?.machine })
    }

    fn detach(&mut self) -> Result<Outcome, ClusterError> {
        if let Some(Placed { machine, container }) = self.pod.take() {
            self.servers.truncate(1);
            let (runtime, list, pod) = (Arc::clone(&self.runtime), self.list.clone(), machine.name.clone());
            drop(machine);
            let deleted = self.on(move || {
                let deleted = runtime.del(&list, &container);
                (deleted, netns::remove_named(&container.netns))
            })?;
            deleted.0.map_err(|source| DemoError::Detach { pod: pod.clone(), source: Box::new(source) })?;
            deleted.1.map_err(|source| DemoError::Namespace { pod, source: Box::new(source) })?;
        }
        let after = self.on(snapshot::take)?.map_err(DemoError::from)?;
        let residue = residue::compare(&self.before, &after, &self.list);
        Ok(Outcome {
            id: format!("{}-residue", self.machine.name),
            passed: residue.left.is_empty(),
            sent: format!("{} lines of the node's state compared with those before", residue.compared),
            came_back: if residue.left.is_empty() { "nothing left".to_owned() } else { residue.left.join("; ") },
            needs: Vec::new(),
        })
    }
}

fn on<T: Send + 'static>(
    host: &sandbox::Machine,
    number: u8,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClusterError> {
    host.run(work).map_err(|source| ClusterError::Node { node: name(number), source })
}

fn name(number: u8) -> String {
    format!("node{number}")
}

fn stage_error(name: &str, source: kernel::Error) -> DemoError {
    DemoError::from(stage::namespace(name, source))
}

/// The same chain with this node's ranges; no pod of the cluster is masqueraded to.
fn list_of(list: &Conflist, number: u8) -> Result<Conflist, ConflistError> {
    let mut json = list.json.clone();
    for plugin in json.get_mut("plugins").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(ipam) = plugin.get_mut("ipam") {
            ipam["podCIDR"] = json!(layout::pod_cidr(number));
            plugin["nonMasqueradeCIDRs"] = json!(layout::CLUSTER);
        }
    }
    Conflist::parse(Path::new("10-podwire.conflist"), json.to_string().as_bytes())
}

/// The one pod of a node.
fn pod_on(node: &str) -> Result<Pod, ManifestError> {
    let (host_port, port) = layout::PORTS;
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("web-{node}") },
        "spec": { "containers": [{ "name": "web", "image": "web", "ports": [{ "containerPort": port, "hostPort": host_port }] }] },
    });
    let pods = manifest::parse(Path::new("web.yaml"), &manifest.to_string())?;
    pods.into_iter().next().ok_or_else(|| ManifestError::NoManifest(PathBuf::from("web.yaml")))
}
