//! The result of ADD in every spec version.

use serde_json::Value;

use super::{ANY, CALLED, IPAM, cases};
use crate::host::Host;
use crate::host::shape::{at_least, bare, family, list, text};
use crate::target::Kind;
use crate::verdict::{Verdict, ensure, fail, skip};

cases! { "results":
    "ADD-7" since "0.3.0" in "5, ADD Success" for ANY => version_is_the_configs,
        "The result has the config's version",
        "cniVersion: The same version supplied on input.",
        "ADD in every version of the plugin; the result's cniVersion must be that version.";
    "RES-1" since "0.1.0" in "0.1.0, Result" for ANY => |host| shape(host, "0.1.0"),
        "The result of 0.1.0 has that version's shape",
        "Success: { cniVersion, ip4: { ip, gateway, routes }, ip6: { ip, gateway, routes }, dns }.",
        "ADD with a config of 0.1.0; ip4 or ip6 with a CIDR, routes with dst, and neither ips nor interfaces.";
    "RES-2" since "0.1.0" in "0.2.0, Result" for ANY => |host| shape(host, "0.2.0"),
        "The result of 0.2.0 has that version's shape",
        "Success: { cniVersion, ip4: { ip, gateway, routes }, ip6: { ip, gateway, routes }, dns }.",
        "ADD with a config of 0.2.0; ip4 or ip6 with a CIDR, routes with dst, and neither ips nor interfaces.";
    "RES-3" since "0.3.0" in "0.3.0, Result" for ANY => |host| shape(host, "0.3.0"),
        "The result of 0.3.0 has that version's shape",
        "Success: { cniVersion, interfaces, ips: [{ version, address, gateway, interface }], routes, dns }.",
        "ADD with a config of 0.3.0; every entry of ips must have the version \"4\" or \"6\" that fits its address.";
    "RES-4" since "0.3.0" in "0.3.1, Result" for ANY => |host| shape(host, "0.3.1"),
        "The result of 0.3.1 has that version's shape",
        "Success: { cniVersion, interfaces, ips: [{ version, address, gateway, interface }], routes, dns }.",
        "ADD with a config of 0.3.1; every entry of ips must have the version \"4\" or \"6\" that fits its address.";
    "RES-5" since "0.4.0" in "0.4.0, Result" for ANY => |host| shape(host, "0.4.0"),
        "The result of 0.4.0 has that version's shape",
        "Success: { cniVersion, interfaces, ips: [{ version, address, gateway, interface }], routes, dns }.",
        "ADD with a config of 0.4.0; every entry of ips must have the version \"4\" or \"6\" that fits its address.";
    "RES-6" since "1.0.0" in "5, ADD Success" for ANY => |host| shape(host, "1.0.0"),
        "The result of 1.0.0 has that version's shape",
        "ips: address, gateway, interface. (1.0.0 took ips[].version away.)",
        "ADD with a config of 1.0.0; ips without version, and nothing that 1.1.0 brought.";
    "RES-7" since "1.1.0" in "5, ADD Success" for ANY => |host| shape(host, "1.1.0"),
        "The result of 1.1.0 has that version's shape",
        "interfaces: name, mac, mtu, sandbox, socketPath, pciID; routes: dst, gw, mtu, advmss, priority, table, scope.",
        "ADD with a config of 1.1.0; every field that is there must have its type.";
    "RES-8" since "0.3.0" in "5, ADD Success" for ANY => addresses_are_cidrs,
        "Addresses are in CIDR notation",
        "address: an IP address in CIDR notation.",
        "ADD; every address must parse, with a prefix length that its family allows.";
    "RES-9" since "0.3.0" in "5, ADD Success" for ANY => gateways_fit,
        "Gateways are addresses of the same family",
        "gateway: the default gateway for this subnet, if one exists.",
        "ADD; every gateway must parse and have the family of its address.";
    "RES-10" since "0.3.0" in "5, ADD Success" for ANY => routes_are_cidrs,
        "Routes have a destination in CIDR notation, and a next hop of the same family",
        "dst: The destination of the route, in CIDR notation. gw: The next hop address.",
        "ADD; every dst must parse without host bits, every gw that is there must have its family.";
    "RES-11" since "0.3.0" in "5, ADD Success" for CALLED => macs_are_macs,
        "Hardware addresses are six pairs of hexadecimal digits",
        "mac: The hardware address of the interface (if applicable).",
        "ADD; every mac that is there must have that form.";
    "RES-12" since "0.3.0" in "5, ADD Success" for CALLED => indexes_fit,
        "`interface` is an index into the list of interfaces",
        "interface: the index into the interfaces list for a CNI Plugin Result indicating which interface this IP configuration should be applied to.",
        "ADD; every index must be in range, and lead to an interface with a sandbox.";
    "RES-13" since "0.3.0" in "5, ADD Success" for ANY => dns_has_its_types,
        "dns has lists of texts",
        "dns: nameservers, domain, search, options.",
        "ADD; nameservers, search and options must be lists of strings, domain a string, where they are there.";
    "IPAM-4a" since "0.3.0" in "5, Delegated plugins (IPAM)" for IPAM => no_interfaces,
        "An IPAM result has no interfaces",
        "Delegated IPAM plugins must return an abbreviated Success object. Specifically, it is missing the interfaces array.",
        "ADD in every version of the plugin; the result must not have the key interfaces.";
    "IPAM-4b" since "0.3.0" in "5, Delegated plugins (IPAM)" for IPAM => no_interface_index,
        "The ips of an IPAM result have no interface",
        "Delegated IPAM plugins must return an abbreviated Success object. Specifically, it is missing the interface entry in ips.",
        "ADD in every version of the plugin; no entry of ips must have the key interface.";
}

fn result_in(host: &Host, version: &str) -> Verdict<Value> {
    let pod = host.pod()?;
    host.call_for("ADD", &pod).version(version).run()?.result().map_err(|finding| finding.during(version))
}

fn newest(host: &Host) -> Verdict<Value> {
    host.attach(&host.pod()?)
}

fn version_is_the_configs(host: &Host) -> Verdict {
    for version in &host.profile.versions {
        let result = result_in(host, version)?;
        let said = result.get("cniVersion").and_then(Value::as_str);
        // Delegated plugins may omit what is irrelevant: the upper plugin knows the version.
        let omitted = said.is_none() && host.target.kind == Kind::Ipam;
        ensure!(said == Some(version) || omitted, "the result to a config of {version} has cniVersion {said:?}");
    }
    Ok(())
}

fn shape(host: &Host, version: &str) -> Verdict {
    if !host.profile.versions.iter().any(|known| known == version) {
        skip!("the plugin does not support {version}");
    }
    let result = result_in(host, version)?;
    if at_least(version, "0.3.0") { modern(host, &result, version) } else { legacy(&result) }
}

fn legacy(result: &Value) -> Verdict {
    ensure!(result.get("ips").is_none() && result.get("interfaces").is_none(), "keys of newer versions: {result}");
    let mut found = false;
    for (key, wanted) in [("ip4", "4"), ("ip6", "6")] {
        let Some(ip) = result.get(key) else { continue };
        found = true;
        let cidr = text(ip, "ip");
        ensure!(is_cidr(cidr) && family(cidr) == wanted, "{key}.ip is {cidr:?}");
        for route in list(ip, "routes") {
            ensure!(is_cidr(text(route, "dst")), "{key}.routes has no dst: {route}");
        }
    }
    ensure!(found, "neither ip4 nor ip6: {result}");
    Ok(())
}

const INTERFACE: [(&str, bool); 6] =
    [("name", true), ("mac", true), ("sandbox", true), ("socketPath", true), ("pciID", true), ("mtu", false)];
const ROUTE: [(&str, bool); 7] = [
    ("dst", true),
    ("gw", true),
    ("mtu", false),
    ("advmss", false),
    ("priority", false),
    ("table", false),
    ("scope", false),
];

fn modern(host: &Host, result: &Value, version: &str) -> Verdict {
    let only_new = ["mtu", "socketPath", "pciID"];
    let is_new = at_least(version, "1.1.0");
    ensure!(result.get("ip4").is_none() && result.get("ip6").is_none(), "keys of 0.2.0: {result}");
    ensure!(!list(result, "ips").is_empty(), "there are no ips: {result}");
    for ip in list(result, "ips") {
        let said = ip.get("version").and_then(Value::as_str);
        let due = if at_least(version, "1.0.0") { None } else { Some(family(text(ip, "address"))) };
        ensure!(said == due, "ips[].version is {said:?} instead of {due:?} in {version}: {ip}");
    }
    for interface in list(result, "interfaces") {
        typed(interface, &INTERFACE)?;
        let newer = only_new.iter().find(|key| interface.get(**key).is_some());
        ensure!(is_new || newer.is_none(), "{newer:?} is of 1.1.0, not of {version}: {interface}");
    }
    for route in list(result, "routes") {
        typed(route, &ROUTE)?;
        let newer = ROUTE.iter().skip(2).find(|(key, _)| route.get(*key).is_some());
        ensure!(is_new || newer.is_none(), "{newer:?} is of 1.1.0, not of {version}: {route}");
    }
    let has_interfaces = !list(result, "interfaces").is_empty();
    ensure!(has_interfaces || host.target.kind == Kind::Ipam, "there are no interfaces: {result}");
    Ok(())
}

/// Every known key that is there must be text or a number.
fn typed(value: &Value, keys: &[(&str, bool)]) -> Verdict {
    for (key, is_text) in keys {
        let fits = value.get(*key).is_none_or(|field| if *is_text { field.is_string() } else { field.is_u64() });
        ensure!(fits, "{key} has the wrong type: {value}");
    }
    Ok(())
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= if address.is_ipv4() { 32 } else { 128 })
}

fn addresses_are_cidrs(host: &Host) -> Verdict {
    for ip in list(&newest(host)?, "ips") {
        ensure!(is_cidr(text(ip, "address")), "not in CIDR notation: {ip}");
    }
    Ok(())
}

fn gateways_fit(host: &Host) -> Verdict {
    for ip in list(&newest(host)?, "ips") {
        let Some(gateway) = ip.get("gateway").and_then(Value::as_str) else { continue };
        let fits = gateway.parse::<std::net::IpAddr>().is_ok() && family(gateway) == family(text(ip, "address"));
        ensure!(fits, "the gateway does not fit: {ip}");
    }
    Ok(())
}

fn routes_are_cidrs(host: &Host) -> Verdict {
    for route in list(&newest(host)?, "routes") {
        let dst = text(route, "dst");
        ensure!(is_cidr(dst) && has_no_host_bits(dst), "dst is no network: {route}");
        if let Some(gw) = route.get("gw").and_then(Value::as_str) {
            let fits = gw.parse::<std::net::IpAddr>().is_ok() && family(gw) == family(dst);
            ensure!(fits, "gw does not fit: {route}");
        }
    }
    Ok(())
}

fn has_no_host_bits(cidr: &str) -> bool {
    let prefix: u32 = cidr.split('/').nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    match bare(cidr).parse() {
        Ok(std::net::IpAddr::V4(address)) => address.to_bits().checked_shl(prefix).unwrap_or_default() == 0,
        Ok(std::net::IpAddr::V6(address)) => address.to_bits().checked_shl(prefix).unwrap_or_default() == 0,
        Err(_) => false,
    }
}

fn macs_are_macs(host: &Host) -> Verdict {
    for interface in list(&newest(host)?, "interfaces") {
        let Some(mac) = interface.get("mac").and_then(Value::as_str).filter(|mac| !mac.is_empty()) else { continue };
        let pairs: Vec<_> = mac.split(':').collect();
        let fits = pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2 && u8::from_str_radix(pair, 16).is_ok());
        ensure!(fits, "not a hardware address: {interface}");
    }
    Ok(())
}

fn indexes_fit(host: &Host) -> Verdict {
    let result = newest(host)?;
    let interfaces = list(&result, "interfaces");
    for ip in list(&result, "ips") {
        let Some(index) = ip.get("interface") else { continue };
        let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| interfaces.get(index)) {
            Some(interface) if !text(interface, "sandbox").is_empty() => {}
            Some(interface) => fail!("{ip} is of an interface without a sandbox: {interface}"),
            None => fail!("{ip} is of no interface in the list of {}", interfaces.len()),
        }
    }
    Ok(())
}

fn dns_has_its_types(host: &Host) -> Verdict {
    let result = newest(host)?;
    let Some(dns) = result.get("dns") else { return Ok(()) };
    for key in ["nameservers", "search", "options"] {
        let fits =
            dns.get(key).is_none_or(|value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string)));
        ensure!(fits, "dns.{key} is no list of texts: {dns}");
    }
    ensure!(dns.get("domain").is_none_or(Value::is_string), "dns.domain is no text: {dns}");
    Ok(())
}

fn no_interfaces(host: &Host) -> Verdict {
    for version in host.profile.versions.iter().filter(|version| at_least(version, "0.3.0")) {
        let result = result_in(host, version)?;
        ensure!(result.get("interfaces").is_none(), "{version}: the result has interfaces: {result}");
    }
    Ok(())
}

fn no_interface_index(host: &Host) -> Verdict {
    for version in host.profile.versions.iter().filter(|version| at_least(version, "0.3.0")) {
        let result = result_in(host, version)?;
        let index = list(&result, "ips").iter().find(|ip| ip.get("interface").is_some());
        ensure!(index.is_none(), "{version}: an entry of ips has an interface: {result}");
    }
    Ok(())
}
