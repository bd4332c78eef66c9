//! Completion with what is there: addresses, pods, containers, networks.
//!
//! The shell asks at every press of the key, so the ledger is neither locked nor opened: its plain copies are read.

use std::collections::BTreeSet;
use std::path::Path;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::{Ledger, Record};

pub(super) fn networks() -> ArgValueCandidates {
    of(|record| vec![record.attachment.network.to_string()])
}

pub(super) fn namespaces() -> ArgValueCandidates {
    of(|record| record.pod.namespace.iter().cloned().collect())
}

pub(super) fn pods() -> ArgValueCandidates {
    of(|record| vec![record.pod.to_string()])
}

pub(super) fn containers() -> ArgValueCandidates {
    of(|record| vec![record.attachment.container_id.to_string()])
}

pub(super) fn addresses() -> ArgValueCandidates {
    of(|record| record.ips().map(|ip| ip.to_string()).collect())
}

/// Addresses and pods.
pub(super) fn leases() -> ArgValueCandidates {
    of(|record| record.ips().map(|ip| ip.to_string()).chain([record.pod.to_string()]).collect())
}

pub(super) fn reservations() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let all = crate::reservations::read(Path::new(Ledger::DEFAULT_STATE_DIR), jiff::Timestamp::now());
        let name = |one: crate::reservations::Reservation| {
            CompletionCandidate::new(one.cidr.to_string()).help(Some(one.reason.into()))
        };
        all.unwrap_or_default().into_iter().map(name).collect()
    })
}

/// The engine does not tell which ledger the line names, so these are those of the usual one.
fn of(values: fn(&Record) -> Vec<String>) -> ArgValueCandidates {
    ArgValueCandidates::new(move || candidates(Path::new(Ledger::DEFAULT_DIR), values))
}

fn candidates(dir: &Path, values: fn(&Record) -> Vec<String>) -> Vec<CompletionCandidate> {
    let leases = Ledger::at(dir).leases_in_copies().unwrap_or_default();
    let values: BTreeSet<String> = leases.iter().flat_map(values).filter(|value| !value.is_empty()).collect();
    values.into_iter().map(CompletionCandidate::new).collect()
}
