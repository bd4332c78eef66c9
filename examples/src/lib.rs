//! A demo runtime that attaches real pods, and conflists to start from.

pub mod conflist;
pub mod container;
pub mod exchange;
pub mod manifest;
pub mod runtime;
pub mod server;
pub mod stage;
