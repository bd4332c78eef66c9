//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use podwire_examples::runtime::chain;

use crate::cage::{self, Place};
use crate::error::Error;
use crate::logs;
use crate::mounts;
use crate::play::{self, Play};
use crate::programs::Programs;

const EXAMPLES: &str = "\
Examples:
  podwire-runtimes --plugin-dir /opt/cni/bin --runtime containerd
  podwire-runtimes --plugin-dir target/x86_64-unknown-linux-gnu/release --programs target/runtimes --runtime podman";

/// Has a real container runtime make the demo's pods, and proves by the demo's packets that they are reachable as they
/// should be, and not as they should not; then has it remove them, and compares.
///
/// The runtime, its pods and everything that it keeps are in network, mount and process namespaces of this program and
/// end with it, however it ends. Control groups are made below one parent and removed; those of a run that was killed are
/// removed by the next one in the same process namespace. It needs root, since runtimes do;
/// containerd, runc and podman from the machine or from --programs; iproute2, nftables, and the reference `loopback` in
/// /usr/lib/cni.
///
/// Exit status: 0 if every line is ok, 1 if one failed, 2 if it could not be played to its end.
#[derive(Debug, Parser)]
#[command(name = "podwire-runtimes", version, after_help = EXAMPLES)]
struct Options {
    /// Folder with the plugins, the `ipam` command and `podwire-demo`.
    #[arg(long, value_name = "DIR")]
    plugin_dir: PathBuf,

    /// Folder that packages with the runtimes' programs were unpacked in.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Who makes the pods.
    #[arg(long, value_name = "RUNTIME")]
    runtime: Runtime,

    /// Which process this is; it starts the others itself.
    #[arg(long, hide = true)]
    place: Vec<Place>,

    /// The parent of all control groups.
    #[arg(long, hide = true, default_value = "")]
    cgroup_parent: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// containerd over CRI, as a kubelet drives it.
    Containerd,
    /// podman with its CNI backend.
    Podman,
    /// containerd by `ctr run --cni`.
    Ctr,
}

/// Plays with this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    let command_line: Vec<OsString> = std::env::args_os().collect();
    let ended = match options.place.last() {
        None => myself(&command_line).and_then(|command_line| cage::leave(&command_line)),
        Some(Place::Outside) => myself(&command_line).and_then(|command_line| cage::outside(&command_line)),
        Some(Place::Init) => myself(&command_line).and_then(|command_line| cage::init(&command_line)),
        Some(Place::Node) => play(&options).map(|passed| if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    };
    ended.unwrap_or_else(|error| {
        // Nobody is left to tell if standard error is closed too.
        let _ = writeln!(io::stderr(), "podwire-runtimes: {}", chain(&error).trim_end());
        ExitCode::from(2)
    })
}

/// This command line, by a path that can be started.
fn myself(command_line: &[OsString]) -> Result<Vec<OsString>, Error> {
    let program = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    Ok([program.into_os_string()].into_iter().chain(command_line.iter().skip(1).cloned()).collect())
}

/// Whether every line is ok. Until the node is entered, this process has one thread.
fn play(options: &Options) -> Result<bool, Error> {
    let plugin_dir = mounts::visible(&options.plugin_dir)?;
    let programs = options.programs.as_deref().map(mounts::visible).transpose()?;
    mounts::enter(&plugin_dir)?;
    let mut out = io::stdout();
    let mut play = Play::set_up(&plugin_dir, Programs::new(programs), options.cgroup_parent.clone(), &mut out)?;
    let played = match options.runtime {
        Runtime::Containerd => play::kubelet(&mut play),
        Runtime::Podman => play::podman(&mut play),
        Runtime::Ctr => play::ctr(&mut play),
    };
    let passed = played.and_then(|()| play.verdict());
    if !matches!(passed, Ok(true)) {
        logs::show(&mut out).map_err(Error::Print)?;
    }
    passed
}
