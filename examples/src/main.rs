//! `podwire-demo`; see `podwire-demo --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    podwire_examples::cli::main()
}
