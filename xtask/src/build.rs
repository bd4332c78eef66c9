//! Static executables, as they are installed on nodes.

use std::path::PathBuf;

use crate::error::Error;
use crate::program::{command, output, root, run};

/// What is shipped, the demo that drives it, and the plugin that writes down what runtimes send.
const EXECUTABLES: [&str; 6] = ["podwire", "podwire-ipam", "ipam", "podwire-portmap", "podwire-demo", "podwire-record"];

/// Builds them all and returns their folder.
pub fn executables() -> Result<PathBuf, Error> {
    these(&EXECUTABLES)
}

/// Builds some of them and returns their folder.
///
/// Static and at a fixed address, because a plugin lives for milliseconds and the dynamic loader's share of
/// them is large. The flags are given with an explicit target: without one they would reach procedural
/// macros, which must stay dynamic.
pub fn these(names: &[&str]) -> Result<PathBuf, Error> {
    let host = host()?;
    let flags = format!(r#"target.{host}.rustflags=["-Ctarget-feature=+crt-static","-Crelocation-model=static"]"#);
    let mut build = command("cargo");
    build.args(["build", "--release", "--locked", "--target", &host, "--config", &flags]);
    for name in names {
        build.args(["--bin", name]);
    }
    run(&mut build)?;
    Ok(root().join("target").join(host).join("release"))
}

/// The target triple of this machine.
fn host() -> Result<String, Error> {
    let version = output(command("rustc").arg("-vV"))?;
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).ok_or(Error::NoHost)
}
