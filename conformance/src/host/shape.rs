//! A result in the shape of another spec version, as a runtime converts what it hands on as prevResult.

use serde_json::{Map, Value, json};

/// The spec versions that the suite knows, oldest first.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether `version` is at least `than`. Versions that the suite does not know are newer than all it knows.
#[must_use]
pub fn at_least(version: &str, than: &str) -> bool {
    parts(version) >= parts(than)
}

/// The numbers of a version, for comparing.
#[must_use]
pub fn parts(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// The address family of a CIDR or address.
#[must_use]
pub fn family(address: &str) -> &'static str {
    if address.contains(':') { "6" } else { "4" }
}

/// Rewrites a result (0.3.0 or newer) for `version`.
#[must_use]
pub fn reshape(result: &Value, version: &str) -> Value {
    if !at_least(version, "0.3.0") {
        return legacy(result, version);
    }
    let mut shaped = result.clone();
    let Some(object) = shaped.as_object_mut() else {
        return shaped;
    };
    if object.contains_key("ip4") || object.contains_key("ip6") {
        return shaped;
    }
    object.insert("cniVersion".to_owned(), json!(version));
    if let Some(ips) = object.get_mut("ips").and_then(Value::as_array_mut) {
        for ip in ips.iter_mut().filter_map(Value::as_object_mut) {
            if at_least(version, "1.0.0") {
                ip.remove("version");
            } else {
                let family = ip.get("address").and_then(Value::as_str).map_or("4", family);
                ip.insert("version".to_owned(), json!(family));
            }
        }
    }
    if !at_least(version, "1.0.0") {
        object.entry("dns").or_insert_with(|| json!({}));
    }
    shaped
}

/// 0.1.0 and 0.2.0: one address of each family, no interfaces.
fn legacy(result: &Value, version: &str) -> Value {
    let mut object = Map::new();
    object.insert("cniVersion".to_owned(), json!(version));
    for (key, wanted) in [("ip4", "4"), ("ip6", "6")] {
        let ips = result.get("ips").and_then(Value::as_array);
        let first = ips.and_then(|ips| ips.iter().find(|ip| family(text(ip, "address")) == wanted));
        let Some(ip) = first else { continue };
        let routes = result.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
        let routes: Vec<_> = routes.into_iter().filter(|route| family(text(route, "dst")) == wanted).collect();
        let mut entry = json!({ "ip": text(ip, "address"), "routes": routes });
        if let (Some(gateway), Some(entry)) = (ip.get("gateway"), entry.as_object_mut()) {
            entry.insert("gateway".to_owned(), gateway.clone());
        }
        object.insert(key.to_owned(), entry);
    }
    object.insert("dns".to_owned(), result.get("dns").cloned().unwrap_or_else(|| json!({})));
    Value::Object(object)
}

/// A text field, empty if it is missing.
#[must_use]
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// All addresses of a result of any version, in CIDR notation.
#[must_use]
pub fn addresses(result: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for ip in result.get("ips").and_then(Value::as_array).into_iter().flatten() {
        found.push(text(ip, "address").to_owned());
    }
    for key in ["ip4", "ip6"] {
        if let Some(ip) = result.get(key) {
            found.push(text(ip, "ip").to_owned());
        }
    }
    found
}

/// The same without their prefix lengths.
#[must_use]
pub fn bare_addresses(result: &Value) -> Vec<String> {
    addresses(result).iter().map(|cidr| bare(cidr).to_owned()).collect()
}

/// A CIDR's address.
#[must_use]
pub fn bare(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or_default()
}

/// The list below a key; empty if there is none.
#[must_use]
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("0.10.0", "0.4.0"));
        assert!(!at_least("0.3.1", "0.4.0"));
        assert!(at_least("1.0.0", "1.0.0"));
    }

    #[test]
    fn a_result_goes_down_to_the_oldest_shape() {
        let result = json!({
            "cniVersion": "1.0.0",
            "ips": [{ "address": "10.0.0.2/24", "gateway": "10.0.0.1" }, { "address": "fd00::2/64" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        });
        let old = reshape(&result, "0.2.0");
        assert_eq!(old["ip4"]["ip"], "10.0.0.2/24");
        assert_eq!(old["ip4"]["routes"], json!([{ "dst": "0.0.0.0/0" }]));
        assert_eq!(old["ip6"], json!({ "ip": "fd00::2/64", "routes": [] }));
        assert_eq!(reshape(&result, "0.4.0")["ips"][1]["version"], "6");
    }
}
