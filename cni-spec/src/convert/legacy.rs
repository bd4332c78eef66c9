//! The results of 0.1.0 and 0.2.0: `ip4` and `ip6`, one address each with the routes of its family.

use serde_json::Value;

use super::ResultError;
use super::read;
use super::write::{Object, write_dns, write_route};
use crate::json::{Located, Malformed};
use crate::{CniResult, IpConfig, SpecVersion};

/// Reads `ip4` and `ip6` into one address each. There are no interfaces to read.
pub(super) fn read(json: &Located<'_>) -> Result<CniResult, Malformed> {
    let mut result = CniResult { dns: read::dns(json)?, ..CniResult::default() };
    for (key, is_ipv4) in [("ip4", true), ("ip6", false)] {
        let Some(family) = json.key(key) else { continue };
        let family = family.object()?;
        let ip = family.key("ip").ok_or_else(|| family.missing("ip"))?;
        let address = read::network(&ip)?;
        if address.is_ipv4() != is_ipv4 {
            return Err(ip.malformed(format!("is of the other family than {key}")));
        }
        result.ips.push(IpConfig { address, gateway: read::address(&family, "gateway")?, interface: None });
        result.routes.extend(read::list(&family, "routes", read::route)?);
    }
    Ok(result)
}

/// Writes the first address of each family. Interfaces, further addresses and the routes of a family
/// without an address have no place in this shape.
pub(super) fn write(result: &CniResult, version: SpecVersion) -> Result<Value, ResultError> {
    let (ip4, ip6) = (family(result, version, true), family(result, version, false));
    if ip4.is_none() && ip6.is_none() {
        return Err(ResultError::NoAddress(version));
    }
    let mut object = Object::default();
    object.set("cniVersion", Some(version.as_str()));
    object.set("ip4", ip4);
    object.set("ip6", ip6);
    object.set("dns", Some(write_dns(&result.dns)));
    Ok(object.into())
}

fn family(result: &CniResult, version: SpecVersion, is_ipv4: bool) -> Option<Value> {
    let ip = result.ips.iter().find(|ip| ip.address.is_ipv4() == is_ipv4)?;
    let routes = result.routes.iter().filter(|route| route.dst.is_ipv4() == is_ipv4);
    let mut object = Object::default();
    object.set("ip", Some(ip.address.to_string()));
    object.set("gateway", ip.gateway.map(|gateway| gateway.to_string()));
    object.list("routes", routes.map(|route| write_route(route, version)));
    Some(object.into())
}
