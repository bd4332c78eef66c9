//! Chained CNI plugin: host ports by nftables maps, over netlink, or by rules of iptables.
//!
//! A request goes through these modules in this order:
//!
//! - [`settings`] (with [`conditions`]), [`mapping`] and [`pod`] check what the runtime sent; together they are a [`config::Config`].
//! - [`ruleset`] says what the firewall must hold for it, as values that print as nft(8) text; [`ruleset::iptables`] says the same
//!   as the text of iptables-restore(8).
//! - [`claim`] compares that with what is there, for ADD, and [`difference`] for CHECK. So far nothing did any I/O.
//! - [`view`] reads once what CHECK and `reconcile` compare with.
//! - [`backend`] chooses and explains; [`firewall`] looks at nf_tables or iptables and changes them; [`localhost`] does
//!   that for one sysctl.
//! - [`add`], [`remove`] and [`check`] are what the verbs do, and [`Portmap`] answers them all.
//!
//! Everything of an attachment carries its [`owner`]'s mark, so DEL and GC need no file and no previous result. Each
//! ADD keeps its request as a [`record`], by which [`liveness`] tells a dead holder and [`reconcile`] fills a flushed
//! firewall. [`flows`] ends what is tracked and would go astray, [`cli`] is what people run: [`node`], [`trace`] and
//! [`adopt`], which takes over from the reference portmap.
//!
//! What this crate does not do: it gives no pod an address or an interface, opens no port in anybody's filter rules,
//! and takes no file's word for who holds what: records tell only whether a holder lives, and what a flushed firewall had.

pub mod add;
pub mod adopt;
pub mod backend;
pub mod check;
pub mod claim;
pub mod cli;
pub mod conditions;
pub mod config;
pub mod difference;
pub mod error;
pub mod firewall;
pub mod flows;
pub mod forward;
pub mod listeners;
pub mod liveness;
pub mod localhost;
pub mod mapping;
pub mod node;
pub mod owner;
mod plugin;
pub mod pod;
pub mod policy;
pub mod probe;
pub mod reconcile;
pub mod record;
pub mod remove;
pub mod ruleset;
pub mod settings;
pub mod trace;
pub mod view;

pub use error::Error;
pub use plugin::Portmap;
