//! The crate from outside: the library, and the two executables.
#![cfg(test)]

mod config;
mod crash_points;
mod leases;
mod processes;
mod support;
