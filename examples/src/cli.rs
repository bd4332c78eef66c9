//! The command line.

mod keep;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cni_spec::Environment;

use self::keep::Keep;
use crate::cluster::{self, Cluster, ClusterError};
use crate::conflist::{Conflist, ConflistError};
use crate::demo::{Demo, DemoError, Settings};
use crate::manifest::{self, ManifestError, Protocol};
use crate::proof::Outcome;
use crate::report::{PodReport, Report};
use crate::runtime::chain;
use crate::serve::{self, ServeError};
use crate::shipped;
use crate::swap::{Reference, swap_all};

const EXAMPLES: &str = "\
Examples:
  podwire-demo --plugin-dir /opt/cni/bin
  podwire-demo --plugin-dir /opt/cni/bin --keep
  podwire-demo --plugin-dir /opt/cni/bin --swap portmap
  podwire-demo --plugin-dir /opt/cni/bin --conflist my.conflist --pods ./manifests -o json
  podwire-demo --plugin-dir /opt/cni/bin --nodes 3
  podwire-demo --serve web --port 80/tcp --port 53/udp";

/// Attaches real pods to a node of their own and proves by packets that they are reachable as they should be,
/// and not as they should not.
///
/// Node, client, router and pods are network namespaces inside a private user, network and mount namespace:
/// no root is needed, and nothing of the machine is touched. iproute2 and nftables must be installed.
///
/// Exit status: 0 if every line is ok, 1 if one failed, 2 if the demo could not be played to its end.
#[derive(Debug, Parser)]
#[command(name = "podwire-demo", version, after_help = EXAMPLES)]
struct Options {
    /// Folder with plugins and the `ipam` command; may be given several times, the first that has one wins.
    #[arg(long, value_name = "DIR", required_unless_present = "serve")]
    plugin_dir: Vec<PathBuf>,

    /// Network configuration list; without it, the shipped dual-stack 10-podwire.conflist.
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,

    /// Folder with Pod manifests (*.yaml); without it, the shipped influxdb, nginx, dns and toolbox.
    #[arg(long, value_name = "DIR")]
    pods: Option<PathBuf>,

    /// Put reference plugins in place of ours: ptp for podwire, host-local for podwire-ipam, portmap for
    /// podwire-portmap.
    #[arg(long, value_name = "PLUGIN", num_args = 1.., value_delimiter = ',')]
    swap: Vec<Reference>,

    /// Folder with the reference plugins.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/cni")]
    reference_dir: PathBuf,

    /// Several nodes on one wire with one pod each, and routes between them, instead of one node with many pods.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(2..=i64::from(cluster::layout::MOST)))]
    #[arg(conflicts_with_all = ["conflist", "pods", "swap", "keep"])]
    nodes: Option<u8>,

    /// Leave it standing until Enter, Ctrl-C or SIGTERM, and tell how to look around.
    #[arg(long)]
    keep: bool,

    /// What to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,

    /// Play nothing, but be what runs in a pod: answer as NAME at every --port, here and until killed.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["plugin_dir", "conflist", "pods", "swap", "nodes", "keep"])]
    serve: Option<String>,

    /// A port for --serve, 80/tcp or 53/udp; may be given several times.
    #[arg(long, value_name = "PORT", value_parser = serve::port, requires = "serve")]
    port: Vec<(Protocol, u16)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What keeps the demo from being played to its end.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("conflist")]
    Conflist(#[from] ConflistError),
    #[error("pods")]
    Manifest(#[from] ManifestError),
    #[error("cannot find {}", .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: the demo has a {covered} of its own and cannot see this one; copy the folder elsewhere", .path.display())]
    Covered { path: PathBuf, covered: &'static str },
    #[error("signals")]
    Signals(#[source] nix::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot serve")]
    Serve(#[from] ServeError),
    #[error("cannot print")]
    Print(#[source] io::Error),
    #[error("cannot print as JSON")]
    Json(#[source] serde_json::Error),
}

/// Plays the demo with this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    let played = match (&options.serve, options.nodes) {
        (Some(name), _) => serve::until_killed(name, &options.port).map(|()| true).map_err(CliError::from),
        (None, Some(nodes)) => play_cluster(&options, nodes),
        (None, None) => play(&options),
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if standard error is closed too.
            let _ = writeln!(io::stderr(), "podwire-demo: {}", chain(&error));
            ExitCode::from(2)
        }
    }
}

/// Whether every line is ok. Until the sandbox is entered, this process has one thread.
fn play(options: &Options) -> Result<bool, CliError> {
    let settings = settings(options)?;
    let keep = options.keep.then(Keep::prepare).transpose().map_err(CliError::Signals)?;
    sandbox::enter()?;
    let mut out: Box<dyn Write> = match options.output {
        Format::Text => Box::new(io::stdout()),
        Format::Json => Box::new(io::sink()),
    };
    let pods = settings.pods.len();
    let mut report = Report {
        network: settings.list.name.to_string(),
        cni_version: settings.list.version.to_string(),
        chain: settings.list.chain(),
        ..Report::default()
    };
    report.opening(&mut out, pods, 1).map_err(CliError::Print)?;
    let mut demo = Demo::set_up(settings)?;
    attached(&mut demo, &mut report, &mut out)?;
    if let Some(keep) = keep {
        keep.wait(&demo, &options.plugin_dir, &mut out).map_err(CliError::Print)?;
    }
    detached(&mut demo, &mut report, &mut out)?;
    finish(options, &report, &mut out)
}

/// The verdict; whether every line is ok.
fn finish(options: &Options, report: &Report, out: &mut dyn Write) -> Result<bool, CliError> {
    report.verdict(out).map_err(CliError::Print)?;
    if options.output == Format::Json {
        let text = serde_json::to_string_pretty(report).map_err(CliError::Json)?;
        writeln!(io::stdout(), "{text}").map_err(CliError::Print)?;
    }
    Ok(report.failed().next().is_none())
}

/// The same on several nodes.
fn play_cluster(options: &Options, nodes: u8) -> Result<bool, CliError> {
    let Settings { list, plugin_path, environment, .. } = settings(options)?;
    sandbox::enter()?;
    let mut out: Box<dyn Write> = match options.output {
        Format::Text => Box::new(io::stdout()),
        Format::Json => Box::new(io::sink()),
    };
    let (network, cni_version, chain) = (list.name.to_string(), list.version.to_string(), list.chain());
    let mut report = Report { network, cni_version, chain, ..Report::default() };
    report.opening(&mut out, usize::from(nodes), usize::from(nodes)).map_err(CliError::Print)?;
    let mut cluster = Cluster::build(&cluster::Settings { nodes, list, plugin_path, environment })?;
    cluster.attach()?;
    writeln!(out).and_then(|()| report.quote(&mut out, &cluster.picture())).map_err(CliError::Print)?;
    for (title, outcomes) in [("sent, and what came back", cluster.prove()?), ("what is left", cluster.detach()?)] {
        report.section(&mut out, title, &outcomes).map_err(CliError::Print)?;
        report.outcomes.extend(outcomes);
    }
    finish(options, &report, &mut out)
}

fn attached(demo: &mut Demo, report: &mut Report, out: &mut dyn Write) -> Result<(), CliError> {
    demo.attach()?;
    report.pods = demo.attached.iter().map(PodReport::of).collect();
    report.picture(out).map_err(CliError::Print)?;
    let mut section = |title: &str, outcomes: Vec<Outcome>| {
        report.section(out, title, &outcomes).map_err(CliError::Print)?;
        report.outcomes.extend(outcomes);
        Ok::<_, CliError>(())
    };
    section("the chain itself", demo.verbs())?;
    let (v4, v6) = demo.prove()?.into_iter().partition(|outcome| outcome.id.ends_with('4'));
    section("IPv4: sent, and what came back", v4)?;
    section("IPv6: sent, and what came back", v6)?;
    match demo.leases()? {
        Some((leases, outcome)) => {
            report.section(out, "leases", std::slice::from_ref(&outcome)).map_err(CliError::Print)?;
            report.quote(out, &leases.text).map_err(CliError::Print)?;
            report.leases = Some(leases);
            report.outcomes.push(outcome);
        }
        None => writeln!(out, "\nleases\n  not read: the chain's IPAM plugin is neither podwire-ipam nor host-local")
            .map_err(CliError::Print)?,
    }
    Ok(())
}

fn detached(demo: &mut Demo, report: &mut Report, out: &mut dyn Write) -> Result<(), CliError> {
    let (detached, again) = demo.detach()?;
    report.departures(out, &detached).map_err(CliError::Print)?;
    let gone = demo.leases()?.map(|(_, outcome)| outcome);
    let (residue, outcome) = demo.residue()?;
    let outcomes: Vec<Outcome> = [Some(again), gone, Some(outcome)].into_iter().flatten().collect();
    report.section(out, "what is left", &outcomes).map_err(CliError::Print)?;
    report.remains(out, &residue).map_err(CliError::Print)?;
    report.outcomes.extend(outcomes);
    report.residue = Some(residue);
    Ok(())
}

/// Everything that is read from the machine is read before the sandbox hides it.
fn settings(options: &Options) -> Result<Settings, CliError> {
    let list = match &options.conflist {
        Some(file) => Conflist::read(file)?,
        None => shipped::conflist()?,
    };
    let pods = match &options.pods {
        Some(folder) => manifest::read_folder(folder)?,
        None => shipped::pods()?,
    };
    let list = swap_all(list, options.swap.iter().copied().collect::<BTreeSet<_>>().into_iter().collect());
    let swapped = (!options.swap.is_empty()).then_some(&options.reference_dir);
    let plugin_path = options.plugin_dir.iter().chain(swapped).map(|path| visible(path)).collect::<Result<_, _>>()?;
    Ok(Settings { list, pods, plugin_path, environment: Environment::of_process() })
}

/// A folder by its path inside the sandbox.
fn visible(path: &Path) -> Result<PathBuf, CliError> {
    let path = fs::canonicalize(path).map_err(|source| CliError::Folder { path: path.to_owned(), source })?;
    match ["/run", "/var/lib"].into_iter().find(|covered| path.starts_with(covered)) {
        Some(covered) => Err(CliError::Covered { path, covered }),
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_examples_of_the_help_are_taken() {
        let help = Options::command().render_long_help().to_string();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        assert!(examples.lines().count() >= 5, "{examples}");
        for example in examples.lines() {
            Options::try_parse_from(example.split_whitespace()).unwrap();
        }
    }
}
