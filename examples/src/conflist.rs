//! Network configuration lists as libcni loads them (spec section 1, "Network configuration format").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cni_spec::version::UnknownVersion;
use cni_spec::{NetworkName, SpecVersion};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A list, with the spec version already chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// `name`.
    pub name: NetworkName,
    /// The newest of `cniVersion` and `cniVersions`; 0.1.0 if neither is there.
    pub version: SpecVersion,
    /// `disableCheck`: the runtime must not call CHECK.
    pub disable_check: bool,
    /// `disableGC`: the runtime must not call GC.
    pub disable_gc: bool,
    /// `plugins`, in the order of ADD.
    pub plugins: Vec<PluginConf>,
    /// The whole document, as it stands in the file.
    pub json: Value,
}

/// One object of `plugins`, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConf {
    /// `type`: the executable's name.
    pub plugin_type: String,
    /// The whole object.
    pub json: Map<String, Value>,
}

impl PluginConf {
    /// `ipam.type`.
    #[must_use]
    pub fn ipam_type(&self) -> Option<&str> {
        self.json.get("ipam")?.get("type")?.as_str()
    }

    /// The names that `capabilities` sets to true.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        let declared = self.json.get("capabilities").and_then(Value::as_object);
        declared.into_iter().flatten().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.as_str())
    }
}

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// The file could not be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not JSON; the source tells line and column.
    #[error("{}: not JSON", .file.display())]
    Json {
        /// Where.
        file: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing or its value has another shape.
    #[error("{}: {path}: {reason}", .file.display())]
    Shape {
        /// Where.
        file: PathBuf,
        /// The key's path, `plugins[0].type`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `name` has characters that the spec does not allow.
    #[error("{}: name", .file.display())]
    Name {
        /// Where.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: cni_spec::id::IdError,
    },
    /// No offered spec version is known.
    #[error("{}: cniVersion", .file.display())]
    Version {
        /// Where.
        file: PathBuf,
        /// The version.
        #[source]
        source: UnknownVersion,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConflist {
    name: String,
    cni_version: Option<String>,
    #[serde(default)]
    cni_versions: Vec<String>,
    #[serde(default)]
    disable_check: bool,
    #[serde(rename = "disableGC", default)]
    disable_gc: bool,
    plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// Reads a `*.conflist` file.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a list.
    pub fn read(file: &Path) -> Result<Self, ConflistError> {
        let text = fs::read(file).map_err(|source| ConflistError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Reads a list from its text. `file` is for messages only.
    ///
    /// # Errors
    /// If the text is not a list.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ConflistError> {
        let json: Value =
            serde_json::from_slice(text).map_err(|source| ConflistError::Json { file: file.to_owned(), source })?;
        let shape = |path: &str, reason: &str| ConflistError::Shape {
            file: file.to_owned(),
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let raw: RawConflist = serde_path_to_error::deserialize(&json)
            .map_err(|error| shape(&error.path().to_string(), &error.inner().to_string()))?;
        if raw.plugins.is_empty() {
            return Err(shape("plugins", "is empty"));
        }
        let plugin = |(index, json): (usize, Map<String, Value>)| {
            let path = format!("plugins[{index}].type");
            let plugin_type = json.get("type").and_then(Value::as_str).ok_or_else(|| shape(&path, "is missing"))?;
            if plugin_type.is_empty() || plugin_type.contains('/') {
                return Err(shape(&path, "must be the name of an executable, without a path"));
            }
            Ok(PluginConf { plugin_type: plugin_type.to_owned(), json })
        };
        Ok(Self {
            name: raw.name.parse().map_err(|source| ConflistError::Name { file: file.to_owned(), source })?,
            version: newest(raw.cni_version, raw.cni_versions)
                .map_err(|source| ConflistError::Version { file: file.to_owned(), source })?,
            disable_check: raw.disable_check,
            disable_gc: raw.disable_gc,
            plugins: raw.plugins.into_iter().enumerate().map(plugin).collect::<Result<_, _>>()?,
            json,
        })
    }

    /// The types in the order of ADD, each main plugin with its IPAM plugin: `podwire (podwire-ipam)`.
    #[must_use]
    pub fn chain(&self) -> Vec<String> {
        let name = |plugin: &PluginConf| match plugin.ipam_type() {
            Some(ipam) => format!("{} ({ipam})", plugin.plugin_type),
            None => plugin.plugin_type.clone(),
        };
        self.plugins.iter().map(name).collect()
    }
}

/// libcni takes the newest version that it knows itself; unknown ones are passed over unless all are.
fn newest(single: Option<String>, several: Vec<String>) -> Result<SpecVersion, UnknownVersion> {
    let offered: BTreeSet<String> = single.into_iter().chain(several).filter(|text| !text.is_empty()).collect();
    let known = offered.iter().filter_map(|text| text.parse::<SpecVersion>().ok()).max();
    match (known, offered.into_iter().next()) {
        (Some(version), _) => Ok(version),
        (None, None) => Ok(SpecVersion::V0_1_0),
        (None, Some(unknown)) => Err(UnknownVersion(unknown)),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn parse(text: &str) -> Result<Conflist, ConflistError> {
        Conflist::parse(Path::new("x.conflist"), text.as_bytes())
    }

    #[test]
    fn the_newest_offered_version_wins() {
        let of =
            |keys: &str| parse(&format!(r#"{{"name": "n", {keys} "plugins": [{{"type": "p"}}]}}"#)).unwrap().version;
        assert_eq!(of(r#""cniVersion": "0.4.0", "cniVersions": ["1.0.0", "9.0.0", "0.3.1"],"#), SpecVersion::V1_0_0);
        assert_eq!(of(r#""cniVersion": "1.1.0","#), SpecVersion::V1_1_0);
        assert_eq!(of(""), SpecVersion::V0_1_0);
        let error = parse(r#"{"name": "n", "cniVersion": "9.0.0", "plugins": [{"type": "p"}]}"#).unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "unknown CNI spec version \"9.0.0\"");
    }

    #[test]
    fn only_capabilities_that_are_true_count() {
        let list = parse(
            r#"{"name": "n", "plugins": [
                {"type": "p", "capabilities": {"portMappings": true, "ips": false, "mac": "yes"}, "ipam": {"type": "i"}},
                {"type": "q"}]}"#,
        )
        .unwrap();
        assert_eq!(list.plugins[0].capabilities().collect::<Vec<_>>(), ["portMappings"]);
        assert_eq!(list.plugins[1].capabilities().count(), 0);
        assert_eq!(list.chain(), ["p (i)", "q"]);
    }

    #[test]
    fn a_bad_list_is_refused_with_file_and_path() {
        let cases = [
            (r#"{"name": "n", "plugins": []}"#, "x.conflist: plugins: is empty"),
            (r#"{"name": "n"}"#, "x.conflist: .: missing field `plugins`"),
            (r#"{"name": "n", "plugins": [{"type": "a"}, {}]}"#, "x.conflist: plugins[1].type: is missing"),
            (
                r#"{"name": "n", "plugins": [{"type": "../a"}]}"#,
                "x.conflist: plugins[0].type: must be the name of an executable, without a path",
            ),
            (r#"{"name": "a/b", "plugins": [{"type": "a"}]}"#, "x.conflist: name"),
            ("{", "x.conflist: not JSON"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
