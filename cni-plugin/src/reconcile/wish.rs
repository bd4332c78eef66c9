//! What an attachment was asked for: from what the runtime's libcni keeps of its ADD, which is the very config and all that
//! was said of the pod; where that is missing, from the network's config as it is now.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use cni_spec::error::with_causes;
use cni_spec::{Attachment, CniArgs, NetConf};
use data_encoding::BASE64;
use ipam::{Ledger, runtime_cache};
use nft_model::Family;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Config, OWN_IPAM};
use crate::{addresses, backend};

/// Where runtimes look for network configs, unless they are told otherwise.
pub const CONF_DIR: &str = "/etc/cni/net.d";

/// The endings that libcni reads.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// A file of `CACHE_DIR/results`, as far as it says what was asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// The config, in Base64.
    config: String,
    #[serde(default)]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default)]
    capability_args: Option<Map<String, Value>>,
}

/// What an attachment was asked for.
#[derive(Debug)]
pub struct Asked {
    /// The config, with what was wished for the pod.
    pub config: Config,
    /// Where its lease is, if its addresses are from our own IPAM.
    pub ledger: Option<Ledger>,
    /// Of which families its addresses are, as far as the config tells.
    pub families: Vec<Family>,
}

/// Where it is looked for.
#[derive(Debug)]
pub struct Sources {
    /// Each with a folder `results`.
    caches: Vec<PathBuf>,
    conf_dir: PathBuf,
    /// The configs in `conf_dir`, in the order in which a runtime takes the first of a name.
    configs: Vec<Map<String, Value>>,
    /// The names that this plugin may have in a config.
    types: Vec<String>,
}

impl Sources {
    /// Reads the folder of configs. Files that are none are passed over, as a runtime does.
    #[must_use]
    pub fn read(conf_dir: &Path, cache_dirs: &[PathBuf]) -> Self {
        let entries = fs::read_dir(conf_dir).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|it| ENDINGS.iter().any(|ending| it == *ending)));
        paths.sort();
        let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
        let installed_as = std::env::current_exe().ok();
        let installed_as = installed_as.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
        let types = ["podwire"].into_iter().chain(installed_as).map(str::to_owned).collect();
        let configs = paths.iter().filter_map(read).collect();
        let caches = cache_dirs.iter().map(|dir| runtime_cache::results(dir)).collect();
        Self { caches, conf_dir: conf_dir.to_owned(), configs, types }
    }

    /// What an attachment was asked for, or why that is not known.
    ///
    /// # Errors
    /// Where it was looked for, and what is there instead.
    pub fn of(&self, attachment: &Attachment) -> Result<Asked, String> {
        let mut unusable = Vec::new();
        for cache in &self.caches {
            match self.kept(cache, attachment) {
                Ok(Some(asked)) => return Ok(asked),
                Ok(None) => {}
                Err(why) => unusable.push(why),
            }
        }
        let kept = if unusable.is_empty() {
            let caches: Vec<String> = self.caches.iter().map(|cache| cache.display().to_string()).collect();
            format!("nothing of it is in {}", caches.join(" or "))
        } else {
            unusable.join("; ")
        };
        let network = attachment.network.as_str();
        let configs = self.configs.iter().filter(|config| config.get("name").and_then(Value::as_str) == Some(network));
        let mut requests = configs.filter_map(|config| self.request(config.clone(), &Map::new()));
        match requests.next() {
            Some(request) => parsed(&request, "").map_err(|why| format!("{kept}; {}: {why}", self.conf_dir.display())),
            None => Err(format!("{kept}, and no network {network:?} of podwire is in {}", self.conf_dir.display())),
        }
    }

    fn kept(&self, cache: &Path, attachment: &Attachment) -> Result<Option<Asked>, String> {
        let Attachment { network, container_id, ifname } = attachment;
        let path = cache.join(format!("{network}-{container_id}-{ifname}"));
        let at = |why: String| format!("{}: {why}", path.display());
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| at(error.to_string()))?,
        };
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| at(error.to_string()))?;
        let config = BASE64.decode(kept.config.as_bytes()).map_err(|error| at(format!("config: {error}")))?;
        let config = serde_json::from_slice(&config).map_err(|error| at(format!("config: {error}")))?;
        let request = self.request(config, &kept.capability_args.unwrap_or_default());
        let request = request.ok_or_else(|| at("has no plugin podwire".to_owned()))?;
        let pairs = kept.cni_args.unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}"));
        parsed(&request, &pairs.collect::<Vec<_>>().join(";")).map(Some).map_err(at)
    }

    /// This plugin's request config, of a list or of the one plugin of an old config (spec section 3, "Deriving request
    /// configuration from plugin configuration").
    fn request(&self, mut config: Map<String, Value>, capabilities: &Map<String, Value>) -> Option<Value> {
        let mut plugin = match config.remove("plugins") {
            Some(Value::Array(plugins)) => plugins.into_iter().find(|plugin| self.is_ours(plugin))?,
            _ => Some(Value::Object(config.clone())).filter(|plugin| self.is_ours(plugin))?,
        };
        for key in ["name", "cniVersion"] {
            plugin[key] = config.remove(key).unwrap_or_default();
        }
        let is_wanted = |name: &String| plugin["capabilities"][name.as_str()] == Value::Bool(true);
        let runtime = capabilities.iter().filter(|(name, _)| is_wanted(name));
        let runtime: Map<String, Value> = runtime.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !runtime.is_empty() {
            plugin["runtimeConfig"] = Value::Object(runtime);
        }
        Some(plugin)
    }

    fn is_ours(&self, plugin: &Value) -> bool {
        plugin["type"].as_str().is_some_and(|name| self.types.iter().any(|one| one == name))
    }
}

fn parsed(request: &Value, args: &str) -> Result<Asked, String> {
    let conf = NetConf::from_bytes(request.to_string().into_bytes()).map_err(|error| with_causes(&error))?;
    let args: CniArgs = args.parse().map_err(|error| with_causes(&error))?;
    let config = Config::for_pod(&conf, &args).map_err(|error| with_causes(&error))?;
    let config = backend::settle(config).map_err(|error| with_causes(&error))?;
    let is_own = config.ipam_type.as_deref() == Some(OWN_IPAM);
    let ledger = if is_own { Ledger::for_release(&conf).ok() } else { None };
    let families =
        config.ipam_type.as_deref().map(|ipam_type| addresses::families(ipam_type, &conf)).unwrap_or_default();
    Ok(Asked { config, ledger, families })
}
