//! `ipam.routes`: handed on in the result as they are, once they are known to be routes.

use std::net::IpAddr;

use cni_spec::Route;
use ipnetwork::IpNetwork;

use super::problem::{InvalidKey, Problem};
use super::raw::RawRoute;
use crate::span::same_family;

pub(super) fn routes(raw: &[RawRoute]) -> Result<Vec<Route>, InvalidKey> {
    raw.iter().enumerate().map(|(index, raw)| route(&format!("ipam.routes[{index}]"), raw)).collect()
}

fn route(path: &str, raw: &RawRoute) -> Result<Route, InvalidKey> {
    let invalid = |key: &str, value: Option<&String>, problem| {
        Err(InvalidKey { path: format!("{path}.{key}"), value: value.cloned(), problem })
    };
    let Some(dst) = &raw.dst else { return invalid("dst", None, Problem::Missing) };
    let Some(network) = dst.contains('/').then(|| dst.parse::<IpNetwork>().ok()).flatten() else {
        return invalid("dst", Some(dst), Problem::NotASubnet);
    };
    let gw = match raw.gw.as_deref().map(str::parse::<IpAddr>) {
        None => None,
        Some(Err(_)) => return invalid("gw", raw.gw.as_ref(), Problem::NotAnAddress),
        Some(Ok(gw)) if !same_family(gw, network.ip()) => {
            return invalid("gw", raw.gw.as_ref(), Problem::Family(format!("dst {dst}")));
        }
        Some(Ok(gw)) => Some(gw),
    };
    Ok(Route {
        dst: network,
        gw,
        mtu: raw.mtu,
        advmss: raw.advmss,
        priority: raw.priority,
        table: raw.table,
        scope: raw.scope,
    })
}
