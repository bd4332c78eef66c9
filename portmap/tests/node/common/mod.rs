//! A node with a LAN and pods, made of real namespaces, and the plugin run as a runtime runs it.

#[macro_use]
pub mod backend;
pub mod firewalls;
pub mod net;
pub mod plugin;
