//! The only crate that talks to Linux: namespaces, rtnetlink, nf_tables, iptables, sysctl.
//!
//! [`netns`] opens network namespaces and runs code in them, [`rtnl`] reads and changes links, addresses, routes and
//! neighbours, [`nft`] reads and changes nf_tables, [`iptables`] does so for iptables, [`conntrack`] lists and
//! forgets tracked flows, [`sockets`] lists listening sockets, [`sysctl`] reads and writes `/proc/sys`. Everything is
//! synchronous, typed and small; whatever is missing when it should go is
//! `Ok(false)`, not an error.
//!
//! What this crate does not do: it has no policy. Names, addresses, route protocols and the order of
//! steps are its callers' business, and so is undoing them.

mod aside;
pub mod closing;
pub mod conntrack;
pub mod error;
pub mod iptables;
mod netlink;
pub mod netns;
pub mod nft;
pub mod rtnl;
pub mod sockets;
pub mod sysctl;

pub use error::{Error, Result};
