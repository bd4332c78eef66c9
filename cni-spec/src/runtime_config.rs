//! `runtimeConfig`: the capabilities a runtime fills in (CONVENTIONS.md, "Dynamic Plugin specific fields").

use serde_json::Value;

/// The object as it came. Keys are matched without regard to case: some runtimes send `HostPort` for
/// `hostPort`, because the reference plugins' decoder never minded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig(pub Value);

/// One entry of `portMappings`, as sent: nothing is checked here but the JSON types, so that a plugin can
/// name key and value of what it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortMapping {
    /// `hostPort`.
    pub host_port: i64,
    /// `containerPort`.
    pub container_port: i64,
    /// `protocol`; empty if missing.
    pub protocol: String,
    /// `hostIP`; empty if missing.
    pub host_ip: String,
}
