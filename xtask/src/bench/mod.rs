//! `cargo xtask bench NAME`: paired comparisons with the reference plugins, in a private host. Times go here and never
//! into tests.

use std::path::Path;

use crate::error::Error;
use crate::program::{command, line, output};

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
    #[command(after_help = ipam::EXAMPLES)]
    Ipam(ipam::Options),
    /// Connections to host ports, and ADDs and DELs, by how many ports are mapped; against the reference portmap.
    #[command(after_help = portmap::EXAMPLES)]
    Portmap(portmap::Options),
}

/// Runs one.
pub fn run(bench: &Bench) -> Result<(), Error> {
    match bench {
        Bench::Ipam(options) => ipam::run(options),
        Bench::Portmap(options) => portmap::run(options),
    }
}

/// The least that each benchmark can do, and words of what it prints.
const TRIALS: [(&str, &[&str]); 2] = [
    (
        "bench ipam --rounds 1 --leases 0,2 --burst 2",
        &["podwire-ipam, direct", "podwire-ipam, resident", "ADD, at 2 leases", "2 ADD at once", "STATUS, resident"],
    ),
    (
        "bench portmap --rounds 1 --connections 10 --adds 1 --ports 1,2",
        &[
            "podwire-portmap, nftables 2",
            "podwire-portmap, iptables 2",
            "portmap, iptables 1",
            "ADD, ms",
            "from 1 to 2",
        ],
    ),
];

/// The program of this process (proc(5)), also where its file is another by now: building the tests builds xtask anew.
const OWN: &str = "/proc/self/exe";

/// Runs every benchmark once, as small as it can be, with executables that are built already: one that is broken is noticed
/// before somebody needs it. Nothing is judged by what it measures.
pub fn try_all(folder: &Path) -> Result<(), Error> {
    for (arguments, words) in TRIALS {
        // Each leaves the machine's namespaces, as only a process of its own can.
        let mut bench = command(OWN);
        bench.args(arguments.split(' ')).arg("--plugin-dir").arg(folder);
        let printed = output(&mut bench)?;
        if let Some(missing) = words.iter().find(|word| !squeezed(&printed).contains(&squeezed(word))) {
            return Err(Error::Bench { command: line(&bench), missing: (*missing).to_owned(), printed });
        }
    }
    Ok(())
}

/// With one space between words, whatever the width of columns.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
