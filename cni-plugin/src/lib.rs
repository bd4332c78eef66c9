//! CNI main plugin: one routed veth pair per pod.
//!
//! An ADD reads as `config` -> `pod` (open both ends) -> `addresses` (lease) beside the first half of
//! `plan` -> the second half -> `apply` -> result; `undo` takes everything back if a part fails. DEL and GC
//! find what there is by the names and marks of `names` alone. CHECK asks for every step of the plan
//! whether it is still in force. `cli` is the command `podwire` of people; `inspect` is what it shows,
//! and `reconcile` puts back rules that somebody flushed.
//!
//! What this crate does not do: it keeps no state of its own - where iptables is used, a lock file, and for a timer what was
//! said - and decides nothing about addresses. Verbs read no file but below /proc/sys and what the IPAM library reads; the
//! command reads the ledger, logs, network configs and what libcni keeps too. The only programs that it runs are other IPAM
//! plugins and iptables.

mod add;
mod addresses;
mod apply;
mod backend;
mod check;
pub mod cli;
mod config;
mod del;
mod diff;
mod error;
mod firewall;
mod gc;
pub mod guard;
mod in_use;
mod inspect;
mod iptables;
mod leftovers;
pub mod masquerade;
mod names;
mod observe;
mod plan;
mod plugin;
mod pod;
mod pod_rules;
mod reconcile;
mod routes;
mod ruleset;
mod status;
mod step;
mod sysctl;
mod undo;

pub use check::Difference;
pub use config::{Config, Guard, Masquerade};
pub use error::Error;
pub use names::Names;
pub use plan::Wiring;
pub use plugin::Podwire;
pub use routes::OtherDefault;
pub use step::Step;
