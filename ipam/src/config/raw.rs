//! The config as it stands in JSON: serde only. host-local's keys keep their names and meaning.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawNetConf {
    pub ipam: Option<RawIpam>,
    pub runtime_config: Option<RawRuntimeConfig>,
}

/// Capabilities. containerd spells them as its Go fields.
#[derive(Debug, Deserialize)]
pub(super) struct RawRuntimeConfig {
    #[serde(rename = "ipRanges", alias = "IPRanges", alias = "IpRanges", alias = "ipranges")]
    pub ip_ranges: Option<Vec<Vec<RawRange>>>,
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
    pub exclude: Option<Vec<String>>,
    pub routes: Option<Vec<RawRoute>>,
    pub resolv_conf: Option<String>,
    pub cooldown_seconds: Option<u32>,
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
    pub lock_timeout_seconds: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawPlaceConf {
    pub ipam: Option<RawPlace>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRange {
    #[serde(alias = "Subnet")]
    pub subnet: Option<String>,
    #[serde(alias = "RangeStart")]
    pub range_start: Option<String>,
    #[serde(alias = "RangeEnd")]
    pub range_end: Option<String>,
    #[serde(alias = "Gateway")]
    pub gateway: Option<String>,
}

#[derive(Debug, Deserialize)]
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
