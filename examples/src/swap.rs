//! A reference plugin in place of one of ours, with a config that means the same.

use serde_json::{Map, Value, json};

use crate::conflist::{Conflist, PluginConf};

/// Keys of podwire's config that ptp shares.
const PTP_KEYS: [&str; 4] = ["mtu", "ipMasq", "dns", "ipam"];

/// A reference plugin that can stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Reference {
    /// In place of `podwire`.
    Ptp,
    /// In place of `podwire-ipam`.
    HostLocal,
    /// In place of `podwire-portmap`.
    Portmap,
}

impl Reference {
    /// The executable's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::HostLocal => "host-local",
            Self::Portmap => "portmap",
        }
    }

    /// The name of the one that it stands in for.
    #[must_use]
    pub fn ours(self) -> &'static str {
        match self {
            Self::Ptp => "podwire",
            Self::HostLocal => "podwire-ipam",
            Self::Portmap => "podwire-portmap",
        }
    }
}

/// Replaces each of ours by its reference plugin wherever the list has it.
#[must_use]
pub fn swap_all(list: Conflist, mut references: Vec<Reference>) -> Conflist {
    // ptp's config is made from the pools, which host-local's has in another shape.
    references.sort_unstable();
    references.into_iter().fold(list, swap)
}

fn swap(mut list: Conflist, reference: Reference) -> Conflist {
    for plugin in &mut list.plugins {
        match reference {
            Reference::Ptp if plugin.plugin_type == reference.ours() => *plugin = ptp(&plugin.json),
            Reference::Portmap if plugin.plugin_type == reference.ours() => *plugin = portmap(&plugin.json),
            Reference::HostLocal if plugin.ipam_type() == Some(reference.ours()) => host_local(plugin),
            Reference::Ptp | Reference::Portmap | Reference::HostLocal => {}
        }
    }
    list.json["plugins"] = list.plugins.iter().map(|plugin| Value::Object(plugin.json.clone())).collect();
    list
}

/// ptp sets a default route only if the IPAM plugin's result has one; podwire always does. It knows no
/// `nonMasqueradeCIDRs`.
fn ptp(ours: &Map<String, Value>) -> PluginConf {
    let mut json: Map<String, Value> = ours
        .iter()
        .filter(|(key, _)| PTP_KEYS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    json.insert("type".to_owned(), json!(Reference::Ptp.name()));
    if let Some(ipam) = json.get_mut("ipam").and_then(Value::as_object_mut)
        && !ipam.contains_key("routes")
    {
        ipam.insert("routes".to_owned(), default_routes(&pools(ipam)));
    }
    PluginConf { plugin_type: Reference::Ptp.name().to_owned(), json }
}

/// The keys that ours shares with the reference have one meaning; the backend is left to the reference's choice.
fn portmap(ours: &Map<String, Value>) -> PluginConf {
    let mut json = ours.clone();
    json.insert("type".to_owned(), json!(Reference::Portmap.name()));
    json.remove("backend");
    json.remove("reservedHostPorts");
    PluginConf { plugin_type: Reference::Portmap.name().to_owned(), json }
}

/// host-local has no `podCIDR`: each becomes a range set of its own, so that a pod gets an address of each.
fn host_local(plugin: &mut PluginConf) {
    let Some(ipam) = plugin.json.get_mut("ipam").and_then(Value::as_object_mut) else { return };
    let pools = pools(ipam);
    ipam.insert("type".to_owned(), json!(Reference::HostLocal.name()));
    ipam.remove("podCIDR");
    if !pools.is_empty() {
        ipam.insert("ranges".to_owned(), pools.iter().map(|pool| json!([{ "subnet": pool }])).collect());
    }
}

/// `podCIDR`, one or several.
fn pools(ipam: &Map<String, Value>) -> Vec<String> {
    match ipam.get("podCIDR") {
        Some(Value::String(pool)) => vec![pool.clone()],
        Some(Value::Array(pools)) => pools.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn default_routes(pools: &[String]) -> Value {
    let default = |pool: &String| json!({ "dst": if pool.contains(':') { "::/0" } else { "0.0.0.0/0" } });
    pools.iter().map(default).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shipped() -> Conflist {
        let text = include_bytes!("../conflists/10-podwire.conflist");
        Conflist::parse(Path::new("10-podwire.conflist"), text).unwrap()
    }

    #[test]
    fn each_is_replaced_by_an_equivalent() {
        let list = swap_all(shipped(), vec![Reference::Portmap, Reference::HostLocal, Reference::Ptp]);
        assert_eq!(
            list.json["plugins"],
            json!([
                {
                    "type": "ptp",
                    "ipMasq": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]],
                        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ])
        );
        assert_eq!(list.chain(), ["ptp (host-local)", "portmap"]);
    }

    #[test]
    fn one_alone_leaves_the_others() {
        let chain = |reference| swap_all(shipped(), vec![reference]).chain();
        assert_eq!(chain(Reference::Ptp), ["ptp (podwire-ipam)", "podwire-portmap"]);
        assert_eq!(chain(Reference::HostLocal), ["podwire (host-local)", "podwire-portmap"]);
        assert_eq!(chain(Reference::Portmap), ["podwire (podwire-ipam)", "portmap"]);
    }
}
