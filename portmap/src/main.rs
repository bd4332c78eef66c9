//! The executable `podwire-portmap`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_spec::dispatch::main(&portmap::Portmap)
}
