//! podman, as people drive it.

use std::net::IpAddr;

use podwire_examples::manifest::{Pod, Port};
use podwire_examples::proof::Outcome;
use podwire_examples::shipped;

use super::{Play, archive};
use crate::calls::Habit;
use crate::error::Error;
use crate::image;
use crate::node::{self, Running, by_family, outcome};
use crate::podman::Podman;
use crate::programs::output;

/// The network of the shipped list.
const NETWORK: &str = "podnet";

/// The keys of port mappings are the specification's; a pod is known by its container's name alone.
const HABIT: Habit = Habit {
    calls: &["ADD", "DEL"],
    id_prefix: "",
    args: &["IgnoreUnknown", "K8S_POD_NAME"],
    keys: &["containerPort", "hostIP", "hostPort", "protocol"],
};

/// The shipped pods by `podman run`; a second one that wants a host port of theirs; `podman rm`.
///
/// # Errors
/// If it cannot be played to its end.
pub fn podman(play: &mut Play<'_>) -> Result<(), Error> {
    let podman = Podman::new(&play.programs)?;
    output(podman.command(&["load", "--quiet", "--input"]).arg(archive()))?;
    play.node.remember()?;
    let by = podman.version()?;
    play.say(&format!("{by}, CNI backend"))?;

    let parent = play.cgroup_parent.clone();
    let pods = shipped::pods()?.into_iter().map(|pod| run(&podman, pod, &parent));
    let running: Vec<Running> = pods.collect::<Result<_, _>>()?;
    let arrived = play.node.arrived(&running, &by, |pod| podman.logs(&pod.id))?;
    play.section("podman run", arrived)?;
    for (title, outcomes) in by_family(": sent, and what came back", play.node.prove(&running, "")?) {
        play.section(&title, outcomes)?;
    }
    let mut names = play.node.names(&running, false)?;
    names.push(play.node.leases(&running, "leases")?);
    play.section("who has what", names)?;
    let refused = second(&podman, &running, &parent)?;
    let leases = play.node.leases(&running, "hostport-taken-leases")?;
    play.section("a second container wants a host port that is taken", vec![refused, leases])?;

    for pod in &running {
        output(&mut podman.command(&["rm", "--force", "--time", "0", &pod.id]))?;
    }
    play.calls(&running, HABIT)?;
    drop(running);
    let left = vec![play.node.leases(&[], "leases-gone")?, play.node.residue("residue")?];
    play.section("podman rm; what is left", left)
}

fn run(podman: &Podman, pod: Pod, cgroup_parent: &str) -> Result<Running, Error> {
    let id = output(podman.command(&["run", "--detach"]).args(options(&pod, cgroup_parent)))?.trim().to_owned();
    let known = podman.inspect(&id)?;
    let process = known["State"]["Pid"].as_u64().unwrap_or_default();
    let network = &known["NetworkSettings"]["Networks"][NETWORK];
    let address = |key: &str| network[key].as_str().and_then(|address| address.parse::<IpAddr>().ok());
    let addresses = ["IPAddress", "GlobalIPv6Address"].into_iter().filter_map(address).collect();
    Running::of(pod, id, &process, addresses)
}

fn options(pod: &Pod, cgroup_parent: &str) -> Vec<String> {
    let mut options = vec![format!("--cgroup-parent={cgroup_parent}"), format!("--network={NETWORK}")];
    options.extend([format!("--name={}", pod.name), format!("--hostname={}", pod.name)]);
    options.extend(pod.ports.iter().filter_map(publish));
    options.push(image::NAME.to_owned());
    options.extend(node::arguments(pod));
    options
}

fn publish(port: &Port) -> Option<String> {
    let host_ip = port.host_ip.map(|ip| format!("{ip}:")).unwrap_or_default();
    Some(format!("--publish={host_ip}{}:{}/{}", port.host_port?, port.container_port, port.protocol))
}

/// A container of another name with the host ports of the first that has one. podman looks itself whether somebody listens
/// at the port, and nobody does: the plugin must say who has it.
fn second(podman: &Podman, running: &[Running], cgroup_parent: &str) -> Result<Outcome, Error> {
    let holder = running.iter().find(|pod| pod.pod.ports.iter().any(|port| port.host_port.is_some()));
    let holder = holder.ok_or(Error::Answer { method: "examples/pods", what: "a host port" })?;
    let pod = Pod { name: format!("{}-again", holder.pod.name), ..holder.pod.clone() };
    let asked = output(podman.command(&["run", "--detach"]).args(options(&pod, cgroup_parent)));
    let (passed, came_back) = match asked {
        Err(Error::Failed { output, .. }) => {
            (output.contains(&format!("is held by pod {}, container ", holder.pod.name)), output.trim().to_owned())
        }
        Err(error) => return Err(error),
        Ok(_) => (false, format!("it got it; {} has it", holder.pod.name)),
    };
    // podman keeps the container that did not start.
    output(&mut podman.command(&["rm", "--force", "--time", "0", &pod.name]))?;
    Ok(outcome("hostport-taken", passed, format!("podman run of {}", pod.name), came_back))
}
