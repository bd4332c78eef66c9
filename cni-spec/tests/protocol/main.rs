//! The protocol as a runtime sees it: one request in memory, and what comes back.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers fail the test they are called from")]

mod config;
mod delegate;
mod fixtures;
mod gc;
mod log;
mod parameters;
mod results;
mod round_trip;
mod streams;
mod support;
mod version;
