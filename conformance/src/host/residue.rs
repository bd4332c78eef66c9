//! What is on a host, line by line, and what of it was left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::observe;
use super::settings::{self, Settings};
use super::shape::{list, text};
use crate::verdict::Verdict;

/// Lines with their number of occurrences.
pub type Lines = BTreeMap<String, usize>;

/// Everything of the host that attachments leave traces in. Files below `numbered` are shown without their numbers, kernel
/// settings only where they differ from `settings`.
///
/// # Errors
/// Trouble if a tool fails.
pub fn observe(numbered: &[PathBuf], settings: &Settings) -> Verdict<Lines> {
    let mut all = Vec::new();
    let of_any = ["address show", "neighbour show nud permanent", "neighbour show proxy"];
    if let [links_here, permanent, proxy] = observe::ip_batch(&[], &of_any)?.as_slice() {
        links(links_here, &mut all);
        for (which, neighbours) in [("permanent", permanent), ("proxy", proxy)] {
            all.extend(items(neighbours).map(|one| {
                format!("neighbour {} dev {} {which} {}", text(one, "dst"), text(one, "dev"), text(one, "lladdr"))
            }));
        }
    }
    all.extend(items(&observe::tc(&["qdisc", "show"])?).filter_map(qdisc));
    all.extend(settings::changed(settings));
    for family in ["-4", "-6"] {
        if let [routes, rules] = observe::ip_batch(&[family], &["route show table all", "rule show"])?.as_slice() {
            all.extend(items(routes).filter_map(route));
            all.extend(items(rules).map(|rule| format!("rule {rule}")));
        }
    }
    all.extend(observe::nft()?.iter().filter_map(nft_line));
    all.extend(observe::legacy_rules()?.into_iter().map(|line| format!("iptables-legacy {line}")));
    let mut files = Vec::new();
    for folder in ["/run", "/var/lib"] {
        observe::files(Path::new(folder), &mut files);
    }
    let is_numbered = |path: &str| numbered.iter().any(|folder| Path::new(path).starts_with(folder));
    let shown = |path: String| if is_numbered(&path) { without_numbers(&path) } else { path };
    all.extend(files.into_iter().map(|path| format!("file {}", shown(path))));
    let mut lines = Lines::new();
    for line in all {
        *lines.entry(line).or_default() += 1;
    }
    Ok(lines)
}

/// Databases number their files. A run of 12 or more hexadecimal digits is such a number.
fn without_numbers(path: &str) -> String {
    let mut shown = String::new();
    let mut digits = String::new();
    for character in path.chars().chain(['\n']) {
        if character.is_ascii_hexdigit() {
            digits.push(character);
            continue;
        }
        shown.push_str(if digits.len() >= 12 { "#" } else { &digits });
        digits.clear();
        shown.push(character);
    }
    shown.trim_end().to_owned()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn links(links: &Value, all: &mut Vec<String>) {
    for link in items(links) {
        let name = text(link, "ifname");
        all.push(format!("link {name}"));
        for address in list(link, "addr_info").iter().filter(|address| text(address, "scope") != "link") {
            all.push(format!("address {} on {name}", text(address, "local")));
        }
    }
}

/// The kernel makes local, multicast and link-local routes by itself, together with addresses; that of `::1` is shown without
/// its protocol, and for a moment at an interface that comes or goes.
fn route(route: &Value) -> Option<String> {
    let (dst, dev) = (text(route, "dst"), text(route, "dev"));
    let of_kernel =
        text(route, "protocol") == "kernel" || dst == "::1" || matches!(text(route, "type"), "multicast" | "anycast");
    let scope = if of_kernel { return None } else { text(route, "scope") };
    Some(format!("route {dst} via {:?} dev {dev} {scope}", text(route, "gateway")))
}

/// The kernel's own queueing disciplines have no handle.
fn qdisc(qdisc: &Value) -> Option<String> {
    let (kind, handle) = (text(qdisc, "kind"), text(qdisc, "handle"));
    (handle != "0:").then(|| format!("qdisc {kind} {handle} dev {}", text(qdisc, "dev")))
}

/// Handles and counters differ from run to run.
fn nft_line(item: &Value) -> Option<String> {
    let (kind, body) = item.as_object()?.iter().next()?;
    if kind == "metainfo" || is_of_iptables(kind, body) {
        return None;
    }
    let mut body = body.clone();
    strip(&mut body);
    Some(format!("nft {kind} {body}"))
}

/// `iptables-nft` makes its tables and base chains when they are first needed, and nobody ever removes them.
fn is_of_iptables(kind: &str, body: &Value) -> bool {
    let of = |key| matches!(text(body, key), "nat" | "filter" | "mangle" | "raw");
    (kind == "table" && of("name")) || (kind == "chain" && of("table") && body.get("hook").is_some())
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for key in ["handle", "packets", "bytes"] {
                object.remove(key);
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether it is an address or a route of an interface that the plugin keeps, such as a bridge with its gateways.
fn on_kept_link(line: &str, frame: &Lines) -> bool {
    let name = line.strip_prefix("address ").and_then(|rest| rest.split_once(" on ")).map(|(_, name)| name);
    name.is_some_and(|name| frame.contains_key(&format!("link {name}")))
}

/// Whether it is an interface that the suite itself has made, or an address of one. What only names it is the plugin's.
#[must_use]
pub fn is_of_suite(line: &str) -> bool {
    let address = || line.strip_prefix("address ").and_then(|rest| rest.split_once(" on ")).map(|(_, name)| name);
    line.strip_prefix("link ").or_else(address).is_some_and(|name| name.starts_with("scaf"))
}

/// What is in `after` beyond `frame`.
#[must_use]
pub fn beyond(after: &Lines, frame: &Lines) -> Vec<String> {
    let mut extra = Vec::new();
    for (line, count) in after {
        let known = frame.get(line).copied().unwrap_or_default();
        // What the plugin keeps for one network it may keep for the suite's other one too.
        let of_other = line.contains(super::OTHER_NETWORK)
            && frame.contains_key(&line.replace(super::OTHER_NETWORK, super::NETWORK));
        let is_numbered = line.starts_with("file ") && line.contains('#') && known > 0;
        if *count > known && !is_numbered && !of_other && !on_kept_link(line, frame) {
            let times = if count - known > 1 { format!(" ({} times)", count - known) } else { String::new() };
            extra.push(format!("{}{times}", super::call::shorten(line)));
        }
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_an_interface_of_the_suite_is_not_the_suites() {
        for line in ["link scaf3", "address 10.250.3.1 on scaf3"] {
            assert!(is_of_suite(line), "{line}");
        }
        for line in [
            r#"nft rule {"left":{"meta":{"key":"iifname"}},"right":"scaf3"}"#,
            "route 10.9.0.0/24 via \"\" dev scaf3 link",
            "file /run/a/scaf3",
            "link ifb-scaf3",
        ] {
            assert!(!is_of_suite(line), "{line}");
        }
    }

    #[test]
    fn only_long_numbers_are_hidden() {
        assert_eq!(without_numbers("/run/db/snap.00000000000008F7"), "/run/db/snap.#");
        assert_eq!(without_numbers("/var/lib/cni/networks/a/10.104.0.7"), "/var/lib/cni/networks/a/10.104.0.7");
    }
}
