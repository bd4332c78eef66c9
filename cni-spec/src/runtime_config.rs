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
