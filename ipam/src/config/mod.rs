//! The network config: raw -> valid. Allocation and ledger see the valid one only.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_spec::{CniArgs, Dns, NetConf, Route, SpecVersion};

use crate::Error;
use crate::operation::Terms;
use crate::pool::Pool;

mod pools;
mod problem;
mod raw;
mod requested;
mod reserved;
mod resolv;
mod routes;

pub use problem::{InvalidKey, Problem};

/// How long a released address rests before it is given again, unless there is no other, in
/// milliseconds.
const COOLDOWN: u64 = 30_000;

/// Everything about a network that an ADD needs.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub terms: Terms,
    pub routes: Vec<Route>,
    pub dns: Dns,
    wanted: Vec<IpAddr>,
}

impl Config {
    pub fn from_net_conf(config: &NetConf) -> Result<Self, Error> {
        let raw = raw::RawNetConf::read(config).map_err(Error::ConfigShape)?;
        let ipam = &raw.ipam;
        let pools = pools::pools(&raw).map_err(Error::Config)?;
        fits_version(&pools, config.cni_version).map_err(Error::Config)?;
        let cooldown = ipam.cooldown_seconds.map_or(COOLDOWN, |seconds| u64::from(seconds).saturating_mul(1000));
        let routes = routes::routes(ipam.routes.as_deref().unwrap_or_default()).map_err(Error::Config)?;
        let dns = ipam.resolv_conf.as_ref().filter(|path| !path.is_empty()).map(|path| read_resolv_conf(path));
        let dns = dns.transpose()?.unwrap_or_default();
        let wanted = requested::of_config(config)?;
        let terms = Terms { network: config.name.clone(), pools, cooldown };
        Ok(Self { terms, routes, dns, wanted })
    }

    /// The address that each pool is asked for, in the pools' order.
    pub fn requested(&self, args: &CniArgs) -> Result<Vec<Option<IpAddr>>, Error> {
        if self.wanted.is_empty() {
            let wanted = requested::of_args(args)?;
            return requested::assign(&self.terms.pools, wanted.as_slice());
        }
        requested::assign(&self.terms.pools, &self.wanted)
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
