//! The network config on standard input: the keys every plugin shares. Plugins parse their own keys
//! from the same bytes with [`NetConf::parse`].

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::convert::ResultError;
use crate::id::IdError;
use crate::json::{Located, Malformed};
use crate::runtime_config::folded;
use crate::version::UnknownVersion;
use crate::{CniError, CniResult, ErrorCode, NetworkName, RuntimeConfig, SpecVersion, error};

/// One plugin's config, as a runtime sends it (spec section 1, "Plugin configuration objects" and
/// section 3, "Deriving request configuration from plugin configuration").
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `name`.
    pub name: NetworkName,
    /// `type`: the file name of the plugin; empty if missing.
    pub plugin_type: String,
    /// `cniVersion`; missing or empty means 0.1.0.
    pub cni_version: SpecVersion,
    /// `prevResult`, converted from the shape of its own `cniVersion`, or of the config's if it has none. DEL
    /// does without one that cannot be read; GC and STATUS have none.
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
    /// Reads a config, `prevResult` included.
    ///
    /// # Errors
    /// Code 6 if it is no JSON object, 1 for an unknown `cniVersion`, 7 for a key that is missing or malformed.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, CniError> {
        let mut config = Self::without_prev_result(bytes)?;
        config.prev_result = config.read_prev_result()?;
        Ok(config)
    }

    /// The plugin's own view of the config. Keys that `T` does not name are ignored.
    ///
    /// # Errors
    /// Code 7, naming the key with its path (`ipam.ranges[0][0].subnet`) and what is wrong with its value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        serde_path_to_error::deserialize(&self.json)
            .map_err(|error| error::invalid_key(&self.json, error.path(), error.inner()))
    }

    /// The same of these keys, in whatever case they are written: Go reads JSON so, and a drop-in for a plugin in Go must not
    /// leave a key out that the other one has heeded. Of several spellings that of `keys` counts, which libcni, too, puts last.
    ///
    /// # Errors
    /// As [`NetConf::parse`], with the key as `keys` has it.
    pub fn parse_in_any_case<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<T, CniError> {
        let value = |key: &str| {
            let any_case = || Located::new("", &self.json).key_in_any_case(key).map(|located| located.value());
            self.json.get(key).or_else(any_case).cloned()
        };
        let known: Value = keys.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?))).collect();
        serde_path_to_error::deserialize(&known)
            .map_err(|error| error::invalid_key(&known, error.path(), error.inner()))
    }

    /// The config before `prevResult` is looked at.
    pub(crate) fn without_prev_result(bytes: Vec<u8>) -> Result<Self, CniError> {
        let json = decode(&bytes)?;
        let root = Located::new("", &json);
        let cni_version = cni_version(&root)?;
        let shared = |malformed: Malformed| error::malformed_config(&malformed);
        let name = name(&root).map_err(shared)?;
        let plugin_type = root.key("type").map_or(Ok(""), |value| value.text()).map_err(shared)?.to_owned();
        let ipam_type = ipam_type(&root).map_err(shared)?;
        root.key("runtimeConfig").map(Located::object).transpose().map_err(shared)?;
        let runtime_config = RuntimeConfig(folded::read(&bytes));
        Ok(Self { name, plugin_type, cni_version, prev_result: None, ipam_type, runtime_config, json, bytes })
    }

    /// `prevResult`; null counts as missing.
    pub(crate) fn read_prev_result(&self) -> Result<Option<CniResult>, CniError> {
        let Some(json) = Located::new("", &self.json).key("prevResult") else { return Ok(None) };
        match CniResult::read(json, self.cni_version) {
            Ok(result) => Ok(Some(result)),
            Err(ResultError::Malformed(malformed)) => Err(error::malformed_config(&malformed)),
            Err(error @ (ResultError::Version { .. } | ResultError::NoAddress(_))) => {
                Err(CniError::new(ErrorCode::InvalidConfig, format!("invalid network config: {error}"))
                    .with_details(SpecVersion::supported()))
            }
        }
    }
}

/// Spec section 5: code 6 is for content that cannot be decoded.
fn decode(bytes: &[u8]) -> Result<Value, CniError> {
    let refuse = |what: String| CniError::new(ErrorCode::Decode, format!("network config on standard input {what}"));
    if bytes.trim_ascii().is_empty() {
        return Err(refuse("is empty".to_owned()));
    }
    let json: Value = serde_json::from_slice(bytes).map_err(|error| refuse(format!("is not JSON: {error}")))?;
    if json.is_object() { Ok(json) } else { Err(refuse(format!("is not an object: {}", crate::json::shown(&json)))) }
}

fn cni_version(root: &Located<'_>) -> Result<SpecVersion, CniError> {
    let Some(stated) = root.key("cniVersion") else { return Ok(SpecVersion::V0_1_0) };
    let text = stated
        .text()
        .map_err(|malformed| CniError::new(ErrorCode::Decode, format!("invalid network config: {malformed}")))?;
    if text.is_empty() {
        return Ok(SpecVersion::V0_1_0);
    }
    text.parse().map_err(|UnknownVersion(version)| {
        CniError::new(ErrorCode::IncompatibleVersion, format!("cniVersion={version:?} is not supported"))
            .with_details(SpecVersion::supported())
    })
}

fn name(root: &Located<'_>) -> Result<NetworkName, Malformed> {
    let name = root.key("name").ok_or_else(|| root.missing("name"))?;
    name.text()?.parse().map_err(|error: IdError| name.malformed(error.reason()))
}

fn ipam_type(root: &Located<'_>) -> Result<Option<String>, Malformed> {
    let Some(ipam) = root.key("ipam") else { return Ok(None) };
    let text = ipam.object()?.key("type").map(|value| value.text()).transpose()?;
    Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
}
