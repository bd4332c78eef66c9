//! Which host ports an operator gives, and what happens when two want one.

use std::fmt;
use std::ops::RangeInclusive;

use cni_spec::NetConf;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Flaw};
use crate::mapping::{self, Mapping};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    conflict: Option<String>,
    host_listeners: Option<String>,
    reserved_host_ports: Option<Vec<Value>>,
    host_port_range: Option<Value>,
}

/// As [`Raw`] has them.
const KEYS: [&str; 4] = ["conflict", "hostListeners", "reservedHostPorts", "hostPortRange"];

/// What an operator can choose about host ports in general.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `conflict`: what happens to a port that a dead pod holds.
    pub conflict: Conflict,
    /// `hostListeners`: what happens to a port that a process of the node listens on.
    pub host_listeners: HostListeners,
    /// `reservedHostPorts`: what no pod gets.
    pub reserved: Vec<Ports>,
    /// `hostPortRange`: what pods get; `None` for all ports.
    pub range: Option<Ports>,
}

/// What happens to a port that a dead pod holds. That of a living one is always refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    /// The newcomer gets it.
    #[default]
    TakeOver,
    /// The newcomer is refused until DEL or GC has ended the dead pod's mappings.
    Refuse,
}

/// What happens to a port that a process of the node listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostListeners {
    /// The pod gets it, and standard error says whom that covers.
    #[default]
    Warn,
    /// The pod is refused.
    Refuse,
    /// Nobody looks.
    Ignore,
}

/// Some ports, one after the other. Prints as the config has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl Policy {
    /// Checks the keys.
    ///
    /// # Errors
    /// Code 7 with key, value and what it must be.
    pub fn of(conf: &NetConf) -> Result<Self, Error> {
        let raw: Raw = conf.parse_in_any_case(&KEYS).map_err(Error::Config)?;
        let conflict = match raw.conflict.as_deref() {
            None | Some("takeover") => Conflict::TakeOver,
            Some("refuse") => Conflict::Refuse,
            Some(other) => return Err(one_of("conflict", other, r#""takeover" or "refuse""#)),
        };
        let host_listeners = match raw.host_listeners.as_deref() {
            None | Some("warn") => HostListeners::Warn,
            Some("refuse") => HostListeners::Refuse,
            Some("ignore") => HostListeners::Ignore,
            Some(other) => return Err(one_of("hostListeners", other, r#""warn", "refuse" or "ignore""#)),
        };
        let reserved = raw.reserved_host_ports.unwrap_or_default();
        let reserved = reserved.into_iter().enumerate();
        let reserved = reserved.map(|(index, value)| ports(&format!("reservedHostPorts[{index}]"), value));
        let range = raw.host_port_range.map(|value| ports("hostPortRange", value)).transpose()?;
        Ok(Self { conflict, host_listeners, reserved: reserved.collect::<Result<_, _>>()?, range })
    }

    /// Whether pods may have the port of a mapping.
    ///
    /// # Errors
    /// Code 7 with the key that does not allow it.
    pub fn check(&self, index: usize, mapping: &Mapping) -> Result<(), Error> {
        let port = mapping.host_port.get();
        let refuse = |flaw| Err(mapping::invalid(index, "hostPort", port, flaw));
        if let Some(reserved) = self.reserved.iter().find(|reserved| reserved.0.contains(&port)) {
            return refuse(Flaw::Reserved(reserved.to_string()));
        }
        match &self.range {
            Some(range) if !range.0.contains(&port) => refuse(Flaw::OutOfRange(range.to_string())),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A number, or text of one or two numbers.
fn ports(path: &str, value: Value) -> Result<Ports, Error> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let read = |text: &str| match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?).filter(|range| !range.is_empty()),
    };
    let text = match &value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let read = text.as_deref().and_then(read).map(Ports);
    read.ok_or_else(|| Error::Invalid { path: path.to_owned(), value, flaw: Flaw::Ports })
}

fn one_of(key: &str, value: &str, words: &'static str) -> Error {
    Error::Invalid { path: key.to_owned(), value: value.into(), flaw: Flaw::OneOf(words) }
}
