//! `ipam serve`.

use std::path::Path;

use listenfd::ListenFd;

use super::exit::{Exit, Stop};
use super::place::Making;
use super::terminal::Terminal;
use crate::Ledger;
use crate::owner::{self, Place};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam serve
  systemctl enable --now podwire-ipam.socket
  curl --unix-socket /run/podwire/ipam/ipam.sock http://ipam/metrics";

/// Holds the ledger open and answers plugins and this command, until SIGTERM.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub making: Making,
}

impl Serve {
    #[expect(clippy::unused_self, reason = "like the other commands")]
    pub fn run(&self, ledger: &Ledger, conf_dir: &Path, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let inherited = ListenFd::from_env().take_unix_listener(0);
        let inherited = inherited.map_err(|error| {
            Stop::new(Exit::Failed, format!("LISTEN_FDS names no Unix socket that listens: {error}"))
        })?;
        let place = inherited.map_or(Place::Own, Place::Inherited);
        let tell = |socket: &Path| {
            // Nobody may be there to read it.
            let _ = writeln!(terminal.err, "serving the ledger in {} at {}", ledger.dir().display(), socket.display());
        };
        owner::serve(ledger, conf_dir, place, tell)?;
        Ok(Exit::Done)
    }
}
