//! The config as it stands in JSON: serde only. host-local's keys keep their names and meaning.

use std::collections::BTreeMap;

use cni_spec::{CniError, NetConf};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct RawNetConf {
    pub ipam: RawIpam,
    /// `runtimeConfig.ipRanges`.
    pub runtime_ranges: Vec<Vec<RawRange>>,
}

impl RawNetConf {
    pub fn read(config: &NetConf) -> Result<Self, CniError> {
        let conf: RawIpamConf = config.parse()?;
        let runtime_ranges = match config.runtime_config.get(IP_RANGES) {
            None => Vec::new(),
            Some(ranges) => {
                let mut ranges = ranges.clone();
                respell(&mut ranges);
                let json = json!({ "runtimeConfig": { IP_RANGES: ranges } });
                let conf: RawRuntimeConf = NetConf { json, ..config.clone() }.parse()?;
                conf.runtime_config.ip_ranges
            }
        };
        Ok(Self { ipam: conf.ipam.unwrap_or_default(), runtime_ranges })
    }
}

const IP_RANGES: &str = "ipRanges";
const RANGE_KEYS: [&str; 4] = ["subnet", "rangeStart", "rangeEnd", "gateway"];

/// Spells the keys of ranges as [`RawRange`] does. Runtimes spell them as they like, since the decoder of the
/// reference plugins does not mind; containerd writes the names of its Go fields.
fn respell(ranges: &mut Value) {
    match ranges {
        Value::Array(items) => items.iter_mut().for_each(respell),
        Value::Object(range) => {
            let spelled = |key: String| {
                let known = RANGE_KEYS.into_iter().find(|known| known.eq_ignore_ascii_case(&key));
                known.map_or(key, str::to_owned)
            };
            *range = std::mem::take(range).into_iter().map(|(key, value)| (spelled(key), value)).collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[derive(Debug, Deserialize)]
struct RawIpamConf {
    ipam: Option<RawIpam>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRuntimeConf {
    runtime_config: RawRuntimeConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRuntimeConfig {
    ip_ranges: Vec<Vec<RawRange>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawIpam {
    pub ranges: Option<Vec<Vec<RawRange>>>,
    pub subnet: Option<String>,
    pub range_start: Option<String>,
    pub range_end: Option<String>,
    pub gateway: Option<String>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<OneOrMany>,
    pub subnet_file: Option<String>,
    pub namespace_pools: Option<BTreeMap<String, OneOrMany>>,
    pub exclude: Option<Vec<String>>,
    pub routes: Option<Vec<RawRoute>>,
    pub resolv_conf: Option<String>,
    pub cooldown_seconds: Option<u32>,
    pub strict: Option<bool>,
    pub sticky: Option<bool>,
}

impl RawIpam {
    /// host-local's oldest spelling: one range without a list around it.
    pub fn flat_range(&self) -> Option<RawRange> {
        let given = [&self.subnet, &self.range_start, &self.range_end, &self.gateway];
        given.into_iter().any(Option::is_some).then(|| RawRange {
            subnet: self.subnet.clone(),
            range_start: self.range_start.clone(),
            range_end: self.range_end.clone(),
            gateway: self.gateway.clone(),
        })
    }
}

/// What says where the ledger is. Read apart from the rest: DEL needs no valid pools.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawPlace {
    pub data_dir: Option<String>,
    pub state_dir: Option<String>,
    pub lock_timeout_seconds: Option<u32>,
}

/// The same for DEL, which needs only the folder, and must not fail for the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawFolder {
    pub data_dir: Option<String>,
    pub state_dir: Option<Value>,
    pub lock_timeout_seconds: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawFolderConf {
    pub ipam: Option<RawFolder>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawPlaceConf {
    pub ipam: Option<RawPlace>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with subnet")]
pub(super) struct RawRange {
    pub subnet: Option<String>,
    pub range_start: Option<String>,
    pub range_end: Option<String>,
    pub gateway: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with dst")]
pub(super) struct RawRoute {
    pub dst: Option<String>,
    pub gw: Option<String>,
    pub mtu: Option<u32>,
    pub advmss: Option<u32>,
    pub priority: Option<u32>,
    pub table: Option<u32>,
    pub scope: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a subnet in CIDR notation or a list of them")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}
