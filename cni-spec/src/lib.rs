//! The CNI wire protocol, spec versions 0.1.0 to 1.1.0, and nothing of ours.
//!
//! A plugin implements [`Plugin`] and calls [`dispatch::run`] from `main`. The dispatcher reads the
//! environment and standard input, answers VERSION and everything malformed by itself, hands the
//! plugin a typed request, and prints exactly one JSON document.
//!
//! What this crate does not do: it knows no interface, no address pool, no firewall and no kernel.
//!
//! Source: <https://www.cni.dev/docs/spec/> (versions 0.1.0 to 1.1.0) and the conventions beside it.

pub mod args;
mod attachments;
pub mod config;
mod config_args;
pub mod convert;
pub mod delegate;
pub mod dispatch;
pub mod environment;
pub mod error;
pub mod id;
mod json;
pub mod log;
pub mod plugin;
pub mod result;
pub mod runtime_config;
pub mod version;

pub use args::{CniArgs, PodIdentity};
pub use config::NetConf;
pub use convert::ResultError;
pub use delegate::{Delegate, DelegateError};
pub use environment::{CniPath, Environment};
pub use error::{CniError, ErrorCode};
pub use id::{Attachment, ContainerId, IfName, NetworkName, ValidAttachment};
pub use json::Malformed;
pub use plugin::{AddRequest, CheckRequest, DelRequest, GcRequest, Plugin, StatusRequest, ValidAttachments};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use runtime_config::{PortMapping, RuntimeConfig};
pub use version::SpecVersion;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
