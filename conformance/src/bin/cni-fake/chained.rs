//! Mapping ports by nft maps, and shaping traffic by a token bucket.

use serde_json::{Value, json};

use crate::Answer;
use crate::protocol::{Failure, Request};
use crate::result::shaped;
use crate::store::Store;
use crate::tools::{ip_in, nft, run, run_in};

const TABLES: [(&str, &str, bool); 2] = [("ip", "ipv4_addr", false), ("ip6", "ipv6_addr", true)];

pub fn operate(request: &Request) -> Answer {
    match request.command.as_str() {
        "ADD" => add(request).map(Some),
        "DEL" => del(request),
        "CHECK" => check(request),
        "GC" => gc(request),
        _ => Ok(None),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A field, whatever the case of its key.
fn folded<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// A mapping as an element of each map it belongs to: family, map, element.
fn elements(request: &Request, prev: &Value) -> Result<Vec<(String, String, String)>, Failure> {
    let mappings = request.capability("portMappings").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    let mappings =
        mappings.iter().take(if mappings.len() > 1 && request.has_in("ports", "PM-3g") { 1 } else { usize::MAX });
    for mapping in mappings {
        let bad = |what: &str| Failure::new(7, &format!("bad {what}: {mapping}"));
        let exact = |key: &str| {
            let value = folded(mapping, key);
            if value.is_some() && mapping.get(key).is_none() && request.has("PM-3a") { None } else { value }
        };
        let port = |key: &str| exact(key).and_then(Value::as_u64).filter(|port| (1..=65535).contains(port));
        let lax = || match exact("hostPort").and_then(Value::as_u64) {
            Some(0) => request.has("PM-4a"),
            Some(70000) => request.has("PM-4b"),
            None => folded(mapping, "hostPort").is_some(),
            _ => exact("containerPort").and_then(Value::as_i64) == Some(-1) && request.has("PM-4c"),
        };
        let (Some(host), Some(own)) = (port("hostPort"), port("containerPort")) else {
            if lax() {
                continue;
            } else {
                return Err(bad("port"));
            };
        };
        let protocol = folded(mapping, "protocol").and_then(Value::as_str).unwrap_or("tcp");
        let lower = protocol.to_lowercase();
        let is_picky = lower != protocol && request.has("PM-3c");
        if is_picky || !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
            if is_picky || request.has("PM-4d") {
                continue;
            } else {
                return Err(bad("protocol"));
            };
        }
        let address = folded(mapping, "hostIP").and_then(Value::as_str).filter(|text| !text.is_empty());
        let address = address.filter(|text| !matches!(*text, "0.0.0.0" | "::") || request.has("PM-3b"));
        if address.is_some_and(|text| text.parse::<std::net::IpAddr>().is_err()) {
            if request.has("PM-4e") {
                continue;
            } else {
                return Err(bad("hostIP"));
            };
        }
        let address = address.filter(|_| !request.has("PM-2c"));
        let skipped = address
            .is_some_and(|text| request.commits(&[("PM-2d", text == "192.0.2.3"), ("PM-2e", text.contains(':'))]));
        if skipped {
            continue;
        }
        let mut elements = of_each_family(prev, address, &lower, host, own);
        if lower == "sctp" {
            elements.retain(|(family, ..)| !request.has(if family == "ip" { "PM-1l" } else { "PM-1m" }));
        }
        if lower == "sctp" && host == own && request.has("PM-1n") {
            elements.clear();
        }
        found.extend(elements);
    }
    Ok(found)
}

/// One mapping for the pod's address of each family that it is for.
fn of_each_family(
    prev: &Value,
    address: Option<&str>,
    protocol: &str,
    host: u64,
    own: u64,
) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for ip in list(prev, "ips").iter().filter(|ip| ip.get("interface").is_some()) {
        let to = text(ip, "address").split('/').next().unwrap_or_default();
        let six = to.contains(':');
        let family = if six { "ip6" } else { "ip" };
        let (map, element) = match address {
            Some(address) if address.contains(':') == six => {
                ("exact", format!("{address} . {protocol} . {host} : {to} . {own}"))
            }
            Some(_) => continue,
            None => ("wild", format!("{protocol} . {host} : {to} . {own}")),
        };
        found.push((family.to_owned(), map.to_owned(), element));
    }
    found
}

/// The static part: who asks a local address at a mapped port is led to the pod.
fn frame(request: &Request) -> String {
    let mut all = String::new();
    for (family, sort, six) in TABLES {
        let table = format!("{family} fake-ports");
        all.push_str(&format!(
            "add table {table}\n\
             add map {table} exact {{ type {sort} . inet_proto . inet_service : {sort} . inet_service; }}\n\
             add map {table} wild {{ type inet_proto . inet_service : {sort} . inet_service; }}\n\
             add chain {table} lead\nadd chain {table} pre {{ type nat hook prerouting priority -100; }}\n\
             add chain {table} out {{ type nat hook output priority -100; }}\n\
             add chain {table} post {{ type nat hook postrouting priority 100; }}\n\
             flush chain {table} lead\nflush chain {table} pre\nflush chain {table} out\nflush chain {table} post\n"
        ));
        let local = if request.has_in("ports", "PM-2a") { "" } else { "fib daddr type local " };
        let protocols = if request.has_in("ports", "PM-2b") { "tcp" } else { "meta l4proto" };
        all.push_str(
            &format!(
                "add rule {table} lead dnat {family} to {family} daddr . meta l4proto . th dport map @exact\n\
             add rule {table} lead dnat {family} to {protocols} . th dport map @wild\n"
            )
            .replace("tcp . th", "meta l4proto . th"),
        );
        let without_pre = request.is_named() && request.has_in("ports", if six { "PM-1c" } else { "PM-1a" });
        if !without_pre {
            all.push_str(&format!("add rule {table} pre {local}jump lead\n"));
        }
        if request.has_in("ports", "PM-1h") {
            all.push_str(&format!("insert rule {table} pre iifname \"scaf*\" iifname != \"scafout\" return\n"));
        }
        if six && request.has_in("ports", "PM-1i") {
            all.push_str(&format!("insert rule {table} pre meta l4proto udp return\n"));
        }
        if !six && request.has_in("ports", "PM-1j") {
            all.push_str(&format!("add rule {table} out meta l4proto udp return\n"));
        }
        if !six && (request.has_in("ports", "PM-1b") || request.has_in("ports", "PM-2b")) {
            let (from, to) =
                if request.has_in("ports", "PM-1b") { ("udp", "return") } else { ("tcp", "redirect to :9") };
            let port = if request.has_in("ports", "PM-1b") { String::new() } else { "dport 30081 ".to_owned() };
            let port = if port.is_empty() { "dport 1-65535 ".to_owned() } else { port };
            all.push_str(&format!("insert rule {table} pre {from} {port}{to}\n"));
        }
        if !request.has_in("ports", "PM-1d") {
            let at = if six || !request.has_in("ports", "PM-1e") { "" } else { "ip daddr != 127.0.0.0/8 " };
            all.push_str(&format!("add rule {table} out {at}fib daddr type local jump lead\n"));
        }
        let loopback = if six { "::1" } else { "127.0.0.0/8" };
        if request.has_in("ports", "PM-1g") {
            all.push_str(&format!("add rule {table} post ct status dnat masquerade\n"));
        }
        if !request.has_in("ports", "PM-1f") {
            all.push_str(&format!("add rule {table} post ct status dnat iifname \"scaf*\" oifname \"scaf*\" iifname != \"scafout\" masquerade\n"));
        }
        all.push_str(&format!("add rule {table} post {family} saddr {loopback} ct status dnat masquerade\n"));
    }
    all
}

fn add(request: &Request) -> Result<Value, Failure> {
    let Some(prev) = request.config.get("prevResult") else {
        if request.has("ADD-3g") {
            std::process::abort();
        }
        return Err(Failure::new(7, "there is no prevResult"));
    };
    if !prev.is_object() && !request.has("ADD-3i") {
        return Err(Failure::new(6, "prevResult is no object"));
    }
    refuse_capabilities(request)?;
    let modern = if prev.get("ips").is_some() { prev.clone() } else { upgraded(prev) };
    let unbound = list(&modern, "ips").iter().any(|ip| ip.get("interface").is_none());
    if unbound && request.at_least("0.3.0") && request.has("ADD-3h") {
        return Err(Failure::new(7, "an address has no interface"));
    }
    let elements = elements(request, &modern)?;
    let device = list(&modern, "interfaces")
        .iter()
        .find(|one| text(one, "sandbox").is_empty())
        .map(|one| text(one, "name").to_owned());
    let device = device.unwrap_or_default();
    let store = Store::of(request, "ports");
    let record = json!({ "elements": elements, "device": device, "shaped": request.capability("bandwidth").is_some() });
    store.change(|records| {
        records.insert(request.key(), record.clone());
        Ok(())
    })?;
    store.change(|records| {
        // A DEL may have come in between; it must find what is made now.
        records.insert(request.key(), record);
        apply(request, &elements, &device)
    })?;
    Ok(shaped(request, passed_on(request, modern)))
}

/// Empty lists and missing ones are the same.
fn refuse_capabilities(request: &Request) -> Result<(), Failure> {
    let given = request.field(&["runtimeConfig", "portMappings"]);
    let refused = match given {
        Some(Value::Null) => request.has("PM-3d"),
        Some(Value::Array(all)) if all.is_empty() => request.has("PM-3e"),
        None => request.has_in("ports", "PM-3f"),
        _ => false,
    };
    if refused { Err(Failure::new(7, "there are no mappings")) } else { Ok(()) }
}

fn upgraded(prev: &Value) -> Value {
    let mut ips = Vec::new();
    for key in ["ip4", "ip6"] {
        if let Some(ip) = prev.get(key) {
            ips.push(json!({ "address": text(ip, "ip"), "gateway": ip["gateway"], "interface": 0 }));
        }
    }
    json!({ "ips": ips, "routes": prev["ip4"]["routes"], "dns": prev["dns"] })
}

fn apply(request: &Request, elements: &[(String, String, String)], device: &str) -> Result<(), Failure> {
    if !elements.is_empty() {
        let mut all = frame(request);
        for (family, map, element) in elements {
            all.push_str(&format!("add element {family} fake-ports {map} {{ {element} }}\n"));
        }
        nft(&all)?;
        if !request.has_in("ports", "PM-5c") {
            flush(elements);
        }
        let path = format!("/proc/sys/net/ipv4/conf/{device}/route_localnet");
        std::fs::write(&path, "1").map_err(|error| Failure::new(101, &format!("{path}: {error}")))?;
        if !request.has_in("ports", "PM-1k") {
            // IPv6 has no route_localnet: answers to ::1 are looked up among the routes of where they come in.
            run("ip", &["-6", "route", "replace", "local", "::1", "dev", device, "table", "local", "metric", "9"], "")?;
        }
    }
    shape(request, device)?;
    if request.has_in("chained", "ADD-6") {
        ip_in(&request.netns, &["address", "flush", "dev", &request.ifname, "scope", "global"])?;
    }
    Ok(())
}

/// A token bucket at each end of the pair.
fn shape(request: &Request, device: &str) -> Result<(), Failure> {
    let Some(limits) = request.capability("bandwidth").filter(|_| !device.is_empty()) else { return Ok(()) };
    if limits.get("ingressRate").is_some_and(|rate| !rate.is_u64()) && !request.has("CAP-2c") {
        return Err(Failure::new(7, "ingressRate is no number"));
    }
    let into = if request.has_in("capabilities", "CAP-2a") { "8gbit" } else { "8mbit" };
    let out = if request.has_in("capabilities", "CAP-2b") { "8gbit" } else { "8mbit" };
    let bucket =
        |dev: &str, rate: &str| format!("qdisc replace dev {dev} root tbf rate {rate} burst 100kb latency 25ms");
    run("tc", &bucket(device, into).split(' ').collect::<Vec<_>>(), "")?;
    if limits.get("egressRate").is_some() {
        run_in(&request.netns, "tc", &bucket(&request.ifname, out).split(' ').collect::<Vec<_>>(), "")?;
    }
    Ok(())
}

/// What the kernel remembers of UDP flows to these ports.
fn flush(elements: &[(String, String, String)]) {
    for (_, _, element) in elements.iter().filter(|(_, _, element)| element.contains("udp . ")) {
        let port = element.split("udp . ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        // It fails when there is nothing to delete.
        let _ = run("conntrack", &["-D", "-p", "udp", "--orig-port-dst", port], "");
    }
}

fn passed_on(request: &Request, mut result: Value) -> Value {
    let last = |result: &mut Value, key: &str| {
        result[key].as_array_mut().map(Vec::pop);
    };
    if list(&result, "ips").len() > 1 && request.has_in("chained", "ADD-3a") {
        last(&mut result, "ips");
    }
    if request.has_in("chained", "ADD-3b") {
        last(&mut result, "routes");
    }
    if request.has_in("chained", "ADD-3c") {
        result["interfaces"][0]["name"] = json!("renamed0");
    }
    if request.has_in("chained", "ADD-3d") {
        result["dns"] = json!({});
    }
    if request.has_in("chained", "ADD-3e") {
        result["ips"][0]["interface"] = json!(0);
    }
    if request.version == "0.4.0" && request.has("ADD-3f") {
        last(&mut result, "ips");
    }
    result
}

fn del(request: &Request) -> Answer {
    let store = Store::of(request, "ports");
    let is_known = store.records().contains_key(&request.key());
    let blind = is_known
        && request.commits(&[
            ("PM-5a", request.about("ports") && request.is_named()),
            ("PM-5b", request.about("ports") && request.capability("portMappings").is_none()),
        ]);
    // Under the lock, so that an ADD of the same attachment comes before or after all of it.
    store.change(|records| {
        let known = records.remove(&request.key()).unwrap_or_default();
        if blind { Ok(()) } else { undo(request, &known) }
    })?;
    if !store.records().is_empty() && request.has("PM-5d") {
        nft("flush map ip fake-ports wild\n")?;
    }
    if request.has_in("chained", "DEL-1d") {
        ip_in(&request.netns, &["address", "flush", "dev", &request.ifname, "scope", "global"]).ok();
    }
    Ok(None)
}

/// Takes back what the record says, whether it is there or not.
fn undo(request: &Request, known: &Value) -> Result<(), Failure> {
    let elements: Vec<(String, String, String)> = serde_json::from_value(known["elements"].clone()).unwrap_or_default();
    if !elements.is_empty() {
        let mut all = frame(request);
        for (family, map, element) in &elements {
            all.push_str(&format!("add element {family} fake-ports {map} {{ {element} }}\n"));
            let key = element.split(" : ").next().unwrap_or_default();
            all.push_str(&format!("delete element {family} fake-ports {map} {{ {key} }}\n"));
        }
        nft(&all)?;
        if !request.has_in("ports", "PM-5e") {
            flush(&elements);
        }
    }
    let device = text(known, "device");
    // There may be none of them.
    if !device.is_empty() && !elements.is_empty() {
        let _ = run("ip", &["-6", "route", "delete", "local", "::1", "dev", device, "table", "local"], "");
    }
    if !device.is_empty() && known["shaped"] == true {
        let _ = run("tc", &["qdisc", "delete", "dev", device, "root"], "");
        let _ = run_in(&request.netns, "tc", &["qdisc", "delete", "dev", &request.ifname, "root"], "");
    }
    Ok(())
}

fn check(request: &Request) -> Answer {
    if !request.config.contains_key("prevResult") && !request.has("CHK-1b") {
        return Err(Failure::new(7, "there is no prevResult"));
    }
    if !std::path::Path::new(&request.netns).exists() {
        return Err(Failure::new(101, "there is no namespace"));
    }
    let store = Store::of(request, "ports");
    let records = store.records();
    let Some(known) = records.get(&request.key()) else { return Err(Failure::new(101, "nothing is known of it")) };
    if records.len() > 2 && request.has("PM-6") {
        return Err(Failure::new(101, "there are too many"));
    }
    let elements: Vec<(String, String, String)> = serde_json::from_value(known["elements"].clone()).unwrap_or_default();
    let rules = String::from_utf8_lossy(&run("nft", &["list", "ruleset"], "")?).into_owned();
    if !elements.is_empty() && !rules.contains("fake-ports") && !request.has("CHK-4c") {
        return Err(Failure::new(101, "the rules are gone"));
    }
    let shaped =
        String::from_utf8_lossy(&run("tc", &["qdisc", "show", "dev", text(known, "device")], "")?).contains("tbf");
    if request.capability("bandwidth").is_some() && !shaped && !request.has("CHK-4d") {
        return Err(Failure::new(101, "the shaping is gone"));
    }
    Ok(None)
}

fn gc(request: &Request) -> Answer {
    let Some(valid) = crate::ipam::valid(request) else { return Ok(None) };
    let store = Store::of(request, "ports");
    for (_, known) in store.records().iter().filter(|(key, _)| !valid.contains(key)) {
        undo(request, known)?;
    }
    store.change(|records| {
        records.retain(|key, _| valid.contains(key));
        Ok(None)
    })
}
