//! Runs any CNI plugin against the CNI spec, in namespaces of its own.
//!
//! The story in order: [`cli`] reads what is asked; [`target`] says which plugin is judged and what is known of it;
//! [`cases`] are the questions, each with the sentence of the spec that it holds to; [`runner`] asks each of them in a
//! process of its own, which enters a private host ([`inside`]); [`host`] plays the runtime there and looks at what the
//! plugin did; [`report`] tells; [`mod@bench`] compares the speed of two targets.
//!
//! What this crate does not do: it shares no code with any plugin, so that a mistake there cannot hide here. It looks with
//! the system's own tools (`ip -j`, `nft -j`, `iptables-save`, `conntrack`) and with packets, and asserts on raw JSON.

pub mod bench;
pub mod cases;
pub mod cli;
pub mod error;
pub mod host;
pub mod inside;
pub mod report;
pub mod runner;
mod spy;
pub mod target;
pub mod verdict;

pub use cli::main;
