//! What a pod asks for by its annotations. They reach the plugin where the conflist has the capability
//! `io.kubernetes.cri.pod-annotations`: so it is the node's admin who lets pods ask.

use std::net::IpAddr;

use cni_spec::NetConf;
use serde_json::{Map, Value};

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
        let annotations = match config.runtime_config.get(CAPABILITY) {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(annotations)) => annotations,
            Some(other) => {
                let path = format!("runtimeConfig[{CAPABILITY:?}]");
                return Err(invalid(path, &other.to_string(), Problem::NotAnObject));
            }
        };
        let ips = annotation(annotations, IPS)?.unwrap_or_default();
        let ips = ips
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| requested::address(text).ok_or_else(|| invalid(path_of(IPS), text, Problem::NotAnAddress)));
        let sticky = match annotation(annotations, STICKY)? {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => return Err(invalid(path_of(STICKY), other, Problem::NotABool)),
        };
        Ok(Self { ips: ips.collect::<Result<_, _>>()?, sticky })
    }
}

fn annotation<'a>(annotations: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Error> {
    match annotations.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(path_of(name), &other.to_string(), Problem::NotText)),
    }
}

fn path_of(name: &str) -> String {
    format!("pod annotation {name}")
}

/// The value is a pod author's: as much of it as helps to find it.
fn invalid(path: String, value: &str, problem: Problem) -> Error {
    let value = value.chars().take(100).collect();
    Error::Config(InvalidKey { path, value: Some(value), problem })
}
