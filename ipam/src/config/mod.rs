//! The network config: raw -> valid. Allocation and ledger see the valid one only.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_spec::{CniArgs, Dns, NetConf, NetworkName, Route, SpecVersion};
use serde_json::Value;

use crate::Error;
use crate::operation::Terms;
use crate::pool::Pool;

mod annotations;
mod pools;
mod problem;
mod raw;
mod requested;
mod reserved;
mod resolv;
mod routes;
mod subnet_file;

use annotations::Wishes;
use pools::Pools;
pub use problem::{InvalidKey, Problem};
use raw::OneOrMany;
pub(crate) use subnet_file::may_come;

/// How long a released address rests before it is given again, unless there is no other, in
/// milliseconds.
pub(crate) const COOLDOWN: u64 = 30_000;

/// Everything about a network that an ADD needs.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    network: NetworkName,
    pools: Pools,
    cooldown: u64,
    strict: bool,
    sticky: bool,
    pub routes: Vec<Route>,
    pub dns: Dns,
    wanted: Vec<IpAddr>,
    annotations: Wishes,
}

impl Config {
    pub fn from_net_conf(config: &NetConf) -> Result<Self, Error> {
        let raw = raw::RawNetConf::read(config).map_err(Error::ConfigShape)?;
        let ipam = &raw.ipam;
        let from_file = ipam.subnet_file.as_deref().filter(|path| !path.is_empty()).map(subnet_file::read);
        let from_file = from_file.transpose()?.map(OneOrMany::Many);
        let pools = pools::pools(&raw, from_file.as_ref()).map_err(Error::Config)?;
        fits_version(&pools.general, config.cni_version).map_err(Error::Config)?;
        let cooldown = ipam.cooldown_seconds.map_or(COOLDOWN, |seconds| u64::from(seconds).saturating_mul(1000));
        let routes = routes::routes(ipam.routes.as_deref().unwrap_or_default()).map_err(Error::Config)?;
        let dns = ipam.resolv_conf.as_ref().filter(|path| !path.is_empty()).map(|path| read_resolv_conf(path));
        let dns = dns.transpose()?.unwrap_or_default();
        let wanted = requested::of_config(config)?;
        let annotations = Wishes::of(config)?;
        let sticky = annotations.sticky.or(ipam.sticky).unwrap_or(false);
        let (network, strict) = (config.name.clone(), ipam.strict.unwrap_or(false));
        Ok(Self { network, pools, cooldown, strict, sticky, routes, dns, wanted, annotations })
    }

    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// What a pod of this namespace gets a lease from; none for one that has no namespace.
    pub fn terms(&self, namespace: Option<&str>) -> Terms {
        let (network, pools) = (self.network.clone(), self.pools.of(namespace));
        Terms { network, pools, cooldown: self.cooldown, strict: self.strict }
    }

    /// Everything that the network leases from, whoever the pod is.
    pub fn all(&self) -> Terms {
        let of_namespaces = self.pools.of_namespaces.values().flatten();
        let pools = self.pools.general.iter().chain(of_namespaces).cloned().collect();
        Terms { pools, ..self.terms(None) }
    }

    /// Whether a pod is to get the addresses that it had before.
    pub fn is_sticky(&self) -> bool {
        self.sticky
    }

    /// The address that each pool is asked for, in the pools' order: by the config, else by the pod's annotations,
    /// else by `CNI_ARGS`.
    pub fn requested(&self, pools: &[Pool], args: &CniArgs) -> Result<Vec<Option<IpAddr>>, Error> {
        let by_config = [&self.wanted, &self.annotations.ips].into_iter().find(|wanted| !wanted.is_empty());
        match by_config {
            Some(wanted) => requested::assign(pools, wanted),
            None => requested::assign(pools, requested::of_args(args)?.as_slice()),
        }
    }
}

/// Where the ledger is and how long to wait for it: all that DEL needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub dir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub lock_timeout: Option<Duration>,
}

impl Place {
    pub fn from_net_conf(config: &NetConf) -> Result<Self, Error> {
        let raw: raw::RawPlaceConf = config.parse().map_err(Error::ConfigShape)?;
        let raw = raw.ipam.unwrap_or_default();
        let dir = folder("ipam.dataDir", raw.data_dir)?;
        let state_dir = folder("ipam.stateDir", raw.state_dir)?;
        let lock_timeout = raw.lock_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Self { dir, state_dir, lock_timeout })
    }

    /// For DEL: what it can do without counts as not given if it cannot be used.
    pub fn of_release(config: &NetConf) -> Result<Self, Error> {
        let raw: raw::RawFolderConf = config.parse().map_err(Error::ConfigShape)?;
        let raw = raw.ipam.unwrap_or_default();
        let dir = folder("ipam.dataDir", raw.data_dir)?;
        let state_dir = raw.state_dir.as_ref().and_then(Value::as_str).map(str::to_owned);
        let state_dir = folder("ipam.stateDir", state_dir).unwrap_or_default();
        let seconds = raw.lock_timeout_seconds.as_ref().and_then(Value::as_u64);
        let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        Ok(Self { dir, state_dir, lock_timeout: seconds.map(|seconds| Duration::from_secs(seconds.into())) })
    }
}

fn folder(key: &str, path: Option<String>) -> Result<Option<PathBuf>, Error> {
    let dir = path.filter(|dir| !dir.is_empty()).map(PathBuf::from);
    match &dir {
        Some(relative) if !relative.is_absolute() => {
            let (path, value) = (key.to_owned(), Some(relative.display().to_string()));
            Err(Error::Config(InvalidKey { path, value, problem: Problem::NotAbsolute }))
        }
        _ => Ok(dir),
    }
}

/// Results before 0.3.0 carry `ip4` and `ip6`.
fn fits_version(pools: &[Pool], version: SpecVersion) -> Result<(), InvalidKey> {
    let of_v4 = pools.iter().filter(|pool| pool.is_ipv4()).count();
    if version >= SpecVersion::V0_3_0 || (of_v4 <= 1 && pools.len() - of_v4 <= 1) {
        return Ok(());
    }
    Err(InvalidKey { path: "ipam".to_owned(), value: None, problem: Problem::TooMany(version) })
}

fn read_resolv_conf(path: &str) -> Result<Dns, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(resolv::parse(&text)),
        Err(source) => Err(Error::ResolvConf { path: path.into(), source }),
    }
}
