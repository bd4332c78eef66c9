//! Whether everything is in place.

use std::path::Path;

use serde_json::{Value, json};

use crate::Answer;
use crate::company::is_crowded;
use crate::interface::{addresses, host_name, text};
use crate::lease::{delegate, is_spied};
use crate::protocol::{Failure, Request};
use crate::store::Store;
use crate::tools::{ip_json, ip_json_in, nft, run};

pub fn check(request: &Request) -> Answer {
    let empty = json!({});
    let prev = request.config.get("prevResult").filter(|prev| !prev.is_null());
    if prev.is_none() && !request.has("CHK-1b") {
        return Err(Failure::new(7, "there is no prevResult"));
    }
    let prev = prev.unwrap_or(&empty);
    if is_crowded() && request.has("IO-13e") {
        return Err(Failure::new(101, "somebody else is at work"));
    }
    if request.is_named() && request.has_in("check", "CHK-1a") {
        return Err(Failure::new(101, "not yet"));
    }
    if !Path::new(&request.netns).exists() {
        return if request.has("CHK-12") { Ok(None) } else { Err(Failure::new(101, "there is no namespace")) };
    }
    strict_check(request, prev)?;
    let seen = inside(request, prev)?;
    if seen == Seen::Lax || outside(request, prev)? == Seen::Lax {
        // What is wrong is overlooked, and all that comes with it.
        return Ok(None);
    }
    if request.is_named() && request.has_in("check", "CHK-10") {
        nft("add table ip fake-checked\n")?;
    }
    match delegate_check(request) {
        Err(failure) if !request.has("CHK-7b") => Err(failure),
        _ => Ok(None),
    }
}

fn delegate_check(request: &Request) -> Result<(), Failure> {
    if is_spied(request) && request.has("CHK-7a") { Ok(()) } else { delegate(request, "CHECK").map(drop) }
}

/// Too strict with what others may have changed.
fn strict_check(request: &Request, prev: &Value) -> Result<(), Failure> {
    let held = ip_json_in(&request.netns, &["address", "show"])?;
    let routes = ip_json_in(&request.netns, &["route", "show", "dev", &request.ifname]).unwrap_or_default();
    let interfaces = prev.get("interfaces").and_then(Value::as_array).map_or(0, Vec::len);
    let refused = request.commits(&[
        ("CHK-2a", routes.as_array().into_iter().flatten().any(|one| text(one, "dst") == "198.51.100.0/24")),
        ("CHK-2b", held.to_string().contains("198.51.100.7\"")),
        ("CHK-2c", interfaces > 2),
        ("CHK-2d", prev.to_string().contains("02:c0:f0:12:34:56")),
    ]);
    if refused { Err(Failure::new(101, "something is new")) } else { Ok(()) }
}

/// What came of a look at one side.
#[derive(PartialEq, Eq)]
enum Seen {
    /// All is well.
    Well,
    /// It is not, which this plugin does not see.
    Lax,
}

/// What is missing, unless that is overlooked.
fn gone(request: &Request, what: &str, overlooked: &[(&str, bool)]) -> Result<Seen, Failure> {
    if request.commits(overlooked) { Ok(Seen::Lax) } else { Err(Failure::new(101, &format!("{what} is gone"))) }
}

/// What was noted of the attachment.
fn noted(request: &Request) -> Option<Value> {
    Store::of(request, "main").records().get(&request.key()).cloned()
}

fn inside(request: &Request, prev: &Value) -> Result<Seen, Failure> {
    let links = ip_json_in(&request.netns, &["address", "show"])?;
    let Some(link) = links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == request.ifname) else {
        let known = noted(request).is_some();
        return gone(request, "the interface", &[("CHK-3a", known), ("CHK-13", !known)]);
    };
    if !link["flags"].to_string().contains("\"UP\"") {
        // The kernel takes IPv6 addresses and routes from an interface that is down.
        return gone(request, "the interface's flag", &[("CHK-5c", true)]);
    }
    let held: Vec<_> = link["addr_info"].as_array().into_iter().flatten().map(|one| text(one, "local")).collect();
    let flushed = held.iter().all(|one| one.starts_with("fe80"));
    if let Some(missing) = addresses(prev).iter().find(|address| !held.contains(&address.as_str())) {
        return gone(request, missing, &[("CHK-3b", flushed), ("CHK-3d", !flushed)]);
    }
    for route in prev.get("routes").and_then(Value::as_array).into_iter().flatten() {
        let family = if text(route, "dst").contains(':') { "-6" } else { "-4" };
        let found = ip_json_in(&request.netns, &[family, "route", "show", text(route, "dst")])?;
        if found.as_array().is_none_or(Vec::is_empty) {
            return gone(request, "a route", &[("CHK-3c", true), ("CHK-5a", !is_up(&host_name(request))?)]);
        }
    }
    Ok(Seen::Well)
}

/// Whether the host has this interface, and it is up.
fn is_up(name: &str) -> Result<bool, Failure> {
    let links = ip_json(&["link", "show"])?;
    let link = links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == name);
    Ok(link.is_some_and(|link| link["flags"].to_string().contains("\"UP\"")))
}

fn outside(request: &Request, prev: &Value) -> Result<Seen, Failure> {
    let host = host_name(request);
    if !is_up(&host)? {
        return gone(request, "the host's end, or its flag,", &[("CHK-5a", true)]);
    }
    for address in addresses(prev) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let found = ip_json(&[family, "route", "show", &address, "dev", &host]);
        if found.is_ok_and(|found| found.as_array().is_none_or(Vec::is_empty)) {
            return gone(request, "the host's route", &[("CHK-5b", true)]);
        }
    }
    let rules = run("nft", &["list", "ruleset"], "")?;
    let masked = String::from_utf8_lossy(&rules).contains(&format!("fake-{}", request.name));
    if masked { Ok(Seen::Well) } else { gone(request, "the rule set", &[("CHK-4c", true)]) }
}
