//! The library's and the command's suites again, with a resident owner at every ledger; and what concerns the owner alone.
#![cfg(test)]

#[path = "../ipam/cli/mod.rs"]
mod cli;
mod door;
#[path = "../ipam/events.rs"]
mod events;
mod killed;
#[path = "../ipam/leases.rs"]
mod leases;
mod owner;
#[path = "../ipam/support.rs"]
mod support;
#[path = "../ipam/terms.rs"]
mod terms;
mod units;

/// Whether each place has a resident owner.
const RESIDENT: bool = true;
