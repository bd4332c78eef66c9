//! The machine's own network, before and after.

use std::collections::BTreeMap;
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

/// Addresses, routes and rules of the namespace this runs in, as text, and its settings.
pub struct Machine {
    text: String,
    settings: Settings,
}

/// What is in the files below /proc/sys/net, by their names below /proc/sys.
type Settings = BTreeMap<String, String>;

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
        let mut settings = Settings::new();
        read_settings(Path::new("/proc/sys/net"), &mut settings);
        Ok(Self { text, settings })
    }

    /// Fails with the difference if the machine is not now as it was then.
    pub fn unchanged(&self) -> Result<(), Error> {
        let now = Self::observe()?;
        let before = self.text.clone() + &listed(&self.settings, &self.settings);
        let after = now.text + &listed(&now.settings, &self.settings);
        if before == after {
            return Ok(());
        }
        let diff = TextDiff::from_lines(&before, &after).unified_diff().header("before", "after").to_string();
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

/// Those that were there before, a line each. What is new came with a module, which the kernel loads for a rule or a
/// socket of any namespace (conntrack, SCTP) and which has its settings in each; an interface's come with the interface.
fn listed(settings: &Settings, before: &Settings) -> String {
    let there = settings.iter().filter(|(name, _)| before.contains_key(*name));
    there.fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

/// Every readable file below it.
fn read_settings(folder: &Path, settings: &mut Settings) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            read_settings(&path, settings);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix("/proc/sys").unwrap_or(&path).display().to_string();
            if !VOLATILE_SYSCTLS.contains(&name.as_str()) {
                settings.insert(name, value.trim_end().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(settings: [(&str, &str); 2]) -> Settings {
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn settings_that_come_with_a_module_are_no_change_of_those_before() {
        let before = machine([("net/core/somaxconn", "4096"), ("net/netfilter/nf_log/2", "NONE")]);
        let more = [("net/netfilter/nf_conntrack_max".to_owned(), "1".to_owned())];
        let loaded: Settings = before.clone().into_iter().chain(more).collect();
        assert_eq!(listed(&loaded, &before), listed(&before, &before));
        let changed = machine([("net/core/somaxconn", "4096"), ("net/netfilter/nf_log/2", "nf_log_ipv4")]);
        assert_ne!(listed(&changed, &before), listed(&before, &before));
        assert_ne!(listed(&Settings::new(), &before), listed(&before, &before));
    }
}
