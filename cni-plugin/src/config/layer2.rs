//! A config without `ipam.type`: the attachment is a link and nothing more. What is about addresses cannot be had then, and
//! is refused: somebody who says it has forgotten to say who gives them.

use cni_spec::{CniError, ErrorCode, NetConf, SpecVersion};
use serde_json::Value;

use super::invalid;
use super::unsupported::is_set;

/// Keys that are about addresses, by their JSON pointers (RFC 6901). What annotations and `CNI_ARGS` wish for is not among
/// them: a pod's other networks are told the same.
const KEYS: [(&str, &str); 3] =
    [("ipMasq", "/ipMasq"), ("snatSource", "/snatSource"), ("args.cni.ips", "/args/cni/ips")];

/// What a runtime tells this network alone, if its config has the capability.
const CAPABILITIES: [&str; 2] = ["ips", "ipRanges"];

/// Refuses what is set.
///
/// # Errors
/// Code 7 with key and value; code 1 for a version whose results cannot do without an address.
pub(super) fn refuse(conf: &NetConf) -> Result<(), CniError> {
    misplaced(conf)?;
    let asked = KEYS.iter().filter_map(|(key, pointer)| Some(((*key).to_owned(), conf.json.pointer(pointer)?)));
    let told =
        CAPABILITIES.iter().filter_map(|key| Some((format!("runtimeConfig.{key}"), conf.runtime_config.get(key)?)));
    // Every network has a gateway by default, and this one has none: only another one is a wish.
    let gateway = conf.json.get("gateway").filter(|value| value.as_str() != Some("link-local"));
    let gateway = gateway.map(|value| ("gateway".to_owned(), value));
    if let Some((key, value)) = asked.chain(told).chain(gateway).find(|(_, value)| is_set(value)) {
        let why = "needs an address, and without \"ipam\" the pod gets none";
        return Err(of_json(&key, value, why).with_details(format!("name an IPAM plugin, or leave {key} out")));
    }
    match conf.prev_result.as_ref().is_some_and(|earlier| !earlier.ips.is_empty()) {
        false if conf.cni_version < SpecVersion::V0_3_0 => Err(without_addresses(conf.cni_version)),
        _ => Ok(()),
    }
}

/// An `ipam` that says everything but its type, or is written in another way: plugins in Go take keys in any case.
fn misplaced(conf: &NetConf) -> Result<(), CniError> {
    let root = conf.json.as_object().into_iter().flatten();
    let mut spelled = root.filter(|(key, value)| key.eq_ignore_ascii_case("ipam") && *key != "ipam" && is_set(value));
    if let Some((key, value)) = spelled.next() {
        return Err(of_json(key, value, "is to be written \"ipam\""));
    }
    let mut ipam = conf.json.get("ipam").and_then(Value::as_object).into_iter().flatten();
    match ipam.find(|(key, value)| *key != "type" && is_set(value)) {
        None => Ok(()),
        Some((key, value)) => {
            let details =
                "name the IPAM plugin, for example \"podwire-ipam\"; for a link without addresses leave \"ipam\" out";
            Err(of_json(&format!("ipam.{key}"), value, "means nothing while ipam.type is missing")
                .with_details(details))
        }
    }
}

/// Those results are made of addresses, and libcni's reader of them refuses one without (`types/020`, `types/040`).
fn without_addresses(version: SpecVersion) -> CniError {
    let msg = format!(
        "cniVersion={:?} has no results without an address: without \"ipam\" say 0.3.0 or newer",
        version.as_str()
    );
    CniError::new(ErrorCode::IncompatibleVersion, msg)
}

fn of_json(key: &str, value: &Value, why: &str) -> CniError {
    invalid(key, format_args!("{value}"), why)
}
