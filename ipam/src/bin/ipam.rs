//! The command that looks into the ledger, and repairs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipam::cli::main()
}
