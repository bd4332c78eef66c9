//! containerd, driven by its own command line: no kubelet, no names, no host ports.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::process::Child;

use podwire_examples::manifest::{Pod, Port, Protocol};
use podwire_examples::proof::Outcome;
use podwire_examples::shipped;

use super::{Play, archive};
use crate::calls::Habit;
use crate::containerd::Containerd;
use crate::error::Error;
use crate::image;
use crate::node::{self, Running, by_family, outcome};
use crate::programs::{self, output, wait_for};

/// The containerd namespace of `ctr`.
const NAMESPACE: &str = "default";
/// What `ctr run` says.
const LOG: &str = "/opt/runtime/ctr.log";

/// The container is gone when DEL comes; no word about a pod.
const HABIT: Habit = Habit { calls: &["ADD", "DEL without netns"], id_prefix: "default-", args: &[], keys: &[] };

/// `ctr run --cni`, which ends when its container does, and detaches it then: DEL comes without namespace.
///
/// # Errors
/// If it cannot be played to its end.
pub fn ctr(play: &mut Play<'_>) -> Result<(), Error> {
    let containerd = Containerd::start(&play.programs)?;
    containerd.import(&archive(), NAMESPACE)?;
    play.node.remember()?;
    let by = format!("ctr of {}", containerd.version()?);
    play.say(&format!("{by}, run --cni"))?;

    let pod = shipped::pods()?.into_iter().find(|pod| pod.ports.iter().any(|port| port.protocol == Protocol::Tcp));
    let pod = pod.ok_or(Error::Answer { method: "examples/pods", what: "a TCP port" })?;
    let mut run = Run::start(&containerd, &pod, &play.cgroup_parent)?;
    let running = vec![run.pod(&containerd, without_host_ports(pod))?];
    running.iter().try_for_each(|pod| play.node.wait_until_answered(pod, String::new))?;
    for (title, outcomes) in by_family(": sent, and what came back", play.node.prove(&running, "")?) {
        play.section(&title, outcomes)?;
    }
    let leases = play.node.leases(&running, "leases")?;
    play.section("ctr run; who has what", vec![leases])?;

    let ended = run.end(&containerd, &running)?;
    play.calls(&running, HABIT)?;
    drop(running);
    let left = vec![ended, play.node.leases(&[], "leases-gone")?, play.node.residue("residue")?];
    play.section("ctr task kill; what is left", left)
}

/// `ctr` has no way to ask for them.
fn without_host_ports(pod: Pod) -> Pod {
    let ports = pod.ports.into_iter().map(|port| Port { host_port: None, ..port });
    Pod { ports: ports.collect(), ..pod }
}

/// A `ctr run` in the foreground.
struct Run {
    child: Child,
    name: String,
}

impl Run {
    fn start(containerd: &Containerd, pod: &Pod, cgroup_parent: &str) -> Result<Self, Error> {
        let out = File::create(LOG).map_err(Error::file("write", LOG))?;
        let errors = out.try_clone().map_err(Error::file("write", LOG))?;
        let mut command = containerd.ctr(NAMESPACE);
        command.args(["run", "--rm", "--cni", "--cgroup", &format!("{cgroup_parent}/{}", pod.name)]);
        // What it is given replaces the image's entrypoint as well.
        command.args([image::NAME, &pod.name]).args(image::ENTRYPOINT).args(node::arguments(pod));
        command.stdout(out).stderr(errors);
        let child = command.spawn().map_err(programs::start("ctr run"))?;
        Ok(Self { child, name: pod.name.clone() })
    }

    /// Its pod, once it runs and has addresses: `ctr` says none, so those that are there count, and
    /// are what leases are compared with.
    fn pod(&mut self, containerd: &Containerd, pod: Pod) -> Result<Running, Error> {
        let process = || self.process(containerd);
        let process = wait_for("ctr's task to run", process, String::new)?;
        let mut running = Running::of(pod, self.name.clone(), &process, Vec::new())?;
        let both = || {
            let found = running.found()?;
            let families = [IpAddr::is_ipv4, IpAddr::is_ipv6];
            Ok(families.into_iter().all(|is| found.iter().any(is)).then_some(found))
        };
        let found = wait_for("an address of each family", both, String::new)?;
        running.machine.addresses = found.into_iter().collect();
        Ok(running)
    }

    /// From the lines `TASK PID STATUS`.
    fn process(&mut self, containerd: &Containerd) -> Result<Option<u32>, Error> {
        if let Some(status) = self.child.try_wait().map_err(programs::start("ctr run"))? {
            return Err(Error::Failed { command: "ctr run".to_owned(), status, output: String::new() });
        }
        let tasks = output(containerd.ctr(NAMESPACE).args(["task", "list"]))?;
        let mut rows = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok(rows.find_map(|row| match row.as_slice() {
            [name, process, "RUNNING"] if *name == self.name => process.parse().ok(),
            _ => None,
        }))
    }

    fn end(&mut self, containerd: &Containerd, running: &[Running]) -> Result<Outcome, Error> {
        for pod in running {
            output(containerd.ctr(NAMESPACE).args(["task", "kill", "--signal", "SIGKILL", &pod.id]))?;
        }
        let ended = || self.child.try_wait().map_err(programs::start("ctr run"));
        wait_for("ctr run to end", ended, String::new)?;
        let log = Path::new(LOG);
        let said = fs::read_to_string(log).map_err(Error::file("read", log))?;
        let is_silent = said.is_empty();
        let came_back = if is_silent { "ended without a word".to_owned() } else { said.trim_end().to_owned() };
        Ok(outcome("ctr-ended", is_silent, format!("ctr task kill of {}", self.name), came_back))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        programs::end(&mut self.child);
    }
}
