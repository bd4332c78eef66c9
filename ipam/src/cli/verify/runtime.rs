//! What the runtime's cache says: libcni writes the result of each ADD into a file, and removes it after DEL.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use data_encoding::BASE64;
use serde_json::Value;

use crate::runtime_cache;

/// The results of ADDs.
#[derive(Debug, Default)]
pub(in crate::cli) struct Cache {
    /// Whether there is a cache at all. An empty one witnesses nothing: the runtime may keep its own elsewhere.
    pub exists: bool,
    pub entries: Vec<Cached>,
    /// What cannot be understood, and why.
    pub garbage: Vec<(PathBuf, String)>,
}

/// The result of one ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Cached {
    pub path: PathBuf,
    pub attachment: Attachment,
    pub ips: Vec<IpAddr>,
    /// Whether the config it was made from names our IPAM plugin; none if the config is not there.
    pub ours: Option<bool>,
    /// Where the pod's network namespace was, in caches that say so.
    pub netns: Option<PathBuf>,
    /// The pod's namespace and name, from `cniArgs`.
    pub args: Vec<(String, String)>,
}

impl Cache {
    pub fn read(dirs: &[PathBuf]) -> Self {
        let mut cache = Self::default();
        for dir in dirs {
            let Ok(entries) = fs::read_dir(runtime_cache::results(dir)) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()) {
                cache.exists = true;
                match read(&path) {
                    Ok(Some(entry)) => cache.entries.push(entry),
                    Ok(None) => {}
                    Err(problem) => cache.garbage.push((path, problem)),
                }
            }
        }
        cache
    }

    pub fn of(&self, attachment: &Attachment) -> Option<&Cached> {
        self.entries.iter().find(|entry| entry.attachment == *attachment)
    }
}

/// None for a file of another kind, or of a version that does not say whose it is.
fn read(path: &Path) -> Result<Option<Cached>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if json["kind"] != "cniCacheV1" {
        return Ok(None);
    }
    let name = |key: &str| json[key].as_str().unwrap_or_default();
    let attachment = format!("{} {} {}", name("networkName"), name("containerId"), name("ifName"));
    let attachment: Attachment = attachment.parse().map_err(|_| format!("names no attachment: {attachment:?}"))?;
    Ok(Some(Cached {
        path: path.to_owned(),
        attachment,
        ips: ips(&json["result"]),
        ours: config(&json).map(|config| names_our_ipam(&config)),
        netns: json["netns"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from),
        args: args(&json["cniArgs"]),
    }))
}

/// The addresses of a result of any version: `ips`, or `ip4` and `ip6` before 0.3.0.
fn ips(result: &Value) -> Vec<IpAddr> {
    let new = result["ips"].as_array().into_iter().flatten().map(|ip| &ip["address"]);
    let old = ["ip4", "ip6"].into_iter().map(|family| &result[family]["ip"]);
    let texts = new.chain(old).filter_map(Value::as_str);
    texts.filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

/// The network config, which is there as base64.
fn config(json: &Value) -> Option<Value> {
    let bytes = BASE64.decode(json["config"].as_str()?.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn names_our_ipam(config: &Value) -> bool {
    let plugins = config["plugins"].as_array().map_or_else(|| vec![config], |plugins| plugins.iter().collect());
    plugins.iter().any(|plugin| plugin["ipam"]["type"] == "podwire-ipam")
}

fn args(json: &Value) -> Vec<(String, String)> {
    let pairs = json.as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()))).collect()
}
