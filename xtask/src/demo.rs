//! `cargo xtask demo`.

use std::path::Path;

use crate::error::Error;
use crate::program::{self, command};
use crate::{build, packages, runtimes};

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask demo                     attach, prove, tear down
  cargo xtask demo --keep              leave it standing and tell how to look around
  cargo xtask demo --swap portmap      with the reference portmap in place of podwire-portmap
  cargo xtask demo --nodes 3           on three nodes with a pod each, and routes between them
  cargo xtask demo --runtime containerd  with a real container runtime, as root; or podman, ctr
  cargo xtask demo --help-demo         all options of the demo";

/// Builds the executables and runs the demo with them.
pub fn run(options: &[String]) -> Result<(), Error> {
    let with_runtime = options.iter().any(|option| option.starts_with("--runtime"));
    if with_runtime {
        runtimes::ensure_allowed()?;
    }
    packages::ensure(packages::DEMO)?;
    let folder = build::executables()?;
    let options: Vec<&str> =
        options.iter().map(|option| if option == "--help-demo" { "--help" } else { option.as_str() }).collect();
    if with_runtime {
        return runtimes::run(&folder, &options);
    }
    run_with(&folder, &options)
}

/// Runs the demo with executables that are built already.
pub fn run_with(folder: &Path, options: &[&str]) -> Result<(), Error> {
    let mut demo = command(folder.join("podwire-demo"));
    demo.stdin(std::process::Stdio::inherit()).arg("--plugin-dir").arg(folder).args(options);
    program::run(&mut demo)
}
