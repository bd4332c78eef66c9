//! The developer's commands: `cargo xtask build`, `demo`, `bench`, `test`.
//!
//! Nothing here needs root, and nothing here changes the machine's own network: whatever touches
//! interfaces, routes or rules enters namespaces of its own first.

mod bench;
mod build;
mod conformance;
mod demo;
mod dist;
mod error;
mod machine;
mod packages;
mod program;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// The developer's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the plugins as static executables and say where they are.
    Build,
    /// Attach real pods in a private host and prove by packets that they work.
    #[command(after_help = demo::EXAMPLES)]
    Demo {
        /// Options of the demo itself; `cargo xtask demo --help-demo` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Compare the speed of our plugins with that of the reference plugins.
    #[command(subcommand, after_help = bench::EXAMPLES)]
    Bench(bench::Bench),
    /// Pack what is installed on a node: static executables, manual pages, completions, conflists, unit files, checksums.
    #[command(after_help = dist::EXAMPLES)]
    Dist,
    /// Put the conformance suite to our plugins, none of which may have a known deviation.
    Conformance,
    /// Put the conformance suite to our plugins and the reference ones, and write docs/standing.html.
    Standing,
    /// Run everything: formatting, lints, dependency policy, unit and namespace tests, conformance, the demo in all shapes.
    Test(test::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build => build::executables().map(|folder| say(&folder.display().to_string())),
        Command::Demo { options } => demo::run(&options),
        Command::Bench(bench) => bench::run(&bench),
        Command::Dist => dist::run().map(|archive| say(&archive.display().to_string())),
        Command::Conformance => build::executables().and_then(|folder| conformance::ours(&folder)),
        Command::Standing => conformance::standing(),
        Command::Test(options) => test::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// A line for the developer.
#[expect(clippy::print_stdout, reason = "a developer's command talks to its developer")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a developer's command talks to its developer")]
fn complain(error: &Error) {
    eprintln!("error: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        eprintln!("  because {next}");
        cause = next.source();
    }
}
