//! What is judged: a plugin or a chain, its config, and what is known of it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cases;
use crate::error::Error;
use crate::host::shape;

/// A JSON object.
pub type Object = Map<String, Value>;

/// What a plugin is for, which decides the questions that can be put to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Makes the interface. In a chain: the first plugin.
    Main,
    /// Adjusts an interface that another plugin made. The suite makes that interface itself.
    Chained,
    /// Gives out addresses for a main plugin.
    Ipam,
}

impl Kind {
    /// As target files and tables spell it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Chained => "chained",
            Self::Ipam => "ipam",
        }
    }
}

/// A target file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name in reports.
    pub name: String,
    /// One sentence on what it is.
    #[serde(default)]
    pub about: String,
    /// What it is for.
    pub kind: Kind,
    /// Where its executables are, besides `--plugin-dir`.
    #[serde(default)]
    pub dirs: Vec<PathBuf>,
    /// Spec versions to use; without it, those that the plugin says it supports.
    #[serde(default)]
    pub versions: Vec<String>,
    /// Plugin configuration objects, as in a conflist.
    pub plugins: Vec<Object>,
    /// Keys merged into the first plugin's config so that its pool is small (at most 16 addresses).
    #[serde(default)]
    pub small_pool: Option<Object>,
    /// Keys merged into the first plugin's config where it must be told that a later plugin will change the interface's
    /// hardware address.
    #[serde(default)]
    pub changing_mac: Option<Object>,
    /// Fields that the plugin documents as unsupported: code 2 is expected.
    #[serde(default)]
    pub unsupported: Option<Object>,
    /// Values that the plugin documents as invalid: code 7 is expected.
    #[serde(default)]
    pub invalid: Option<Object>,
    /// `ip(8)` lines that make what the plugin's config takes for granted on the host, such as a master interface.
    #[serde(default)]
    pub prepare: Vec<String>,
    /// Folders of databases that number their files: a run of 12 or more hexadecimal digits in a name is such a number, and how
    /// many such files there are is the database's business.
    #[serde(default)]
    pub numbered: Vec<PathBuf>,
    /// Keys that give the first plugin another network, where two must not share what the config names, such as a bridge.
    #[serde(default)]
    pub second_network: Option<Object>,
    /// Programs of the target that run beside the plugin, each with its arguments.
    #[serde(default)]
    pub daemons: Vec<Daemon>,
    /// Things that the target promises or refuses to promise.
    #[serde(default)]
    pub traits: Traits,
    /// Cases that the target is known to fail.
    #[serde(default)]
    pub deviations: Vec<Deviation>,
}

/// A program that runs beside the plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// The program, looked for like a plugin.
    pub program: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The path that exists when it is ready.
    pub ready: PathBuf,
}

/// What the suite may expect of the target beyond the spec.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one line of a target file")]
pub struct Traits {
    /// Pods get an IPv4 address.
    pub ipv4: bool,
    /// Pods get an IPv6 address.
    pub ipv6: bool,
    /// Pods reach pods.
    pub connects: bool,
    /// Pods and the node reach each other.
    pub node: bool,
    /// Pods reach what is outside of the node, with the node's address.
    pub masquerades: bool,
    /// All pods get the same address, so that there can be but one at a time.
    pub one_address: bool,
    /// Reasons why data-plane questions cannot be put: shown with each skip.
    pub without_packets: Option<String>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            ipv4: true,
            ipv6: false,
            connects: true,
            node: true,
            masquerades: false,
            one_address: false,
            without_packets: None,
        }
    }
}

/// A case that is known to fail, and why that is so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// The cases' ids.
    #[serde(default)]
    pub cases: Vec<String>,
    /// Texts by which what it leaves behind is known, in whatever case that happens.
    #[serde(default)]
    pub residue: Vec<String>,
    /// Whether it depends on chance, such as the moment of a kill, so that passing is no surprise.
    #[serde(default)]
    pub sometimes: bool,
    /// What the plugin does instead.
    pub why: String,
    /// Where that was read: project, version, file.
    pub source: String,
}

impl Target {
    /// Reads a target file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, has unknown keys, no plugin, or deviations of cases that do not exist.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let target: Self = toml::from_str(&text).map_err(|source| Error::Target { path: path.to_owned(), source })?;
        target.checked(&path.display().to_string())
    }

    /// Makes a target of a conflist, of which nothing else is known.
    ///
    /// # Errors
    /// If it cannot be read, is not JSON, or has no plugin.
    pub fn of_conflist(path: &Path, kind: Kind) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let list: Value =
            serde_json::from_str(&text).map_err(|source| Error::Conflist { path: path.to_owned(), source })?;
        let plugins: Option<Vec<Object>> = match list.get("plugins").and_then(Value::as_array) {
            Some(plugins) => plugins.iter().map(|plugin| plugin.as_object().cloned()).collect(),
            None => list.as_object().cloned().map(|plugin| vec![plugin]),
        };
        let plugins = plugins.ok_or_else(|| Error::Invalid {
            what: path.display().to_string(),
            why: "every plugin of it must be a JSON object".to_owned(),
        })?;
        let name = list.get("name").and_then(Value::as_str).unwrap_or("conflist").to_owned();
        let text = plugins_text(&plugins);
        let target = Self {
            name,
            about: format!("{} ({})", path.display(), text),
            kind,
            dirs: Vec::new(),
            versions: Vec::new(),
            traits: learnt(&plugins),
            plugins,
            small_pool: None,
            changing_mac: None,
            unsupported: None,
            invalid: None,
            prepare: Vec::new(),
            numbered: Vec::new(),
            second_network: None,
            daemons: Vec::new(),
            deviations: Vec::new(),
        };
        target.checked(&path.display().to_string())
    }

    fn checked(self, what: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid { what: what.to_owned(), why: why.to_owned() };
        if self.plugins.is_empty() {
            return Err(invalid("it has no plugins"));
        }
        for plugin in &self.plugins {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.is_empty() || kind.contains('/') {
                return Err(invalid("every plugin needs a type, which is the name of a file"));
            }
        }
        if let Some(version) = self.versions.iter().find(|version| !shape::VERSIONS.contains(&version.as_str())) {
            return Err(invalid(&format!("{version} is no spec version: they are {}", shape::VERSIONS.join(" "))));
        }
        for deviation in &self.deviations {
            if deviation.cases.is_empty() && deviation.residue.is_empty() {
                return Err(invalid(&format!("the deviation {:?} names neither cases nor residue", deviation.why)));
            }
            // Ids that differ by case only are no ids either: the lists that are compared with them are exact.
            if let Some(id) = deviation.cases.iter().find(|id| cases::all().all(|case| case.id != id.as_str())) {
                return Err(invalid(&format!(
                    "a deviation names {id}, and no case is called so: see `cni-conformance list`"
                )));
            }
        }
        Ok(self)
    }

    /// The `type` of the plugin at this place of the chain.
    #[must_use]
    pub fn plugin_type(&self, index: usize) -> &str {
        self.plugins.get(index).and_then(|plugin| plugin.get("type")).and_then(Value::as_str).unwrap_or_default()
    }

    /// `ipam.type` of the first plugin.
    #[must_use]
    pub fn ipam_type(&self) -> Option<&str> {
        self.plugins.first()?.get("ipam")?.get("type")?.as_str()
    }

    /// Whether any plugin declares the capability.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, name))
    }

    /// What is known about lines that are left behind, if all of them are known.
    #[must_use]
    pub fn known_residue(&self, lines: &[String]) -> Option<&Deviation> {
        let known = |line: &String| {
            self.deviations.iter().find(|deviation| deviation.residue.iter().any(|text| line.contains(text.as_str())))
        };
        let found: Option<Vec<_>> = lines.iter().map(known).collect();
        found?.first().copied()
    }

    /// What is known about a case that fails.
    #[must_use]
    pub fn deviation(&self, id: &str) -> Option<&Deviation> {
        self.deviations.iter().find(|deviation| deviation.cases.iter().any(|case| case == id))
    }
}

/// Whether the plugin's config has `capabilities.NAME: true`.
#[must_use]
pub fn declares(plugin: &Object, name: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or(false)
}

fn plugins_text(plugins: &[Object]) -> String {
    let types: Vec<_> = plugins.iter().filter_map(|plugin| plugin.get("type")?.as_str()).collect();
    types.join(", ")
}

/// What the config says of the families of its addresses, of masquerading, and whether there is one address for all.
fn learnt(plugins: &[Object]) -> Traits {
    let ipam = || plugins.iter().filter_map(|plugin| plugin.get("ipam"));
    let has = |ipv6: bool| ipam().any(|ipam| mentions(ipam, ipv6));
    let masquerades = plugins.iter().any(|plugin| plugin.get("ipMasq").and_then(Value::as_bool) == Some(true));
    // The reference plugin of that name gives out what its config says.
    let one_address = ipam().any(|ipam| ipam.get("type").and_then(Value::as_str) == Some("static"));
    Traits { ipv4: has(false) || !has(true), ipv6: has(true), masquerades, one_address, ..Traits::default() }
}

/// Whether a network of this family is in it; the destination of a default route is none.
fn mentions(value: &Value, ipv6: bool) -> bool {
    match value {
        Value::String(text) => text.split_once('/').is_some_and(|(address, length)| {
            length != "0" && address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == ipv6)
        }),
        Value::Array(items) => items.iter().any(|item| mentions(item, ipv6)),
        Value::Object(object) => object.iter().any(|(key, item)| key != "routes" && mentions(item, ipv6)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_target_file_is_one() -> Result<(), toml::de::Error> {
        let lines = include_str!("../README.md").lines().skip_while(|line| !line.contains("name = \"mine\""));
        let text: Vec<_> = lines.take_while(|line| line.starts_with("    ")).map(str::trim).collect();
        let target: Target = toml::from_str(&text.join("\n"))?;
        assert_eq!((target.plugins.len(), target.small_pool.is_some(), target.unsupported.is_some()), (1, true, true));
        Ok(())
    }

    #[test]
    fn a_conflist_says_which_families_it_has_and_whether_it_masquerades() {
        let traits = |config: Value| {
            let traits = learnt(&[config.as_object().cloned().unwrap_or_default()]);
            (traits.ipv4, traits.ipv6, traits.masquerades)
        };
        let ipam =
            |ranges: Value| serde_json::json!({ "ipam": { "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }] } });
        assert_eq!(traits(serde_json::json!({ "ipMasq": true })), (true, false, true));
        assert_eq!(traits(ipam(serde_json::json!([[{ "subnet": "10.1.0.0/24" }]]))), (true, false, false));
        assert_eq!(traits(ipam(serde_json::json!([[{ "subnet": "fd00:77::/112" }]]))), (false, true, false));
        let both = serde_json::json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00:1:2:3:0:0:0:0/112" }]]);
        assert_eq!(traits(ipam(both)), (true, true, false));
    }
}
