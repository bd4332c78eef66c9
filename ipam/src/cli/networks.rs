//! The networks that are configured on this node, from the files that runtimes read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cni_spec::{NetConf, NetworkName};
use serde_json::{Map, Value};

use super::exit::with_causes;
use crate::Ledger;
use crate::config::Config;
use crate::operation::{KnownPool, Terms};

/// Where runtimes look for network configs, unless they are told otherwise.
pub(super) const CONF_DIR: &str = "/etc/cni/net.d";

/// The endings that libcni reads.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// The networks in a folder that one IPAM plugin serves.
#[derive(Debug, Default)]
pub(super) struct Configured {
    pub networks: Vec<Network>,
    /// The ledgers that these configs name, also of those whose pools cannot be understood.
    pub ledgers: Vec<Ledger>,
    /// What cannot be read, and why.
    pub problems: Vec<(PathBuf, String)>,
    /// Those of them that may name any ledger.
    pub unread: Vec<PathBuf>,
}

/// A network, and the ledger that it leases from.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub terms: Terms,
    pub ledger: Ledger,
}

impl Configured {
    /// Those of `podwire-ipam`.
    pub fn ours(folder: &Path) -> Self {
        Self::of(folder, "podwire-ipam")
    }

    /// Those of an IPAM plugin whose config has the keys of ours. A missing folder has none.
    pub fn of(folder: &Path, ipam_type: &str) -> Self {
        let mut found = Self::default();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
            Err(error) => {
                found.problems.push((folder.to_owned(), error.to_string()));
                found.unread.push(folder.to_owned());
                return found;
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|it| ENDINGS.iter().any(|ending| it == *ending)));
        paths.sort();
        for path in paths {
            let before = found.ledgers.len();
            if let Err(problem) = found.take(&path, ipam_type) {
                if found.ledgers.len() == before {
                    found.unread.push(path.clone());
                }
                found.problems.push((path, problem));
            }
        }
        found
    }

    fn take(&mut self, path: &Path, ipam_type: &str) -> Result<(), String> {
        let text = fs::read(path).map_err(|error| error.to_string())?;
        let conf: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        for plugin in plugins(conf) {
            if plugin.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str) == Some(ipam_type) {
                let conf = NetConf::from_bytes(Value::Object(plugin).to_string().into_bytes());
                let conf = conf.map_err(|error| with_causes(&error))?;
                let ledger = Ledger::from_config(&conf).map_err(|error| with_causes(&error))?;
                self.ledgers.push(ledger.clone());
                let config = Config::from_net_conf(&conf).map_err(|error| with_causes(&error))?;
                self.networks.push(Network { terms: config.all(), ledger });
            }
        }
        Ok(())
    }

    pub fn serves(&self, network: &NetworkName) -> bool {
        self.networks.iter().any(|it| it.terms.network == *network)
    }

    /// The network's pools, as the ledger keeps them.
    pub fn pools(&self) -> impl Iterator<Item = KnownPool> {
        self.networks.iter().flat_map(|Network { terms, .. }| {
            terms.pools.iter().map(|pool| KnownPool {
                network: terms.network.clone(),
                name: pool.key().0,
                pool: pool.clone(),
                cooldown_ms: terms.cooldown,
                strict: terms.strict,
            })
        })
    }
}

/// The plugins of a list, with the list's name and version (spec section 3, "Deriving request configuration from
/// plugin configuration"), or the one plugin of an old config.
fn plugins(mut conf: Map<String, Value>) -> Vec<Map<String, Value>> {
    let Some(Value::Array(plugins)) = conf.remove("plugins") else { return vec![conf] };
    let objects = plugins.into_iter().filter_map(|plugin| match plugin {
        Value::Object(plugin) => Some(plugin),
        _ => None,
    });
    let shared: Vec<(String, Value)> =
        conf.into_iter().filter(|(key, _)| key == "name" || key == "cniVersion").collect();
    objects.map(|plugin| plugin.into_iter().chain(shared.clone()).collect()).collect()
}
