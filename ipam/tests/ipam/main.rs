//! The crate from outside: the library, and the two executables.
#![cfg(test)]

mod cli;
mod config;
mod copies;
mod crash_points;
mod events;
mod invariants;
mod leases;
mod processes;
mod recovery;
mod support;
