//! The executable `podwire`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_spec::dispatch::main(&podwire::Podwire)
}
