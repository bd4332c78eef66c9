//! What a pod's annotations say. They reach the plugin where the conflist has the capability
//! `io.kubernetes.cri.pod-annotations`: so it is the node's administrator who lets pods wish.

use cni_spec::{CniError, RuntimeConfig};
use serde_json::Value;

use super::invalid;

/// By which containerd and CRI-O pass them.
pub(super) const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// One of them, if it says anything, and the place it stands in.
pub(super) fn get<'a>(runtime: &'a RuntimeConfig, name: &str) -> Result<Option<(String, &'a str)>, CniError> {
    let place = || format!("runtimeConfig[{CAPABILITY:?}][{name:?}]");
    let annotations = match runtime.get(CAPABILITY) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(annotations)) => annotations,
        Some(other) => return Err(invalid(format!("runtimeConfig[{CAPABILITY:?}]"), other, "is not an object")),
    };
    match annotations.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then(|| (place(), text.as_str()))),
        Some(other) => Err(invalid(place(), other, "is not a string")),
    }
}
