//! Addresses that are asked for, and the pools that they belong to.

use std::net::IpAddr;

use cni_spec::{CniArgs, NetConf};

use super::problem::{InvalidKey, Problem};
use crate::Error;
use crate::pool::Pool;
use crate::refusal::Outside;

/// What runtime and config ask for: `runtimeConfig.ips` and `args.cni.ips`, each address once. Both may carry
/// a prefix length, which is ignored: the pool's counts.
pub(super) fn of_config(config: &NetConf) -> Result<Vec<IpAddr>, Error> {
    let sources = [
        ("runtimeConfig.ips", config.runtime_config.ips().map_err(Error::ConfigShape)?),
        ("args.cni.ips", config.args_ips().map_err(Error::ConfigShape)?),
    ];
    let mut wanted = Vec::new();
    for (path, texts) in sources {
        for (index, text) in texts.iter().enumerate() {
            let Some(address) = address(text) else {
                let (path, value) = (format!("{path}[{index}]"), Some(text.clone()));
                return Err(Error::Config(InvalidKey { path, value, problem: Problem::NotAnAddress }));
            };
            if !wanted.contains(&address) {
                wanted.push(address);
            }
        }
    }
    Ok(wanted)
}

/// `IP` of `CNI_ARGS`, which counts only where the config asks for nothing (CONVENTIONS.md, "CNI_ARGS").
pub(super) fn of_args(args: &CniArgs) -> Result<Option<IpAddr>, Error> {
    match args.get("IP").filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => address(text).map(Some).ok_or_else(|| Error::CniArgsIp { value: text.to_owned() }),
    }
}

/// The address that each pool is to give; none where any will do.
pub(super) fn assign(pools: &[Pool], wanted: &[IpAddr]) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut assigned = vec![None; pools.len()];
    for address in wanted {
        let position = |fits: fn(&Pool, IpAddr) -> bool| pools.iter().position(|pool| fits(pool, *address));
        // Two pools may be parts of one subnet: the one that would give the address by itself comes first.
        let index = position(Pool::leases).or_else(|| position(Pool::gives));
        let place = index.and_then(|index| pools.get(index).zip(assigned.get_mut(index)));
        let Some((pool, slot)) = place else {
            return Err(Error::Outside(Outside::new(*address, pools)));
        };
        if let Some(first) = slot.replace(*address) {
            let (path, value) = ("requested address".to_owned(), Some(format!("{first}, {address}")));
            return Err(Error::Config(InvalidKey { path, value, problem: Problem::SecondOfPool(pool.to_string()) }));
        }
    }
    Ok(assigned)
}

pub(super) fn address(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix {
        None => Some(address),
        Some(prefix) => prefix.parse::<u8>().ok().filter(|prefix| *prefix <= longest).map(|_| address),
    }
}
