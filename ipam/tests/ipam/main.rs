//! The crate from outside: the library, and the two executables.
#![cfg(test)]

mod cli;
#[path = "cli/direct.rs"]
mod cli_direct;
#[path = "cli/killed.rs"]
mod cli_killed;
#[path = "cli/tour.rs"]
mod cli_tour;
mod config;
mod copies;
mod crash_points;
mod crash_table;
mod crash_table_direct;
mod direct;
mod events;
mod invariants;
mod leases;
mod main_plugins;
mod model;
mod processes;
mod recovery;
mod strace;
mod support;
mod terms;

/// Whether each place has a resident owner.
const RESIDENT: bool = false;
