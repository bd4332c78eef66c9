//! A result in the shape of the version that was asked for.

use serde_json::{Value, json};

use crate::protocol::Request;

/// A result of 1.1.0 in the shape of the request's version.
pub fn shaped(request: &Request, mut result: Value) -> Value {
    let version = request.version.as_str();
    let legacy = |case: &str, number: &str| version == number && request.has(case);
    if (!request.at_least("0.3.0") && !legacy("RES-1", "0.1.0") && !legacy("RES-2", "0.2.0"))
        || legacy("RES-3", "0.3.0")
    {
        return old_shape(version, &result);
    }
    result["cniVersion"] = if version == "0.4.0" && request.has("ADD-7") { json!("1.0.0") } else { json!(version) };
    let numbered = !request.at_least("1.0.0");
    for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let family = if ip["address"].as_str().is_some_and(|text| text.contains(':')) { "6" } else { "4" };
        if numbered && !legacy("RES-4", "0.3.1") && !legacy("RES-5", "0.4.0") {
            ip["version"] = json!(family);
        } else if let Some(ip) = ip.as_object_mut() {
            // A chained plugin was given one.
            ip.remove("version");
        }
    }
    let is_new = request.at_least("1.1.0") || (version == "1.0.0" && request.has("RES-6"));
    if !is_new {
        for one in result
            .get_mut("interfaces")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            one.remove("mtu");
        }
    }
    if version == "1.0.0" && request.has("RES-6") {
        for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
            ip["version"] = json!("4");
        }
    }
    if version == "1.1.0" && request.has_in("results", "RES-7") {
        result["routes"] = json!([{ "dst": "0.0.0.0/0", "mtu": "1500" }]);
    }
    result
}

fn old_shape(version: &str, result: &Value) -> Value {
    let mut shaped = json!({ "cniVersion": version, "dns": result.get("dns").cloned().unwrap_or_else(|| json!({})) });
    for ip in result["ips"].as_array().into_iter().flatten() {
        let address = ip["address"].as_str().unwrap_or_default();
        let six = address.contains(':');
        let routes = result["routes"].as_array().into_iter().flatten();
        let own: Vec<_> =
            routes.filter(|route| route["dst"].as_str().is_some_and(|dst| dst.contains(':') == six)).collect();
        let key = if six { "ip6" } else { "ip4" };
        if shaped.get(key).is_none() {
            shaped[key] = json!({ "ip": address, "gateway": ip["gateway"], "routes": own });
        }
    }
    shaped
}
