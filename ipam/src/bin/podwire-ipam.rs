//! The CNI IPAM plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_spec::dispatch::main(&ipam::PodwireIpam)
}
