//! Keys and values of the reference plugins that would make a difference, and make none here: refused, not ignored.

use std::collections::BTreeMap;

use cni_spec::{CniError, ErrorCode, NetConf};
use serde_json::Value;

/// Keys of `bridge`, and why not.
const KEYS: [(&str, &str); 4] = [
    ("vlan", "pods are routed and share no segment"),
    ("vlanTrunk", "pods are routed and share no segment"),
    ("portIsolation", "pods of one node reach each other; a network policy may keep them apart"),
    ("disableContainerInterface", "a pod's interface is up when ADD answers"),
];

/// The IPAM plugin that asks a server on the link.
pub const DHCP: &str = "dhcp";

/// Refuses what is set.
///
/// # Errors
/// Code 2 with key and value.
pub(super) fn refuse(conf: &NetConf) -> Result<(), CniError> {
    let raw: BTreeMap<String, Value> = conf.parse()?;
    for (key, why) in KEYS {
        if let Some(value) = raw.get(key).filter(|value| is_set(value)) {
            return Err(unsupported(key, value, why));
        }
    }
    if conf.ipam_type.as_deref() == Some(DHCP) {
        let why = "the other end of a pod's link is the node, where no DHCP server can be asked";
        let details = "name an IPAM plugin that needs no link, for example \"podwire-ipam\"";
        return Err(unsupported("ipam.type", DHCP, why).with_details(details));
    }
    Ok(())
}

pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn unsupported(key: &str, value: impl serde::Serialize, why: &str) -> CniError {
    let value = serde_json::to_string(&value).unwrap_or_default();
    CniError::new(ErrorCode::UnsupportedField, format!("unsupported field: {key}={value}: {why}"))
}
