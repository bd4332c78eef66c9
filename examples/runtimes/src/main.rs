//! `podwire-runtimes`: real container runtimes drive the plugins, and packets prove what came of it. See
//! `podwire-runtimes --help`.

mod cage;
mod calls;
mod cgroup;
mod cli;
mod containerd;
mod cri;
mod error;
mod image;
mod logs;
mod mounts;
mod node;
mod play;
mod podman;
mod programs;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
