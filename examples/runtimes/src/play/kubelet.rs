//! containerd, driven as a kubelet drives it.

use std::net::IpAddr;

use podwire_examples::manifest::{self, Pod};
use podwire_examples::proof::Outcome;
use podwire_examples::shipped;
use serde_json::Value;

use super::{Play, archive};
use crate::calls::Habit;
use crate::containerd::{Containerd, KUBERNETES};
use crate::cri::Client;
use crate::cri::message::{
    ContainerConfig, ContainerId, ContainerMetadata, CreateContainerRequest, Empty, ImageSpec, LinuxContainerConfig,
    LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxId, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatusRequest, PodSandboxStatusResponse, PortMapping, Protocol, RunPodSandboxRequest,
    RunPodSandboxResponse,
};
use crate::error::Error;
use crate::image;
use crate::mounts::KEPT;
use crate::node::{self, Running, by_family, outcome};

/// StopPodSandbox and RemovePodSandbox send a DEL each, the second when everything is gone.
const HABIT: Habit = Habit {
    calls: &["ADD", "DEL", "DEL without netns, prevResult"],
    id_prefix: "",
    args: &["IgnoreUnknown", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_NAME", "K8S_POD_NAMESPACE", "K8S_POD_UID"],
    keys: &["ContainerPort", "HostIP", "HostPort", "Protocol"],
};

/// The shipped pods by RunPodSandbox; a second one that wants a host port of theirs; containerd killed and started again;
/// StopPodSandbox and RemovePodSandbox.
///
/// # Errors
/// If it cannot be played to its end.
pub fn kubelet(play: &mut Play<'_>) -> Result<(), Error> {
    let containerd = Containerd::start(&play.programs)?;
    containerd.import(&archive(), KUBERNETES)?;
    play.node.remember()?;
    let by = containerd.version()?;
    let client = containerd.client()?;
    play.say(&format!("{by}, driven over CRI as a kubelet does"))?;

    let parent = play.cgroup_parent.clone();
    let pods = shipped::pods()?.into_iter().map(|pod| run(&client, pod, &parent));
    let running: Vec<Running> = pods.collect::<Result<_, _>>()?;
    let arrived = play.node.arrived(&running, &by, |_| String::new())?;
    play.section("RunPodSandbox, CreateContainer, StartContainer", arrived)?;
    for (title, outcomes) in by_family(": sent, and what came back", play.node.prove(&running, "")?) {
        play.section(&title, outcomes)?;
    }
    let mut names = play.node.names(&running, true)?;
    names.push(play.node.leases(&running, "leases")?);
    play.section("who has what", names)?;
    let refused = second(&client, &running, &parent)?;
    let leases = play.node.leases(&running, "hostport-taken-leases")?;
    play.section("a second pod wants a host port that is taken", vec![refused, leases])?;

    containerd.kill();
    let killed = play.node.prove(&running, "killed-")?;
    play.section("containerd was killed", killed)?;
    let containerd = Containerd::start(&play.programs)?;
    let client = containerd.client()?;
    let again = running.iter().map(|pod| known(&client, pod)).collect::<Result<_, _>>()?;
    play.section("containerd was started again", again)?;

    running.iter().try_for_each(|pod| remove(&client, &pod.id))?;
    play.calls(&running, HABIT)?;
    drop(running);
    let left = vec![play.node.leases(&[], "leases-gone")?, play.node.residue("residue")?];
    play.section("StopPodSandbox, RemovePodSandbox; what is left", left)
}

/// One pod with one container.
fn run(client: &Client, pod: Pod, cgroup_parent: &str) -> Result<Running, Error> {
    let sandbox = config(&pod, cgroup_parent);
    let id = run_sandbox(client, sandbox.clone())?;
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: pod.name.clone() }),
        image: Some(ImageSpec { image: image::NAME.to_owned() }),
        args: node::arguments(&pod),
        log_path: format!("{}.log", pod.name),
        linux: Some(LinuxContainerConfig {}),
    };
    let request =
        CreateContainerRequest { pod_sandbox_id: id.clone(), config: Some(container), sandbox_config: Some(sandbox) };
    let container: ContainerId = client.call("CreateContainer", request)?;
    let _: Empty = client.call("StartContainer", container)?;
    let status = status(client, &id)?;
    let network = status.status.as_ref().and_then(|status| status.network.clone());
    let network = network.ok_or(Error::Answer { method: "PodSandboxStatus", what: "network" })?;
    let all = [network.ip].into_iter().chain(network.additional_ips.into_iter().map(|also| also.ip));
    let addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    Running::of(pod, id, &process(&status)?, addresses)
}

fn run_sandbox(client: &Client, config: PodSandboxConfig) -> Result<String, Error> {
    let made: RunPodSandboxResponse = client.call("RunPodSandbox", RunPodSandboxRequest { config: Some(config) })?;
    Ok(made.pod_sandbox_id)
}

fn config(pod: &Pod, cgroup_parent: &str) -> PodSandboxConfig {
    let mapping = |port: &manifest::Port| PortMapping {
        protocol: match port.protocol {
            manifest::Protocol::Tcp => Protocol::Tcp.into(),
            manifest::Protocol::Udp => Protocol::Udp.into(),
            manifest::Protocol::Sctp => Protocol::Sctp.into(),
        },
        container_port: port.container_port.get().into(),
        host_port: port.host_port.map_or(0, |port| port.get().into()),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name.clone(),
            uid: format!("uid-of-{}", pod.name),
            namespace: pod.namespace.clone(),
        }),
        hostname: pod.name.clone(),
        log_directory: format!("{KEPT}/logs"),
        port_mappings: pod.ports.iter().map(mapping).collect(),
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: cgroup_parent.to_owned() }),
    }
}

fn status(client: &Client, id: &str) -> Result<PodSandboxStatusResponse, Error> {
    client.call("PodSandboxStatus", PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true })
}

/// The process that holds the pod open; containerd tells it to whoever asks for more.
fn process(status: &PodSandboxStatusResponse) -> Result<u64, Error> {
    let info = status.info.get("info").and_then(|info| serde_json::from_str::<Value>(info).ok());
    let process = info.as_ref().and_then(|info| info["pid"].as_u64()).filter(|&process| process != 0);
    process.ok_or(Error::Answer { method: "PodSandboxStatus", what: "info.pid" })
}

/// Whether a containerd that has just started knows the pod, and that it runs.
fn known(client: &Client, pod: &Running) -> Result<Outcome, Error> {
    let status = status(client, &pod.id)?.status;
    let state = status.as_ref().map_or(PodSandboxState::NotReady, crate::cri::message::PodSandboxStatus::state);
    let address = status.and_then(|status| status.network).map(|network| network.ip).unwrap_or_default();
    let same = pod.machine.addresses.first().is_some_and(|first| first.to_string() == address);
    let passed = state == PodSandboxState::Ready && same;
    let sent = format!("PodSandboxStatus of {}", pod.pod.name);
    Ok(outcome(&format!("known-{}", pod.pod.name), passed, sent, format!("{state:?}, {address}")))
}

/// A pod of another name with the host ports of the first that has one.
fn second(client: &Client, running: &[Running], cgroup_parent: &str) -> Result<Outcome, Error> {
    let holder = running.iter().find(|pod| pod.pod.ports.iter().any(|port| port.host_port.is_some()));
    let holder = holder.ok_or(Error::Answer { method: "examples/pods", what: "a host port" })?;
    let name = format!("{}-again", holder.pod.name);
    let pod = Pod { name: name.clone(), ..holder.pod.clone() };
    let holder = format!("{}/{}", holder.pod.namespace, holder.pod.name);
    let (passed, came_back) = match run_sandbox(client, config(&pod, cgroup_parent)) {
        Err(Error::Call { status, .. }) => {
            let text = status.message().to_owned();
            (text.contains(&format!("is held by pod {holder}, container ")), text)
        }
        Err(error) => return Err(error),
        Ok(id) => {
            remove(client, &id)?;
            (false, format!("it got it; {holder} has it"))
        }
    };
    Ok(outcome("hostport-taken", passed, format!("RunPodSandbox of {name}"), came_back))
}

fn remove(client: &Client, id: &str) -> Result<(), Error> {
    let pod = PodSandboxId { pod_sandbox_id: id.to_owned() };
    let _: Empty = client.call("StopPodSandbox", pod.clone())?;
    let _: Empty = client.call("RemovePodSandbox", pod)?;
    Ok(())
}
