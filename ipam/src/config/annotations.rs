//! What a pod asks for by its annotations. They reach the plugin where the conflist has the capability
//! `io.kubernetes.cri.pod-annotations`: so it is the node's admin who lets pods ask.

use std::net::IpAddr;

use cni_spec::NetConf;
use serde_json::Value;

use super::problem::{InvalidKey, Problem};
use super::requested;
use crate::Error;

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";
/// Addresses, with commas between them.
const IPS: &str = "podwire/ips";
/// `true` or `false`.
const STICKY: &str = "podwire/sticky";

/// What a pod's annotations ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    pub ips: Vec<IpAddr>,
    pub sticky: Option<bool>,
}

impl Wishes {
    pub fn of(config: &NetConf) -> Result<Self, Error> {
        let Some(annotations) = config.runtime_config.get(CAPABILITY) else { return Ok(Self::default()) };
        let ips = annotation(annotations, IPS)?.unwrap_or_default();
        let ips = ips
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| requested::address(text).ok_or_else(|| invalid(IPS, text, Problem::NotAnAddress)));
        let sticky = match annotation(annotations, STICKY)? {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => return Err(invalid(STICKY, other, Problem::NotABool)),
        };
        Ok(Self { ips: ips.collect::<Result<_, _>>()?, sticky })
    }
}

fn annotation<'a>(annotations: &'a Value, name: &str) -> Result<Option<&'a str>, Error> {
    match annotations.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(name, &other.to_string(), Problem::NotText)),
    }
}

/// The value is a pod author's: as much of it as helps to find it.
fn invalid(name: &str, value: &str, problem: Problem) -> Error {
    let value = value.chars().take(100).collect();
    Error::Config(InvalidKey { path: format!("pod annotation {name}"), value: Some(value), problem })
}
