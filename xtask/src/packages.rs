//! Debian packages that the tests use as independent eyes and as the reference to compare with.

use crate::error::Error;
use crate::program::exists;
use crate::{apt, say};

/// A program, and the package that has it.
pub type Needed = (&'static str, &'static str);

/// What the demo needs to look at its own traces.
pub const DEMO: &[Needed] = &[("ip", "iproute2"), ("nft", "nftables")];

/// What the tests need besides.
pub const TEST: &[Needed] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("strace", "strace"),
    ("jq", "jq"),
    ("setpriv", "util-linux"),
    ("systemd-socket-activate", "systemd"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
];

/// What the demo with a real container runtime needs besides the runtime.
pub const RUNTIMES: &[Needed] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("/usr/lib/cni/loopback", "containernetworking-plugins"),
];

/// Installs what is missing if this is root, else names it in one line.
pub fn ensure(needed: &[Needed]) -> Result<(), Error> {
    let mut missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || !exists("apt-get") {
        return Err(Error::Packages(format!("sudo apt-get install {}", missing.join(" "))));
    }
    say(&format!("installing {}", missing.join(" ")));
    apt::install(&missing)
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') { std::path::Path::new(program).is_file() } else { exists(program) }
}
