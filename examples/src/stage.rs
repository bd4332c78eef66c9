//! The private world that the proofs are played in: a node, a client beside it, a router behind which lies
//! the outside. Each is a network namespace; one bridge joins them. All of it dies with the process.

pub mod layout;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::netns::{self, NetNs};
use kernel::sysctl;

use crate::exchange::{self, Reply};
use crate::manifest::Protocol;
use crate::server::{ServerError, Servers};

/// How long a fresh stage may take until packets pass.
const READY: Duration = Duration::from_secs(10);
/// How long one try of that may take.
const READY_TRY: Duration = Duration::from_millis(200);

/// A machine or pod: a namespace with a name and addresses.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `node`, `client`, `router`, or the pod's name.
    pub name: String,
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// Its addresses; the first of each family is the one it speaks with.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    /// The first address of the family of `like`.
    #[must_use]
    pub fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == v4)
    }
}

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A namespace could not be made or entered.
    #[error("network namespace of {name}")]
    Namespace {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: Box<kernel::Error>,
    },
    /// ip(8) or nft(8) could not be run.
    #[error("cannot run {program}(8)")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// ip(8) or nft(8) refused a line.
    #[error("{program} in {name}: {status}: {stderr}")]
    Refused {
        /// Which.
        program: &'static str,
        /// In which namespace.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said; it gives the line's number.
        stderr: String,
    },
    /// A machine's server did not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Packets do not pass between two machines of the stage itself.
    #[error("{from} does not reach {to} on a fresh stage: {reply}")]
    NotReady {
        /// Who asked.
        from: String,
        /// Whom.
        to: SocketAddr,
        /// What came back at last.
        reply: Box<Reply>,
    },
}

/// The machines; the node is the namespace that this process is in.
#[derive(Debug)]
pub struct Stage {
    /// The machine that pods run on.
    pub node: Machine,
    /// A machine beside it.
    pub client: Machine,
    /// The way to the outside; it has the outside's addresses too.
    pub router: Machine,
    servers: Vec<Servers>,
}

impl Stage {
    /// Builds the stage around the calling process, which must be in a sandbox already.
    ///
    /// # Errors
    /// If a step fails, or packets do not pass within ten seconds.
    pub fn build() -> Result<Self, StageError> {
        let node = Machine {
            name: "node".to_owned(),
            netns: Arc::new(NetNs::current().map_err(|source| namespace("node", source))?),
            addresses: layout::addresses(&layout::NODE),
        };
        let machine = |name: &str, addresses: &[&str]| -> Result<Machine, StageError> {
            let netns = Arc::new(make_netns(name, &Path::new("/run/netns").join(name))?);
            Ok(Machine { name: name.to_owned(), netns, addresses: layout::addresses(addresses) })
        };
        let wire = machine("wire", &[])?;
        let client = machine("client", &layout::CLIENT)?;
        let router = machine("router", &layout::ROUTER)?;
        set(&wire, &[("net/ipv6/conf/default/disable_ipv6", "1")])?;
        // A node that has not met a CNI plugin yet: whoever needs forwarding has to switch it on.
        set(&node, &[("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")])?;
        // A router forwards, and tells every time where it cannot.
        set(
            &router,
            &[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv4/icmp_ratelimit", "0"),
                ("net/ipv6/icmp/ratelimit", "0"),
            ],
        )?;
        ip(&wire, &layout::wire(std::process::id()))?;
        // Its link-local address is there at once, not seconds later: the node's state is compared by and by.
        set(&node, &[("net/ipv6/conf/uplink/accept_dad", "0")])?;
        ip(&node, &layout::node())?;
        ip(&client, &layout::client())?;
        ip(&router, &layout::router())?;
        feed(&router, "nft", &["-f", "-"], &layout::router_rules())?;
        let mut stage = Self { node, client, router, servers: Vec::new() };
        stage.serve()?;
        stage.wait_until_ready()?;
        Ok(stage)
    }

    fn serve(&mut self) -> Result<(), StageError> {
        let listen = |addresses: &[IpAddr], port: u16| -> Vec<(Protocol, SocketAddr)> {
            addresses.iter().map(|&address| (Protocol::Tcp, (address, port).into())).collect()
        };
        let node = listen(&self.node.addresses, layout::NODE_PORT);
        let outside = listen(&layout::addresses(&layout::OUTSIDE), layout::OUTSIDE_PORT);
        self.servers.push(Servers::start("node", &self.node.netns, &node)?);
        self.servers.push(Servers::start("outside", &self.router.netns, &outside)?);
        Ok(())
    }

    /// An interface that has just come up may drop its first packets, IPv6 above all: asks until there is an
    /// answer, from the client to the node and from both to the outside.
    fn wait_until_ready(&self) -> Result<(), StageError> {
        let deadline = Instant::now() + READY;
        let outside = layout::addresses(&layout::OUTSIDE);
        let node = self.node.addresses.iter().map(|&address| SocketAddr::from((address, layout::NODE_PORT)));
        let node = node.map(|to| (&self.client, to));
        let outside = outside.iter().flat_map(|&address| {
            let to = SocketAddr::from((address, layout::OUTSIDE_PORT));
            [(&self.client, to), (&self.node, to)]
        });
        for (from, to) in node.chain(outside) {
            loop {
                let reply = ask(from, Protocol::Tcp, to, READY_TRY)?;
                if matches!(reply, Reply::Answer(_)) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(StageError::NotReady { from: from.name.clone(), to, reply: Box::new(reply) });
                }
            }
        }
        Ok(())
    }
}

/// [`exchange::ask`] from a machine.
///
/// # Errors
/// If its namespace cannot be entered.
pub fn ask(from: &Machine, protocol: Protocol, to: SocketAddr, patience: Duration) -> Result<Reply, StageError> {
    from.netns.run(|| exchange::ask(protocol, to, patience)).map_err(|source| namespace(&from.name, source))
}

/// Makes a pod's namespace with its loopback interface up, as a runtime does before it calls plugins.
///
/// # Errors
/// If the namespace cannot be made.
pub fn make_pod(name: &str, path: &Path) -> Result<Arc<NetNs>, StageError> {
    let netns = Arc::new(make_netns(name, path)?);
    ip(&Machine { name: name.to_owned(), netns: Arc::clone(&netns), addresses: Vec::new() }, &layout::pod())?;
    Ok(netns)
}

fn make_netns(name: &str, path: &Path) -> Result<NetNs, StageError> {
    netns::create_named(path).map_err(|source| namespace(name, source))
}

pub(crate) fn set(machine: &Machine, values: &[(&str, &str)]) -> Result<(), StageError> {
    let set_all = || values.iter().try_for_each(|(name, value)| sysctl::set(name, value).map(drop));
    let failed = |source| namespace(&machine.name, source);
    machine.netns.run(set_all).map_err(failed)?.map_err(failed)
}

/// Runs lines of ip(8) in a namespace; the first that is refused ends it.
pub(crate) fn ip(machine: &Machine, lines: &[String]) -> Result<(), StageError> {
    feed(machine, "ip", &["-batch", "-"], &lines.join("\n"))
}

/// Runs a program in a namespace with this text on its standard input.
fn feed(machine: &Machine, program: &'static str, arguments: &[&str], text: &str) -> Result<(), StageError> {
    let run = || {
        let mut command = sandbox::command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = machine
        .netns
        .run(run)
        .map_err(|source| namespace(&machine.name, source))?
        .map_err(|source| StageError::Run { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(StageError::Refused { program, name: machine.name.clone(), status: output.status, stderr })
}

pub(crate) fn namespace(name: &str, source: kernel::Error) -> StageError {
    StageError::Namespace { name: name.to_owned(), source: Box::new(source) }
}
