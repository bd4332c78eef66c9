//! The network config on standard input: the keys every plugin shares. Plugins parse their own keys
//! from the same bytes with [`NetConf::parse`].

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{CniError, CniResult, NetworkName, RuntimeConfig, SpecVersion};

/// One plugin's config, as a runtime sends it (spec section 1, "Plugin configuration objects" and
/// section 4 "derived" keys).
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `name`.
    pub name: NetworkName,
    /// `type`: the file name of the plugin; empty if missing.
    pub plugin_type: String,
    /// `cniVersion`; missing or empty means 0.1.0.
    pub cni_version: SpecVersion,
    /// `prevResult`, converted from `cni_version`'s shape.
    pub prev_result: Option<CniResult>,
    /// `ipam.type`, if there is an `ipam` object with a type.
    pub ipam_type: Option<String>,
    /// `runtimeConfig`.
    pub runtime_config: RuntimeConfig,
    /// The whole document.
    pub json: Value,
    /// The whole document as it came, for delegates.
    pub bytes: Vec<u8>,
}

impl NetConf {
    /// The plugin's own view of the config. Keys that `T` does not name are ignored.
    ///
    /// # Errors
    /// Code 7, naming the key with its path (`ipam.ranges[0][0].subnet`) and what is wrong with its value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        serde_path_to_error::deserialize(&self.json)
            .map_err(|error| crate::error::invalid_key(&self.json, &error.path().to_string(), error.inner()))
    }
}
