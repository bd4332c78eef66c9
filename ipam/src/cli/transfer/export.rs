//! `ipam export`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::super::exit::{Exit, Stop};
use super::super::format::counted;
use super::super::terminal::Terminal;
use super::super::view::View;
use super::document::Document;
use crate::{Ledger, clock};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  ipam export > ledger.jsonl
  ipam export --file /var/backups/ipam.jsonl
  ipam export | jq -r 'select(.kind == \"Lease\") | .lease.addresses[].address'";

/// Prints leases and reservations.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// Writes into this file instead of to standard output; only its owner can read it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Export {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let view = View::of(ledger, "ipam export")?;
        let (leases, reservations) = (view.leases().to_vec(), view.reservations().to_vec());
        let (now, generation) = (view.now, view.contents.as_ref().map_or(0, |contents| contents.generation));
        if let Some(error) = view.into_reservations_error() {
            return Err(error.into());
        }
        let (count, reserved) = (leases.len(), reservations.len());
        let text = Document { leases, reservations }.print(now, &clock::boot_id()?, generation);
        let Some(path) = &self.file else {
            terminal.print(&text)?;
            return Ok(Exit::Done);
        };
        // Written aside and renamed: an older export is there until this one is whole.
        let unfinished = path.with_extension("unfinished");
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&unfinished, path)
        };
        write().map_err(Stop::file("write", path))?;
        let (leases, reserved) = (counted(count, "lease"), counted(reserved, "reservation"));
        terminal.note(&format!("exported {leases} and {reserved} to {}", path.display()))?;
        Ok(Exit::Done)
    }
}
