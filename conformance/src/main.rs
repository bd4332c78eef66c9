//! The executable `cni-conformance`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_conformance::main()
}
