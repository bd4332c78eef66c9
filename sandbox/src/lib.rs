//! Private user, network and mount namespaces for tests, demos and benchmarks.
//!
//! A test that touches interfaces, routes, rules, `/run` or `/var/lib` wraps its body in
//! [`private_host`]: the body then runs in a child process with a network, mounts and (for an ordinary
//! user) a user namespace of its own, so it needs no root and leaves no trace on the machine. A
//! single-threaded program does the same to itself with [`enter`]. A [`Machine`] is one more host beside it.
//!
//! Inside: only `lo`, which is up; empty tmpfs on `/run` and `/var/lib`; `/run/netns` made, so that
//! `ip netns add` works; no mount spreads to the outside; uid 0.
//!
//! What this crate does not do: it limits neither processes nor resources and is no security boundary.
//! `/tmp` and the rest of the file system are the machine's.

mod bounded;
mod command;
mod error;
mod isolate;
mod loopback;
mod machine;
mod private_host;
mod processor;

pub use command::command;
pub use error::{SandboxError, Step};
pub use isolate::enter;
pub use loopback::set_up as set_loopback_up;
pub use machine::Machine;
pub use private_host::private_host;
pub use processor::on_one_processor;
