//! Looking at a host with the system's own tools.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::exec::{tool, tool_with_input};
use super::shape::text;
use crate::verdict::{Finding, Verdict};

/// What `ip -j ARGS` prints; an empty list if it prints nothing.
///
/// # Errors
/// Trouble if ip(8) fails.
pub fn ip(args: &[&str]) -> Verdict<Value> {
    in_json("ip", args)
}

/// What `tc -j ARGS` prints; an empty list if it prints nothing.
///
/// # Errors
/// Trouble if tc(8) fails.
pub fn tc(args: &[&str]) -> Verdict<Value> {
    in_json("tc", args)
}

/// What `ip -j ARGS` prints for each of these commands, by one process: a suite that looks at a host some thousand times spends
/// most of its time on starting programs.
///
/// # Errors
/// Trouble if ip(8) fails.
pub fn ip_batch(args: &[&str], commands: &[&str]) -> Verdict<Vec<Value>> {
    let lines = commands.join("\n") + "\n";
    let output = tool_with_input("ip", &[args, &["-j", "-batch", "-"]].concat(), lines.as_bytes())?;
    let printed = serde_json::Deserializer::from_slice(&output).into_iter().collect::<Result<Vec<Value>, _>>();
    match printed {
        Ok(printed) if printed.len() == commands.len() => Ok(printed),
        // Some versions print nothing where there is nothing to show: then they are asked one by one.
        _ => commands.iter().map(|one| ip(&[args, &one.split(' ').collect::<Vec<_>>()].concat())).collect(),
    }
}

fn in_json(program: &str, args: &[&str]) -> Verdict<Value> {
    let output = tool(program, &[&["-j"], args].concat())?;
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_slice(&output).map_err(|error| Finding::Trouble(format!("{program} -j {args:?}: {error}")))
}

/// The whole rule set by `nft -j`.
///
/// # Errors
/// Trouble if nft(8) fails.
pub fn nft() -> Verdict<Vec<Value>> {
    let output = tool("nft", &["-j", "list", "ruleset"])?;
    let value: Value =
        serde_json::from_slice(&output).map_err(|error| Finding::Trouble(format!("nft -j list ruleset: {error}")))?;
    Ok(value.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// `iptables-legacy-save` and its IPv6 sister, when the kernel has legacy tables here; `iptables-nft` is seen by [`nft`].
///
/// # Errors
/// Trouble if the tool fails.
pub fn legacy_rules() -> Verdict<Vec<String>> {
    let mut lines = Vec::new();
    for (names, program) in
        [("/proc/net/ip_tables_names", "iptables-legacy-save"), ("/proc/net/ip6_tables_names", "ip6tables-legacy-save")]
    {
        if fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty()) {
            let output = tool(program, &[])?;
            let output = String::from_utf8_lossy(&output).into_owned();
            lines.extend(
                output.lines().filter(|line| line.starts_with("-A") || line.starts_with("-N")).map(str::to_owned),
            );
        }
    }
    Ok(lines)
}

/// Names of the host's interfaces.
///
/// # Errors
/// Trouble if ip(8) fails.
pub fn link_names() -> Verdict<Vec<String>> {
    let links = ip(&["link", "show"])?;
    Ok(links.as_array().into_iter().flatten().map(|link| text(link, "ifname").to_owned()).collect())
}

/// One interface of the host, by name.
///
/// # Errors
/// Trouble if ip(8) fails.
pub fn link(name: &str) -> Verdict<Option<Value>> {
    let links = ip(&["-d", "address", "show"])?;
    Ok(links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == name).cloned())
}

/// Writes a setting.
///
/// # Errors
/// Trouble if the kernel refuses.
pub fn write(path: &str, value: &str) -> Verdict {
    fs::write(path, value).map_err(|error| Finding::Trouble(format!("cannot write {value} to {path}: {error}")))
}

/// Every file and folder below a path, without following links.
pub fn files(below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.starts_with("/run/netns") || path.starts_with(super::OWN_FOLDER) {
            continue;
        }
        found.push(path.display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&path, found);
        }
    }
}
