//! The library's and the command's suites again, with a resident owner at every ledger; and what concerns the owner alone.
#![cfg(test)]

// Not here: what only an opener of the database meets - `crash_points`, `crash_table_direct`, `copies`, `recovery`,
// `direct`: an owner opens it as everybody does, once - and `processes`, which the stress tests do with an owner, too.

#[path = "../ipam/cli/mod.rs"]
mod cli;
#[path = "../ipam/crash_table.rs"]
mod crash_table;
mod door;
mod elsewhere;
#[path = "../ipam/events.rs"]
mod events;
mod killed;
#[path = "../ipam/leases.rs"]
mod leases;
#[path = "../ipam/model.rs"]
mod model;
mod owner;
#[path = "../ipam/strace.rs"]
mod strace;
#[path = "../ipam/support.rs"]
mod support;
#[path = "../ipam/terms.rs"]
mod terms;
mod units;

/// Whether each place has a resident owner.
const RESIDENT: bool = true;
