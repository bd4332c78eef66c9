//! The demo as a library: set up, attach, prove, detach, compare. It prints nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cni_spec::id::IdError;
use cni_spec::{Environment, SpecVersion, ValidAttachment};
use kernel::netns;

use crate::conflist::{Conflist, PluginConf};
use crate::container::container_of;
use crate::leases::{self, Leases, LeasesError};
use crate::manifest::{Pod, Protocol};
use crate::proof::script::Actor;
use crate::proof::{self, Outcome};
use crate::residue::snapshot::{self, SnapshotError};
use crate::residue::{self, Residue};
use crate::runtime::{Call, Container, ErrorList, Runtime, RuntimeError, chain};
use crate::server::{ServerError, Servers};
use crate::stage::{self, Machine, Stage, StageError};
use crate::swap::Reference;

/// Where libcni keeps results.
const CACHE: &str = "/var/lib/cni";

/// How the reference portmap refuses every dual-stack pod with a host port (seen with 1.1.1): it compares the IPv6
/// chain with rules made for the IPv4 address.
const PORTMAP_CHECK: &str = "CHECK of portmap: could not check ipv6 dnat: ";

/// How long at most the kernel may look for duplicates of IPv6 addresses. The reference ptp gives the node's ends such that
/// nobody is answered for before, and does not wait for that: on a busy machine it takes longer than a proof is patient.
const DUPLICATES: Duration = Duration::from_secs(60);

/// What is played, and with which plugins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The chain.
    pub list: Conflist,
    /// The pods, in the order in which they are attached.
    pub pods: Vec<Pod>,
    /// Folders with executables; the first that has one wins.
    pub plugin_path: Vec<PathBuf>,
    /// What plugins inherit.
    pub environment: Environment,
}

/// A pod with everything that runs in it.
#[derive(Debug)]
pub struct Attached {
    /// Its manifest.
    pub pod: Pod,
    /// Its namespace and addresses.
    pub machine: Machine,
    /// The parameters of its calls.
    pub container: Container,
    /// The plugins that ADD ran.
    pub calls: Vec<Call>,
    servers: Servers,
}

/// A pod that is gone, with the plugins that its DEL ran.
#[derive(Debug)]
pub struct Detached {
    /// Its name.
    pub pod: String,
    /// In the order in which they ran.
    pub calls: Vec<Call>,
}

/// What keeps the demo from going on. A proof that fails is no such error.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A plugin of the chain is not there.
    #[error(transparent)]
    Plugin(Box<RuntimeError>),
    /// The stage, or a pod's namespace on it.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The node's state could not be read.
    #[error("cannot compare the node's state")]
    Snapshot(#[from] SnapshotError),
    /// A pod's id was refused.
    #[error("id of pod {pod}")]
    Id {
        /// Its name.
        pod: String,
        /// Why.
        #[source]
        source: IdError,
    },
    /// The chain did not attach a pod.
    #[error("cannot attach pod {pod}")]
    Attach {
        /// Its name.
        pod: String,
        /// Which plugin failed, and why.
        #[source]
        source: Box<RuntimeError>,
    },
    /// A pod's server could not bind the address that the chain gave it.
    #[error("pod {pod} was attached, but cannot use what it was given")]
    Serve {
        /// Its name.
        pod: String,
        /// Which address, and why.
        #[source]
        source: Box<ServerError>,
    },
    /// The chain did not detach a pod.
    #[error("cannot detach pod {pod}")]
    Detach {
        /// Its name.
        pod: String,
        /// Which plugin failed, and why.
        #[source]
        source: Box<RuntimeError>,
    },
    /// A pod's namespace could not be removed.
    #[error("cannot remove the namespace of pod {pod}")]
    Namespace {
        /// Its name.
        pod: String,
        /// Why.
        #[source]
        source: Box<kernel::Error>,
    },
    /// The IPAM plugin's leases could not be read.
    #[error("cannot list leases")]
    Leases(#[from] LeasesError),
}

/// The demo on its stage.
#[derive(Debug)]
pub struct Demo {
    /// The world around the pods.
    pub stage: Stage,
    /// The pods that are attached now.
    pub attached: Vec<Attached>,
    settings: Settings,
    runtime: Runtime,
    ipam: Option<PathBuf>,
    before: BTreeSet<String>,
}

impl Demo {
    /// Builds the stage and remembers the node's state. The process must be in a sandbox already.
    ///
    /// # Errors
    /// If an executable is missing, the stage does not work, or the node's state cannot be read.
    pub fn set_up(settings: Settings) -> Result<Self, DemoError> {
        let runtime = Runtime::new(settings.plugin_path.clone(), CACHE.into(), settings.environment.clone());
        for plugin in &settings.list.plugins {
            for name in [Some(plugin.plugin_type.as_str()), plugin.ipam_type()].into_iter().flatten() {
                runtime.find(name).map_err(|error| DemoError::Plugin(Box::new(error)))?;
            }
        }
        let ours = |plugin: &PluginConf| plugin.ipam_type() == Some(Reference::HostLocal.ours());
        let ipam = settings.list.plugins.iter().any(ours).then(|| runtime.find(leases::COMMAND));
        let ipam = ipam.transpose().map_err(|error| DemoError::Plugin(Box::new(error)))?;
        let stage = Stage::build()?;
        let before = snapshot::take()?;
        Ok(Self { stage, attached: Vec::new(), settings, runtime, ipam, before })
    }

    /// The chain that is played.
    #[must_use]
    pub fn list(&self) -> &Conflist {
        &self.settings.list
    }

    /// Attaches every pod and starts its servers.
    ///
    /// # Errors
    /// The first pod that cannot be attached; those before it stay. Or the node's addresses cannot be read.
    pub fn attach(&mut self) -> Result<(), DemoError> {
        for pod in self.settings.pods.clone() {
            let attached = self.attach_pod(pod)?;
            self.attached.push(attached);
        }
        if self.list().plugins.iter().any(|plugin| plugin.plugin_type == Reference::Ptp.name()) {
            snapshot::take_settled(DUPLICATES)?;
        }
        Ok(())
    }

    fn attach_pod(&self, pod: Pod) -> Result<Attached, DemoError> {
        let name = || pod.name.clone();
        let container = container_of(&pod).map_err(|source| DemoError::Id { pod: name(), source })?;
        let netns = stage::make_pod(&pod.name, &container.netns)?;
        let added = self
            .runtime
            .attach(self.list(), &container)
            .map_err(|source| DemoError::Attach { pod: name(), source: Box::new(source) })?;
        let addresses: Vec<IpAddr> = added.result.ips.iter().map(|ip| ip.address.ip()).collect();
        let ports = pod.ports.iter().map(|port| (port.protocol, port.container_port.get()));
        // Two host ports may lead to one container port.
        let listen: BTreeSet<(Protocol, SocketAddr)> = ports
            .flat_map(|(protocol, port)| addresses.iter().map(move |&address| (protocol, (address, port).into())))
            .collect();
        let listen: Vec<_> = listen.into_iter().collect();
        let servers = Servers::start(&pod.name, &netns, &listen)
            .map_err(|source| DemoError::Serve { pod: name(), source: Box::new(source) })?;
        let machine = Machine { name: name(), netns: Arc::clone(&netns), addresses };
        Ok(Attached { pod, machine, container, calls: added.calls, servers })
    }

    /// STATUS, CHECK and GC with every pod valid, as far as the list's version has them. After these nothing may
    /// be different.
    #[must_use]
    pub fn verbs(&self) -> Vec<Outcome> {
        let (list, pods) = (self.list(), self.attached.len());
        let mut outcomes = Vec::new();
        if list.version >= SpecVersion::V1_1_0 {
            let status = self.runtime.status(list).map_err(|error| chain(&error));
            outcomes.push(verb("cni-status", "STATUS of every plugin".to_owned(), status, "ready"));
            let valid: Vec<ValidAttachment> = self.attached.iter().map(Attached::valid).collect();
            let gc = self.runtime.gc(list, &valid).map_err(|error: ErrorList| error.to_string());
            outcomes.push(verb("cni-gc", format!("GC, all {pods} pods valid"), gc, "done"));
        }
        if list.version >= SpecVersion::V0_4_0 {
            outcomes.push(self.check());
        }
        outcomes
    }

    /// CHECK of every pod. One defect of a reference plugin is known, and told instead of counted.
    fn check(&self) -> Outcome {
        let (mut errors, mut good) = (Vec::new(), "all as ADD made it");
        for attached in &self.attached {
            match self.runtime.check(self.list(), &attached.container).map_err(|error| chain(&error)) {
                Ok(_) => {}
                Err(error) if error.starts_with(PORTMAP_CHECK) => {
                    good = "refused by the reference portmap, which looks for IPv4 rules in the IPv6 table";
                }
                Err(error) => errors.push(format!("{}: {error}", attached.pod.name)),
            }
        }
        let result = if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) };
        verb("cni-check", format!("CHECK of {} pods", self.attached.len()), result, good)
    }

    /// The proofs by packets.
    ///
    /// # Errors
    /// If a machine's namespace cannot be entered.
    pub fn prove(&self) -> Result<Vec<Outcome>, DemoError> {
        let actors: Vec<Actor<'_>> =
            self.attached.iter().map(|attached| Actor { pod: &attached.pod, machine: &attached.machine }).collect();
        Ok(proof::prove(&self.stage, &actors)?)
    }

    /// The leases now, and whether they are those of the attached pods and no others. `None` if the chain's
    /// IPAM plugin is one that the demo cannot read.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn leases(&self) -> Result<Option<(Leases, Outcome)>, DemoError> {
        let Some(leases) = leases::read(self.list(), self.ipam.as_deref())? else { return Ok(None) };
        let given: BTreeSet<IpAddr> =
            self.attached.iter().flat_map(|attached| attached.machine.addresses.iter().copied()).collect();
        let wrong: Vec<String> = leases.taken.symmetric_difference(&given).map(ToString::to_string).collect();
        let count = leases.taken.len();
        let outcome = Outcome {
            id: if given.is_empty() { "leases-gone" } else { "leases" }.to_owned(),
            passed: wrong.is_empty(),
            sent: leases.source.clone(),
            came_back: match wrong.as_slice() {
                [] if given.is_empty() => "no lease".to_owned(),
                [] => format!("{count} leases, those of {} pods", self.attached.len()),
                _ => format!("{count} leases; not as the pods have it: {}", wrong.join(", ")),
            },
            needs: Vec::new(),
        };
        Ok(Some((leases, outcome)))
    }

    /// Ends the servers and detaches every pod in the order of its attachment; then DEL once more without
    /// namespace and result, as containerd does when it removes a sandbox.
    ///
    /// # Errors
    /// The first pod that cannot be detached; it and those after it stay.
    pub fn detach(&mut self) -> Result<(Vec<Detached>, Outcome), DemoError> {
        let mut detached = Vec::new();
        let mut again = Ok(());
        let pods = self.attached.len();
        while !self.attached.is_empty() {
            let Attached { pod, container, servers, machine, .. } = self.attached.remove(0);
            drop(servers);
            let failed = |source| DemoError::Detach { pod: pod.name.clone(), source: Box::new(source) };
            let calls = self.runtime.del(self.list(), &container).map_err(failed)?;
            drop(machine);
            netns::remove_named(&container.netns)
                .map_err(|source| DemoError::Namespace { pod: pod.name.clone(), source: Box::new(source) })?;
            let gone = Container { netns: PathBuf::new(), ..container };
            again = again.and(self.runtime.del(self.list(), &gone).map(drop).map_err(|error| chain(&error)));
            detached.push(Detached { pod: pod.name.clone(), calls });
        }
        let sent = format!("DEL of {pods} pods again, without namespace and result");
        Ok((detached, verb("cni-del-again", sent, again, "done")))
    }

    /// The node's state now against that before the first ADD.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn residue(&self) -> Result<(Residue, Outcome), DemoError> {
        let residue = residue::compare(&self.before, &snapshot::take()?, self.list());
        let outcome = Outcome {
            id: "residue".to_owned(),
            passed: residue.left.is_empty(),
            sent: format!("{} lines of the node's state compared with those before the first ADD", residue.compared),
            came_back: match residue.left.len() {
                0 => "nothing left".to_owned(),
                count => format!("{count} lines differ"),
            },
            needs: Vec::new(),
        };
        Ok((residue, outcome))
    }
}

impl Attached {
    fn valid(&self) -> ValidAttachment {
        ValidAttachment { container_id: self.container.id.clone(), ifname: self.container.ifname.clone() }
    }
}

fn verb(id: &str, sent: String, result: Result<(), String>, good: &str) -> Outcome {
    Outcome {
        id: id.to_owned(),
        passed: result.is_ok(),
        sent,
        came_back: result.err().unwrap_or_else(|| good.to_owned()),
        needs: Vec::new(),
    }
}
