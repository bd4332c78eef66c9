//! The node that a runtime plays on, in the demo's world: packets, names, and what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::netns::NetNs;
use podwire_examples::conflist::Conflist;
use podwire_examples::exchange::Reply;
use podwire_examples::leases;
use podwire_examples::manifest::Pod;
use podwire_examples::proof::{self, Outcome, script::Actor};
use podwire_examples::residue::{self, snapshot};
use podwire_examples::serve;
use podwire_examples::shipped;
use podwire_examples::stage::{self, Machine, Stage};

use crate::error::Error;
use crate::mounts::PLUGINS;
use crate::programs::{self, PATIENCE};

/// How long one question to a pod that starts may take.
const TRY: Duration = Duration::from_millis(500);
/// How long nothing is asked after something that did not come yet; a runtime needs the processor meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// The exit code of our command lines where there is nothing to show.
const NOTHING: i32 = 3;

/// What runtimes keep below `/run` and `/var/lib` for themselves, with no word about a pod's network in it.
const RUNTIMES_OWN: [&str; 3] = ["file /run/containerd/", "file /run/runc/", "file /run/lock/"];

/// A pod that a runtime has made.
#[derive(Debug)]
pub struct Running {
    /// As it was asked for.
    pub pod: Pod,
    /// Its namespace, with the addresses that the runtime says it has.
    pub machine: Machine,
    /// What the runtime knows it by.
    pub id: String,
}

impl Running {
    /// The pod whose first process this is.
    ///
    /// # Errors
    /// If its namespace cannot be opened.
    pub fn of(pod: Pod, id: String, process: &impl Display, addresses: Vec<IpAddr>) -> Result<Self, Error> {
        let netns = NetNs::open(format!("/proc/{process}/ns/net"))
            .map_err(|source| Error::Namespace { pod: pod.name.clone(), source: Box::new(source) })?;
        Ok(Self { machine: Machine { name: pod.name.clone(), netns: Arc::new(netns), addresses }, pod, id })
    }

    /// The addresses that its namespace really has.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn found(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let namespace = |source| Error::Namespace { pod: self.pod.name.clone(), source: Box::new(source) };
        let addresses = self.machine.netns.run(serve::addresses).map_err(namespace)?;
        let addresses = addresses.map_err(|source| Error::System { action: "list a pod's addresses", source })?;
        Ok(addresses.into_iter().collect())
    }
}

/// What its container is given to run: see [`image`](crate::image).
#[must_use]
pub fn arguments(pod: &Pod) -> Vec<String> {
    // Two host ports may lead to one container port.
    let ports: BTreeSet<String> =
        pod.ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)).collect();
    let ports = ports.into_iter().flat_map(|port| ["--port".to_owned(), port]);
    [pod.name.clone()].into_iter().chain(ports).collect()
}

/// The node with the world around it.
#[derive(Debug)]
pub struct Node {
    stage: Stage,
    list: Conflist,
    before: BTreeSet<String>,
}

impl Node {
    /// Builds the world around this process.
    ///
    /// # Errors
    /// If it does not work.
    pub fn build() -> Result<Self, Error> {
        let (stage, list) = (Stage::build()?, shipped::conflist()?);
        Ok(Self { stage, list, before: BTreeSet::new() })
    }

    /// Remembers the node's state, with which [`residue`](Self::residue) compares.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn remember(&mut self) -> Result<(), Error> {
        self.before = state()?;
        Ok(())
    }

    /// Every pod has the addresses that its runtime says, and no others; then waits until what is in it answers. `log` is
    /// what its container wrote, if that is in no file of [`logs`](crate::logs).
    ///
    /// # Errors
    /// If it does not in time.
    pub fn arrived(
        &self,
        running: &[Running],
        by: &str,
        log: impl Fn(&Running) -> String,
    ) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        for pod in running {
            let said: BTreeSet<IpAddr> = pod.machine.addresses.iter().copied().collect();
            let found = pod.found()?;
            let [said_text, found_text] = [&said, &found].map(words);
            let came_back = if said == found { found_text } else { format!("{found_text}; {by} says {said_text}") };
            let sent = format!("addresses of {}/{}, made by {by}", pod.pod.namespace, pod.pod.name);
            outcomes.push(outcome(
                &format!("addresses-{}", pod.pod.name),
                said == found && !said.is_empty(),
                sent,
                came_back,
            ));
            self.wait_until_answered(pod, || log(pod))?;
        }
        Ok(outcomes)
    }

    /// Waits until what is in the pod answers at its addresses. `log` is as of [`arrived`](Self::arrived).
    ///
    /// # Errors
    /// If it does not in time.
    pub fn wait_until_answered(&self, pod: &Running, log: impl Fn() -> String) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let ports = pod.pod.ports.iter().map(|port| (port.protocol, port.container_port.get()));
        let doors = ports.flat_map(|port| pod.machine.addresses.iter().map(move |&address| (port, address)));
        for ((protocol, port), address) in doors {
            loop {
                let reply = stage::ask(&self.stage.node, protocol, SocketAddr::new(address, port), TRY)?;
                if matches!(reply, Reply::Answer(_)) {
                    break;
                }
                if Instant::now() > deadline {
                    let (pod, reply) = (pod.pod.name.clone(), Box::new(reply));
                    return Err(Error::Silent { pod, waited: PATIENCE, reply, log: log() });
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// The proofs by packets of the demo, with this in front of each line's id.
    ///
    /// # Errors
    /// If a namespace cannot be entered.
    pub fn prove(&self, running: &[Running], prefix: &str) -> Result<Vec<Outcome>, Error> {
        let actors: Vec<Actor<'_>> = running.iter().map(|pod| Actor { pod: &pod.pod, machine: &pod.machine }).collect();
        let mut outcomes = proof::prove(&self.stage, &actors)?;
        outcomes.iter_mut().for_each(|outcome| outcome.id.insert_str(0, prefix));
        Ok(outcomes)
    }

    /// Whether each command line that looks into what plugins keep names every pod that it should.
    ///
    /// # Errors
    /// If one fails.
    pub fn names(&self, running: &[Running], namespace: bool) -> Result<Vec<Outcome>, Error> {
        let name = |pod: &Running| {
            if namespace { format!("{}/{}", pod.pod.namespace, pod.pod.name) } else { pod.pod.name.clone() }
        };
        let all: Vec<String> = running.iter().map(name).collect();
        let mapped = running.iter().filter(|pod| pod.pod.ports.iter().any(|port| port.host_port.is_some()));
        let mapped: Vec<String> = mapped.map(name).collect();
        [("ipam", "list", &all), ("podwire", "inspect", &all), ("podwire-portmap", "list", &mapped)]
            .into_iter()
            .map(|(program, verb, wanted)| {
                let text = tool(program, verb)?;
                let words: BTreeSet<&str> = text.split_whitespace().collect();
                let missing: Vec<&String> = wanted.iter().filter(|name| !words.contains(name.as_str())).collect();
                let came_back = match missing.as_slice() {
                    [] => format!("names {}", wanted.join(", ")),
                    missing => format!("does not name {missing:?}:\n{text}"),
                };
                Ok(outcome(&format!("{program}-{verb}"), missing.is_empty(), format!("{program} {verb}"), came_back))
            })
            .collect()
    }

    /// The leases are those of these pods, no more and no fewer.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn leases(&self, running: &[Running], id: &str) -> Result<Outcome, Error> {
        let given: BTreeSet<IpAddr> = running.iter().flat_map(|pod| pod.machine.addresses.clone()).collect();
        let ipam = Path::new(PLUGINS).join(leases::COMMAND);
        let taken = leases::read(&self.list, Some(&ipam))?.map(|leases| leases.taken).unwrap_or_default();
        let came_back = if taken.is_empty() { "no lease".to_owned() } else { words(&taken) };
        Ok(outcome(id, taken == given, "ipam list".to_owned(), came_back))
    }

    /// The node's state now against that which was remembered. A runtime may have something to do after it has answered.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn residue(&self, id: &str) -> Result<Outcome, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let residue = residue::compare(&self.before, &state()?, &self.list);
            if residue.left.is_empty() || Instant::now() > deadline {
                let sent = format!("{} lines of the node's state compared with those before", residue.compared);
                let came_back =
                    if residue.left.is_empty() { "nothing left".to_owned() } else { residue.left.join("\n") };
                return Ok(outcome(id, residue.left.is_empty(), sent, came_back));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The state without what is the runtimes' own.
fn state() -> Result<BTreeSet<String>, Error> {
    let mut lines = snapshot::take()?;
    lines.retain(|line| !RUNTIMES_OWN.iter().any(|own| line.starts_with(own)));
    Ok(lines)
}

/// What a command line of ours prints. Nothing to show is no failure of it, and names no pod.
fn tool(program: &str, verb: &str) -> Result<String, Error> {
    let mut command = sandbox::command(Path::new(PLUGINS).join(program));
    match programs::output(command.arg(verb)) {
        Err(Error::Failed { status, output, .. }) if status.code() == Some(NOTHING) => Ok(output),
        printed => printed,
    }
}

/// One line of proof that is no packet.
#[must_use]
pub fn outcome(id: &str, passed: bool, sent: String, came_back: String) -> Outcome {
    Outcome { id: id.to_owned(), passed, sent, came_back, needs: Vec::new() }
}

/// Sections by address family, as the demo prints them.
#[must_use]
pub fn by_family(title: &str, outcomes: Vec<Outcome>) -> BTreeMap<String, Vec<Outcome>> {
    let mut sections = BTreeMap::new();
    for outcome in outcomes {
        let family = if outcome.id.ends_with('4') { "IPv4" } else { "IPv6" };
        sections.entry(format!("{family}{title}")).or_insert_with(Vec::new).push(outcome);
    }
    sections
}

fn words(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
