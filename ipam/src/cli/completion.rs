//! `ipam completion`, and `ipam man` for those who build packages.

use std::path::PathBuf;

use clap::{Command, ValueEnum};
use clap_complete::env::Shells;

use super::exit::{Exit, Stop};
use super::terminal::Terminal;

pub(super) const EXAMPLES: &str = "\
Examples:
  source <(ipam completion bash)
  ipam completion bash > /etc/bash_completion.d/ipam
  ipam completion zsh > ~/.zfunc/_ipam
  ipam completion fish > ~/.config/fish/completions/ipam.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  ipam man /usr/local/share/man/man1";

/// Prints what makes a shell complete the command, with the addresses, pods and networks that there are.
#[derive(Debug, clap::Args)]
pub(super) struct Completion {
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Writes the manual pages.
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder to write them into, which must be there.
    folder: PathBuf,
}

impl Completion {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let shell = match self.shell {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        };
        let shells = Shells::builtins();
        let Some(completer) = shells.completer(shell) else {
            return Err(Stop::new(Exit::Failed, format!("there is no completion for {shell}")));
        };
        let mut script = Vec::new();
        completer.write_registration("COMPLETE", "ipam", "ipam", "ipam", &mut script).map_err(Stop::from_printing)?;
        terminal.out.write_all(&script).map_err(Stop::from_printing)?;
        Ok(Exit::Done)
    }
}

impl Man {
    /// One page for the command and one for each of its commands: ipam(1), ipam-list(1)...
    pub fn run(&self, command: Command) -> Result<Exit, Stop> {
        clap_mangen::generate_to(command, &self.folder).map_err(Stop::file("write into", &self.folder))?;
        Ok(Exit::Done)
    }
}
