//! The executable `podwire`: a CNI plugin to runtimes, a command to people.

use std::process::ExitCode;

use cni_spec::Environment;
use nix::sys::signal::{SigSet, Signal};

/// What only a runtime sets.
const OF_A_RUNTIME: [&str; 4] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let is_request = OF_A_RUNTIME.iter().any(|name| environment.get(name).is_some());
    if !is_request && std::env::args_os().len() > 1 {
        return podwire::cli::main();
    }
    finish_what_is_begun();
    cni_spec::dispatch::main(&podwire::Podwire)
}

/// A call takes milliseconds and ends by itself: a signal that comes meanwhile, when a service is stopped for example, must
/// not leave half of it. Programs that are run inherit this, so they do not stop in the middle either. SIGKILL does what it
/// always does.
fn finish_what_is_begun() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Without it, DEL and GC find what is left, as after a kill.
    let _ = signals.thread_block();
}
