//! `runtimeConfig`: the capabilities a runtime fills in (CONVENTIONS.md, "Dynamic Plugin specific fields").

use serde_json::Value;

use crate::json::{Located, Malformed};
use crate::{CniError, error};

pub(crate) mod folded;

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

impl RuntimeConfig {
    /// A capability's value; `None` if it is missing or null.
    #[must_use]
    pub fn get(&self, capability: &str) -> Option<&Value> {
        self.located(capability).map(|value| value.value())
    }

    /// `portMappings`; missing and null are empty. Numbers that are missing in an entry are 0.
    ///
    /// # Errors
    /// Code 7, naming `runtimeConfig.portMappings[0].hostPort` and its value.
    pub fn port_mappings(&self) -> Result<Vec<PortMapping>, CniError> {
        let Some(list) = self.located("portMappings") else { return Ok(Vec::new()) };
        let read = || list.items()?.into_iter().map(port_mapping).collect::<Result<_, _>>();
        read().map_err(|malformed| error::malformed_config(&malformed))
    }

    /// `ips`: addresses asked for, with or without a prefix length; missing and null are empty.
    ///
    /// # Errors
    /// Code 7, naming `runtimeConfig.ips` and its value.
    pub fn ips(&self) -> Result<Vec<String>, CniError> {
        let Some(list) = self.located("ips") else { return Ok(Vec::new()) };
        list.texts().map_err(|malformed| error::malformed_config(&malformed))
    }

    /// `mac`: the hardware address asked for; missing, null and "" are none.
    ///
    /// # Errors
    /// Code 7, naming `runtimeConfig.mac` and its value.
    pub fn mac(&self) -> Result<Option<String>, CniError> {
        let Some(mac) = self.located("mac") else { return Ok(None) };
        let mac = mac.text().map_err(|malformed| error::malformed_config(&malformed))?;
        Ok((!mac.is_empty()).then(|| mac.to_owned()))
    }

    fn located(&self, capability: &str) -> Option<Located<'_>> {
        Located::new("runtimeConfig", &self.0).key_in_any_case(capability)
    }
}

fn port_mapping(json: Located<'_>) -> Result<PortMapping, Malformed> {
    let json = json.object()?;
    let number = |key| json.key_in_any_case(key).map_or(Ok(0), |value| value.integer());
    let text = |key| json.key_in_any_case(key).map_or(Ok(""), |value| value.text()).map(str::to_owned);
    Ok(PortMapping {
        host_port: number("hostPort")?,
        container_port: number("containerPort")?,
        protocol: text("protocol")?,
        host_ip: text("hostIP")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal<T: std::fmt::Debug>(read: Result<T, CniError>) -> (u32, String) {
        let error = read.expect_err("a refusal");
        (error.code.number(), error.msg)
    }

    #[test]
    fn missing_and_null_are_empty() {
        for value in [Value::Null, json!({}), json!({ "portMappings": null, "ips": null, "mac": null }), json!(7)] {
            let config = RuntimeConfig(value);
            assert_eq!(config.port_mappings(), Ok(Vec::new()), "{config:?}");
            assert_eq!(config.ips(), Ok(Vec::new()), "{config:?}");
            assert_eq!(config.mac(), Ok(None), "{config:?}");
            assert_eq!(config.get("portMappings"), None, "{config:?}");
        }
    }

    #[test]
    fn capabilities_and_keys_are_found_in_any_case() {
        let config = RuntimeConfig(json!({
            "PORTMAPPINGS": [{ "HostPort": 8080, "CONTAINERPORT": 80, "Protocol": "udp", "hostip": "::1" }],
            "IPs": ["10.0.0.9/24"],
            "Mac": "c2:11:22:33:44:55",
            "bandWidth": { "IngressRate": 1 },
        }));
        let expected =
            PortMapping { host_port: 8080, container_port: 80, protocol: "udp".to_owned(), host_ip: "::1".to_owned() };
        assert_eq!(config.port_mappings(), Ok(vec![expected]));
        assert_eq!(config.ips(), Ok(vec!["10.0.0.9/24".to_owned()]));
        assert_eq!(config.mac(), Ok(Some("c2:11:22:33:44:55".to_owned())));
        assert_eq!(config.get("bandwidth"), Some(&json!({ "IngressRate": 1 })));
    }

    #[test]
    fn what_a_mapping_does_not_say_is_zero_or_empty() {
        let config = RuntimeConfig(json!({ "portMappings": [{}, { "hostPort": null, "hostIP": null, "more": [] }] }));
        assert_eq!(config.port_mappings(), Ok(vec![PortMapping::default(); 2]));
    }

    #[test]
    fn malformed_mappings_are_named_with_the_conventions_spelling() {
        for (mappings, expected) in [
            (json!("x"), "=\"x\" is not a list"),
            (json!([null]), "[0]=null is not an object"),
            (json!([{}, 8080]), "[1]=8080 is not an object"),
            (json!([{ "HostPort": "x" }]), "[0].hostPort=\"x\" is not a whole number"),
            (json!([{ "hostPort": 80.5 }]), "[0].hostPort=80.5 is not a whole number"),
            (json!([{ "containerPort": [] }]), "[0].containerPort=[] is not a whole number"),
            (json!([{ "Protocol": 6 }]), "[0].protocol=6 is not a string"),
            (json!([{ "hostIp": {} }]), "[0].hostIP={} is not a string"),
        ] {
            let config = RuntimeConfig(json!({ "PortMappings": mappings }));
            let expected = format!("invalid network config: runtimeConfig.portMappings{expected}");
            assert_eq!(refusal(config.port_mappings()), (7, expected));
        }
    }

    #[test]
    fn numbers_out_of_a_ports_range_are_left_to_the_plugin() {
        let config = RuntimeConfig(json!({ "portMappings": [{ "hostPort": -1, "containerPort": 70000 }] }));
        let expected = PortMapping { host_port: -1, container_port: 70000, ..PortMapping::default() };
        assert_eq!(config.port_mappings(), Ok(vec![expected]));
    }

    #[test]
    fn malformed_ips_and_mac_are_named() {
        let config = RuntimeConfig(json!({ "ips": ["10.0.0.9", 7], "mac": 7 }));
        let expected = (7, "invalid network config: runtimeConfig.ips[1]=7 is not a string".to_owned());
        assert_eq!(refusal(config.ips()), expected);
        let expected = (7, "invalid network config: runtimeConfig.mac=7 is not a string".to_owned());
        assert_eq!(refusal(config.mac()), expected);
    }
}
