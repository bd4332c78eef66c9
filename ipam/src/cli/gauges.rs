//! What the metrics of a ledger are told from.

use std::fs;
use std::path::Path;

use super::networks::Configured;
use super::pools::{Usage, usages};
use super::view::View;
use crate::Ledger;
use crate::operation::Contents;

/// What is told of a ledger.
#[derive(Debug)]
pub(crate) struct Gauges {
    pub(super) pools: Vec<Usage>,
    pub(super) leases: usize,
    pub(super) tombstones: usize,
    pub(super) reservations: usize,
    pub(super) pending_releases: usize,
    pub(super) quarantined: usize,
    pub(super) generation: u64,
    pub(super) database_bytes: u64,
    /// How long it took to read the ledger, in seconds.
    pub(super) read_seconds: f64,
}

impl Gauges {
    /// Of contents that were read from the ledger; the pools are those that its ADDs have named, and the configs in a
    /// folder.
    pub(crate) fn of(ledger: &Ledger, conf_dir: &Path, contents: Contents, read_seconds: f64) -> Self {
        Self::seen(ledger, &View::new(ledger, Some(contents)), &Configured::ours(conf_dir), read_seconds)
    }

    pub(super) fn seen(ledger: &Ledger, view: &View, configured: &Configured, read_seconds: f64) -> Self {
        let contents = view.contents.as_ref();
        Self {
            pools: usages(view, configured),
            leases: view.leases().len(),
            tombstones: contents.map_or(0, |contents| contents.tombstones.len()),
            reservations: view.reservations().len(),
            pending_releases: ledger.pending().len(),
            quarantined: ledger.quarantined().map_or(0, |all| all.len()),
            generation: contents.map_or(0, |contents| contents.generation),
            database_bytes: size(&ledger.dir().join("ledger")),
            read_seconds,
        }
    }
}

/// A file, or everything below a folder, in bytes.
pub(super) fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}
