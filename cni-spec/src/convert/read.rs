//! Reading results from 0.3.0 on.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::json::{Located, Malformed};
use crate::{CniResult, Dns, Interface, IpConfig, Route};

/// `ips[].version` is not looked at: the address says it better.
pub(super) fn read(json: &Located<'_>) -> Result<CniResult, Malformed> {
    Ok(CniResult {
        interfaces: list(json, "interfaces", interface)?,
        ips: list(json, "ips", ip_config)?,
        routes: list(json, "routes", route)?,
        dns: dns(json)?,
    })
}

/// The elements of a list of objects; none if the key is missing.
pub(super) fn list<T>(
    json: &Located<'_>,
    key: &str,
    read: impl Fn(&Located<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let Some(list) = json.key(key) else { return Ok(Vec::new()) };
    list.items()?.into_iter().map(|item| read(&item.object()?)).collect()
}

/// `routes[]`.
pub(super) fn route(json: &Located<'_>) -> Result<Route, Malformed> {
    Ok(Route {
        dst: network(&json.key("dst").ok_or_else(|| json.missing("dst"))?)?,
        gw: address(json, "gw")?,
        mtu: integer(json, "mtu")?,
        advmss: integer(json, "advmss")?,
        priority: integer(json, "priority")?,
        table: integer(json, "table")?,
        scope: integer(json, "scope")?,
    })
}

/// `dns`; the same in every version.
pub(super) fn dns(json: &Located<'_>) -> Result<Dns, Malformed> {
    let Some(dns) = json.key("dns") else { return Ok(Dns::default()) };
    let dns = dns.object()?;
    let texts = |key| dns.key(key).map_or_else(|| Ok(Vec::new()), |list| list.texts());
    Ok(Dns {
        nameservers: texts("nameservers")?,
        domain: text(&dns, "domain")?,
        search: texts("search")?,
        options: texts("options")?,
    })
}

/// An address with its prefix length, host bits kept. The prefix length must be there: without it the
/// spec's readers disagree about what is meant.
pub(super) fn network(json: &Located<'_>) -> Result<IpNetwork, Malformed> {
    let bad = || json.malformed("is not an address with a prefix length, such as 10.1.2.3/24");
    let (address, prefix) = json.text()?.split_once('/').ok_or_else(bad)?;
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let address = address.parse().map_err(|_| bad())?;
    IpNetwork::new(address, prefix.parse().map_err(|_| bad())?).map_err(|_| bad())
}

/// An address; missing and "" are none.
pub(super) fn address(json: &Located<'_>, key: &str) -> Result<Option<IpAddr>, Malformed> {
    let Some(value) = json.key(key) else { return Ok(None) };
    match value.text()? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| value.malformed("is not an IP address")),
    }
}

fn interface(json: &Located<'_>) -> Result<Interface, Malformed> {
    Ok(Interface {
        name: text(json, "name")?.unwrap_or_default(),
        mac: text(json, "mac")?,
        mtu: integer(json, "mtu")?,
        sandbox: text(json, "sandbox")?,
        socket_path: text(json, "socketPath")?,
        pci_id: text(json, "pciID")?,
    })
}

fn ip_config(json: &Located<'_>) -> Result<IpConfig, Malformed> {
    Ok(IpConfig {
        address: network(&json.key("address").ok_or_else(|| json.missing("address"))?)?,
        gateway: address(json, "gateway")?,
        interface: integer(json, "interface")?,
    })
}

/// A text; missing and "" are none: that is how the reference's types print what is not set.
fn text(json: &Located<'_>, key: &str) -> Result<Option<String>, Malformed> {
    let text = json.key(key).map(|value| value.text()).transpose()?;
    Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
}

fn integer<T: TryFrom<i64>>(json: &Located<'_>, key: &str) -> Result<Option<T>, Malformed> {
    json.key(key).map(|value| value.integer()).transpose()
}
