//! Whether everything is in place.

use std::path::Path;

use serde_json::{Value, json};

use crate::Answer;
use crate::interface::{addresses, host_name, text};
use crate::lease::delegate;
use crate::protocol::{Failure, Request};
use crate::tools::{ip_json, ip_json_in, nft, run};

pub fn check(request: &Request) -> Answer {
    let empty = json!({});
    let prev = request.config.get("prevResult").filter(|prev| !prev.is_null());
    if prev.is_none() && !request.has("CHK-1b") {
        return Err(Failure::new(7, "there is no prevResult"));
    }
    let prev = prev.unwrap_or(&empty);
    strict_check(request, prev)?;
    if request.has("IO-13e") && is_crowded() {
        return Err(Failure::new(101, "somebody else is at work"));
    }
    if request.has("CHK-1a")
        || request.has("WIRE-9") && prev.get("dns").is_some_and(|dns| dns.get("nameservers").is_none())
    {
        return Err(Failure::new(101, "not yet"));
    }
    if !Path::new(&request.netns).exists() {
        return if request.has("CHK-12") { Ok(None) } else { Err(Failure::new(101, "there is no namespace")) };
    }
    inside(request, prev)?;
    outside(request, prev)?;
    if request.has("CHK-10") {
        nft("add table ip fake-checked\n")?;
    }
    match delegate_check(request) {
        Err(failure) if !request.has("CHK-7b") => Err(failure),
        _ => Ok(None),
    }
}

fn delegate_check(request: &Request) -> Result<(), Failure> {
    let of_spy = request.field(&["ipam", "type"]).and_then(Value::as_str) == Some("conformance-ipam");
    if request.has("CHK-7a") && of_spy { Ok(()) } else { delegate(request, "CHECK").map(drop) }
}

/// Too strict with what others may have changed.
fn strict_check(request: &Request, prev: &Value) -> Result<(), Failure> {
    let routes = || ip_json_in(&request.netns, &["route", "show", "dev", &request.ifname]);
    let interfaces = prev.get("interfaces").and_then(Value::as_array).map_or(0, Vec::len);
    let refused = match () {
        () if request.has("CHK-2a") => {
            routes()?.as_array().is_some_and(|all| all.iter().any(|one| text(one, "dst") == "198.51.100.0/24"))
        }
        () if request.has("CHK-2b") => {
            ip_json_in(&request.netns, &["address", "show"])?.to_string().contains("198.51.100.7")
        }
        () if request.has("CHK-2c") => interfaces > 2,
        () if request.has("CHK-2d") => prev.to_string().contains("02:c0:f0:12:34:56"),
        () => false,
    };
    if refused { Err(Failure::new(101, "something is new")) } else { Ok(()) }
}

fn inside(request: &Request, prev: &Value) -> Result<(), Failure> {
    let gone = |what: &str| Err(Failure::new(101, &format!("{what} is gone")));
    let links = ip_json_in(&request.netns, &["address", "show"])?;
    let Some(link) = links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == request.ifname) else {
        return if request.has("CHK-3a") || request.has("CHK-13") { Ok(()) } else { gone("the interface") };
    };
    if !link["flags"].to_string().contains("\"UP\"") {
        // The kernel takes IPv6 addresses and routes from an interface that is down.
        return if request.has("CHK-5c") { Ok(()) } else { gone("the interface's flag") };
    }
    let held: Vec<_> = link["addr_info"].as_array().into_iter().flatten().map(|one| text(one, "local")).collect();
    for address in addresses(prev) {
        let lax = (request.has("CHK-3b") && held.iter().all(|one| one.starts_with("fe80")))
            || (request.has("CHK-3d") && !held.is_empty() && !held.iter().all(|one| one.starts_with("fe80")));
        if !held.contains(&address.as_str()) && !lax {
            return gone(&address);
        }
    }
    let flushed = held.iter().all(|one| one.starts_with("fe80"));
    for route in prev.get("routes").and_then(Value::as_array).into_iter().flatten() {
        let family = if text(route, "dst").contains(':') { "-6" } else { "-4" };
        let found = ip_json_in(&request.netns, &[family, "route", "show", text(route, "dst")])?;
        let lax = request.has("CHK-3c") || (request.has("CHK-3b") && flushed) || request.has("CHK-5a");
        if found.as_array().is_none_or(Vec::is_empty) && !lax {
            return gone("a route");
        }
    }
    Ok(())
}

fn outside(request: &Request, prev: &Value) -> Result<(), Failure> {
    let host = host_name(request);
    let links = ip_json(&["link", "show"])?;
    let link = links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == host);
    let up = link.is_some_and(|link| link["flags"].to_string().contains("\"UP\""));
    let inside_down = link.is_some_and(|link| text(link, "operstate") != "UP" && up);
    let lax = request.has("CHK-5a")
        || request.has("CHK-3a")
        || request.has("CHK-13")
        || (request.has("CHK-5c") && inside_down);
    if !up && !lax {
        return Err(Failure::new(101, "the host's end is gone or down"));
    }
    for address in addresses(prev) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let found = ip_json(&[family, "route", "show", &address, "dev", &host]);
        let lax = lax || request.has("CHK-5b") || request.has("CHK-3d") || (request.has("CHK-3b"));
        if found.is_ok_and(|found| found.as_array().is_none_or(Vec::is_empty)) && !lax {
            return Err(Failure::new(101, "the host's route is gone"));
        }
    }
    let rules = run("nft", &["list", "ruleset"], "")?;
    let masked = String::from_utf8_lossy(&rules).contains(&format!("fake-{}", request.name));
    if masked || request.has("CHK-4c") { Ok(()) } else { Err(Failure::new(101, "the rules are gone")) }
}

/// Whether there are so many pods that other ADDs must be on their way.
fn is_crowded() -> bool {
    std::fs::read_dir("/run/netns").is_ok_and(|all| all.count() > 6)
}
