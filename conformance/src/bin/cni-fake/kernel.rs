//! A routed veth pair, and the rules of its network.

use serde_json::Value;

use crate::interface::{addresses, host_name, macs, text};
use crate::protocol::{Failure, Request};
use crate::store::Store;
use crate::tools::{ip_batch, link_names, nft, run};

/// Everything in the kernel.
pub fn build(request: &Request, leased: &Value) -> Result<(), Failure> {
    let (host, name) = (host_name(request), &request.ifname);
    let (mac, host_mac) = macs(request);
    let own = addresses(leased);
    let pair =
        format!("link add {host} address {host_mac} type veth peer name {name} address {mac} netns {}", request.netns);
    ip_batch(None, &[pair])?;
    let mut outer = vec![format!("link set {host} up")];
    if request.has_in("packets", "DP-17") {
        outer.push(format!("link set {host} mtu 1400"));
    }
    let mut inner = vec![format!("link set {name} up")];
    for address in &own {
        let six = address.contains(':');
        let (prefix, link_local, flag) = if six { (128, "fe80::1", " nodad") } else { (32, "169.254.1.1", "") };
        let is_busy = request.capability("mac").is_some() && !request.is_named();
        let flag = if six && is_busy && request.has_in("packets", "DP-15") { "" } else { flag };
        let unreachable = (request.is_named() && request.has_in("packets", if six { "DP-3" } else { "DP-1" }))
            || (is_busy && request.has_in("packets", "DP-6"));
        inner.push(format!("address add {address}/{prefix} dev {name}{flag}"));
        inner.push(format!("neighbour replace {link_local} lladdr {host_mac} dev {name} nud permanent"));
        if !unreachable {
            outer.push(format!("route replace {address}/{prefix} dev {host}"));
        }
        let known =
            if request.has_in("packets", "DP-13") { first_holder(request, address, &mac)? } else { mac.clone() };
        outer.push(format!("neighbour replace {address} lladdr {known} dev {host} nud permanent"));
    }
    for route in leased["routes"].as_array().into_iter().flatten() {
        let dst = text(route, "dst");
        let is_odd = dst == "10.1.2.3/8" && request.has_in("results", "RES-10");
        if own.iter().any(|address| address.contains(':') == dst.contains(':')) && !is_odd {
            let via = if dst.contains(':') { "fe80::1" } else { "169.254.1.1" };
            inner.push(format!("route replace {dst} via {via} dev {name} onlink"));
        }
    }
    spoil(request, &mut inner, name);
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        std::fs::write(path, "1").map_err(|error| Failure::new(101, &format!("{path}: {error}")))?;
    }
    ip_batch(Some(&request.netns), &inner)?;
    ip_batch(None, &outer)?;
    nft(&masquerade(request, &own, true))?;
    if request.has_in("add", "ADD-1f") {
        let _ = run("ip", &["link", "set", "stranger", "mtu", "1300"], "");
    }
    forget_others(request, &host)
}

/// The hardware address that the first holder of an address had.
fn first_holder(request: &Request, address: &str, mac: &str) -> Result<String, Failure> {
    Store::of(request, "main").change(|records| {
        let known = records.entry(format!("first {address}")).or_insert_with(|| mac.into());
        Ok(known.as_str().unwrap_or(mac).to_owned())
    })
}

/// Takes the routes of everybody else away.
fn forget_others(request: &Request, host: &str) -> Result<(), Failure> {
    let mut all = link_names(None)?;
    all.retain(|name| name.starts_with("fk"));
    if all.len() < 3 || !request.has_in("packets", "DP-16") {
        return Ok(());
    }
    for name in all.iter().filter(|name| *name != host) {
        let _ = run("ip", &["link", "set", name, "down"], "");
    }
    Ok(())
}

/// What is wrong inside the container.
fn spoil(request: &Request, inner: &mut Vec<String>, name: &str) {
    let drop_lines = |inner: &mut Vec<String>, word: &str| inner.retain(|line| !line.starts_with(word));
    if request.has_in("add", "ADD-1a") {
        inner.push(format!("link set {name} down"));
    }
    if inner.iter().any(|line| line.starts_with("address") && line.contains(':')) && request.has_in("add", "ADD-1b") {
        inner.retain(|line| !(line.starts_with("address") && line.contains(':')));
    }
    if request.has_in("add", "ADD-1c") {
        inner.push(format!("address add 10.222.0.1/32 dev {name}"));
    }
    if inner.iter().any(|line| line.starts_with("route replace 0.0.0.0/0")) && request.has_in("add", "ADD-1d") {
        drop_lines(inner, "route replace 0.0.0.0/0");
    }
    let has_stranger = || link_names(Some(&request.netns)).is_ok_and(|all| all.iter().any(|name| name == "stranger"));
    if request.about("add") && has_stranger() && request.has("ADD-1e") {
        inner.insert(0, "link set stranger mtu 1300".to_owned());
    }
    if inner.iter().any(|line| line.contains("10.111.0.7")) && request.has("IPAM-5a") {
        inner.retain(|line| !line.contains("10.111.0.7"));
    }
    if inner.iter().any(|line| line.contains("198.51.100.0")) && request.has("IPAM-5b") {
        inner.retain(|line| !line.contains("198.51.100.0"));
    }
    if request.has_in("packets", "DP-10") {
        inner.push("link set lo down".to_owned());
    }
}

/// The rule set of the network, with these addresses added or removed. One transaction.
pub fn masquerade(request: &Request, own: &[String], add: bool) -> String {
    let mut text = String::new();
    for (family, sort, six) in [("ip", "ipv4_addr", false), ("ip6", "ipv6_addr", true)] {
        let table = format!("{family} fake-{}", request.name);
        text.push_str(&format!(
            "add table {table}\nadd set {table} pods {{ type {sort}; }}\n\
             add chain {table} masq {{ type nat hook postrouting priority 100; }}\nflush chain {table} masq\n"
        ));
        let without = (!six && request.has_in("packets", "DP-8")) || (six && request.has_in("packets", "DP-9"));
        let to = if request.has_in("packets", "DP-5") { "" } else { "oifname != \"fk*\" " };
        if !without {
            text.push_str(&format!("add rule {table} masq {family} saddr @pods {to}masquerade\n"));
        }
        for address in own.iter().filter(|address| address.contains(':') == six) {
            text.push_str(&format!("add element {table} pods {{ {address} }}\n"));
            if !add {
                text.push_str(&format!("delete element {table} pods {{ {address} }}\n"));
            }
        }
        if !six && request.has_in("packets", "DP-14") {
            // Before fragments are put together, at priority -400.
            text.push_str(&format!(
                "add chain {table} whole {{ type filter hook prerouting priority -450; }}\nflush chain {table} whole\n\
                 add rule {table} whole ip frag-off & 0x3fff != 0 drop\n"
            ));
        }
        for case in [("DP-2", "udp", false), ("DP-4", "udp", true), ("DP-7", "udp", false)] {
            if case.2 == six && request.has_in("packets", case.0) {
                let hook = if case.0 == "DP-7" { "input" } else { "forward" };
                text.push_str(&format!(
                    "add chain {table} refuse {{ type filter hook {hook} priority 0; }}\nflush chain {table} refuse\n\
                     add rule {table} refuse meta l4proto {} drop\n",
                    case.1
                ));
            }
        }
    }
    text
}
