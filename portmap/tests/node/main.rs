//! The plugin's executable on a node of real namespaces, with real packets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

#[macro_use]
mod common;

mod adopt;
mod bad_firewall;
mod bad_input;
mod bridge;
mod chain;
mod check;
mod children;
mod coexist;
mod costs;
mod firewalls;
mod flows;
mod golden;
mod handover;
mod inspect;
mod isolation;
mod keys;
mod killed;
mod lifecycle;
mod owners;
mod packets;
mod patience;
mod pieces;
mod races;
mod reconcile;
mod residue;
mod sctp;
mod strangers;
mod units;
mod unrecorded;
mod upgrade;
