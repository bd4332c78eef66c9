//! `cargo xtask bench NAME`: paired comparisons with the reference plugins, in a private host. Times go here and never
//! into tests.

use crate::error::Error;

mod ipam;
mod pairs;
mod portmap;

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask bench ipam               podwire-ipam, direct and resident, against host-local
  cargo xtask bench ipam --rounds 50   the same, for steadier figures
  cargo xtask bench portmap            host ports, both backends, against both backends of portmap";

/// Which benchmark.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Leases by podwire-ipam against the reference host-local.
    Ipam(ipam::Options),
    /// Connections to host ports, and ADDs, by how many ports are mapped; against the reference portmap.
    Portmap(portmap::Options),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<(), Error> {
    match bench {
        Bench::Ipam(options) => ipam::run(options),
        Bench::Portmap(options) => portmap::run(options),
    }
}
