//! The executable `podwire`: a CNI plugin to runtimes, a command to people.

use std::process::ExitCode;

use cni_spec::Environment;

/// What only a runtime sets.
const OF_A_RUNTIME: [&str; 4] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let is_request = OF_A_RUNTIME.iter().any(|name| environment.get(name).is_some());
    if !is_request && std::env::args_os().len() > 1 {
        return podwire::cli::main();
    }
    cni_spec::dispatch::main(&podwire::Podwire)
}
