//! The developer's commands: `cargo xtask build`, `demo`, `bench`, `test`.
//!
//! Nothing here but container runtimes needs root, and nothing here changes the machine's own network: whatever touches
//! interfaces, routes or rules enters namespaces of its own first.

mod apt;
mod bench;
mod build;
mod conformance;
mod demo;
mod dist;
mod error;
mod firewalls;
mod machine;
mod packages;
mod program;
mod runtimes;
mod test;
mod unpacked;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

const EXAMPLES: &str = "Examples:
  cargo xtask test                     everything that must hold
  cargo xtask demo                     see it work
  cargo xtask dist                     what is installed on a node, in one archive";

const BUILD_EXAMPLES: &str = "Examples:
  cargo xtask build                    prints the folder that they are in";

/// The developer's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the plugins as static executables and say where they are.
    #[command(after_help = BUILD_EXAMPLES)]
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
    #[command(after_help = conformance::OURS_EXAMPLES)]
    Conformance,
    /// Put the conformance suite to our plugins and the reference ones, and write docs/standing.html.
    #[command(after_help = conformance::STANDING_EXAMPLES)]
    Standing,
    /// Run everything: formatting, lints, dependency policy, unit and namespace tests, conformance, the demo in all shapes, container runtimes, the archive, both benchmarks.
    #[command(after_help = test::EXAMPLES)]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Every command below this one, itself included, whose help has no examples.
    fn without_examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let own = (!help.contains("Examples:\n  cargo xtask")).then(|| command.get_name().to_owned());
        own.into_iter().chain(command.get_subcommands().flat_map(without_examples)).collect()
    }

    #[test]
    fn every_help_has_examples() {
        assert_eq!(without_examples(&Cli::command()), [""; 0]);
    }
}
