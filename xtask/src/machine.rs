//! The machine's own network, before and after.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use similar::TextDiff;

use crate::error::Error;
use crate::program::{command, line, output};

/// Values that move by themselves: counters of leases and of connections.
const VOLATILE_KEYS: [&str; 2] = ["valid_life_time", "preferred_life_time"];
const VOLATILE_SYSCTLS: [&str; 2] = ["net/netfilter/nf_conntrack_count", "net/ipv4/route/flush"];

/// Addresses, routes, rules and settings of the namespace this runs in, as text.
pub struct Machine(String);

impl Machine {
    /// Reads it. The rule set can be read by root alone; for others its absence from the text says so.
    pub fn observe() -> Result<Self, Error> {
        let mut text = String::new();
        for arguments in [
            &["-j", "addr"][..],
            &["-j", "route", "show", "table", "all"],
            &["-6", "-j", "route", "show", "table", "all"],
        ] {
            let mut ip = command("ip");
            ip.args(arguments);
            let mut value: Value =
                serde_json::from_str(&output(&mut ip)?).map_err(|source| Error::Json { command: line(&ip), source })?;
            settle(&mut value);
            let _ = writeln!(text, "{}\n{value:#}", line(&ip));
        }
        if nix::unistd::geteuid().is_root() {
            let mut nft = command("nft");
            nft.args(["list", "ruleset"]);
            let _ = writeln!(text, "{}\n{}", line(&nft), output(&mut nft)?);
        }
        settings(Path::new("/proc/sys/net"), &mut text);
        Ok(Self(text))
    }

    /// Fails with the difference if the machine is not now as it was then.
    pub fn unchanged(&self) -> Result<(), Error> {
        let now = Self::observe()?;
        if now.0 == self.0 {
            return Ok(());
        }
        let diff = TextDiff::from_lines(&self.0, &now.0).unified_diff().header("before", "after").to_string();
        Err(Error::MachineChanged(diff))
    }
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !VOLATILE_KEYS.contains(&key.as_str()));
            map.values_mut().for_each(settle);
        }
        Value::Array(list) => list.iter_mut().for_each(settle),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every readable file below /proc/sys/net, in order.
fn settings(folder: &Path, text: &mut String) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            settings(&path, text);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix("/proc/sys").unwrap_or(&path).display().to_string();
            if !VOLATILE_SYSCTLS.contains(&name.as_str()) {
                let _ = writeln!(text, "{name}={}", value.trim_end());
            }
        }
    }
}
