//! Everything on a node that a CNI chain could leave behind, as lines of text that can be compared.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Why the node could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A program could not be run.
    #[error("cannot run {command}")]
    Run {
        /// Its command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// What `ip -json` printed is not JSON.
    #[error("{command} printed no JSON")]
    Json {
        /// Its command line.
        command: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A folder could not be listed.
    #[error("cannot list {path}")]
    List {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folders below which every file counts.
const FOLDERS: [&str; 2] = ["/run", "/var/lib"];

/// Settings of the whole node; those of a pod's link go with the link.
const SYSCTLS: [&str; 5] =
    ["net/ipv4/ip_forward", "net/ipv4/conf/all", "net/ipv4/conf/default", "net/ipv6/conf/all", "net/ipv6/conf/default"];

/// Names of the old iptables' tables that are in use; those of iptables-nft are in the rule set.
const LEGACY_TABLES: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// The node's state at one moment: links, addresses, routes, rules, permanent neighbours, the nft rule set,
/// sysctls, files. Programs other than ours tell it.
///
/// # Errors
/// If a part of it cannot be read: what is not read cannot be compared.
pub fn take() -> Result<BTreeSet<String>, SnapshotError> {
    let mut lines = BTreeSet::new();
    for link in json(&["-json", "link", "show"])? {
        lines.insert(format!("link {} {} mtu {}", text(&link["ifname"]), text(&link["address"]), link["mtu"]));
    }
    for family in ["-4", "-6"] {
        let parts: [(&str, &[&str]); 4] = [
            ("address", &["-oneline", "address", "show"]),
            ("route", &["route", "show", "table", "all"]),
            ("rule", &["rule", "show"]),
            ("neighbour", &["neighbour", "show", "nud", "permanent"]),
        ];
        for (name, arguments) in parts {
            let output = run("ip", &[&[family], arguments].concat())?;
            lines.extend(output.lines().map(|line| format!("{name} {}", plain(line))));
        }
    }
    lines.extend(rule_set(&run("nft", &["--stateless", "list", "ruleset"])?));
    for (table, file) in LEGACY_TABLES.iter().filter_map(|file| Some((fs::read_to_string(file).ok()?, file))) {
        lines.extend(table.lines().map(|name| format!("legacy iptables table {name} in {file}")));
    }
    for name in SYSCTLS {
        sysctls(Path::new("/proc/sys").join(name).as_path(), &mut lines);
    }
    for folder in FOLDERS {
        files(Path::new(folder), &mut lines)?;
    }
    Ok(lines)
}

/// The same, once all IPv6 addresses are in force; after so long, as it is.
///
/// # Errors
/// Those of [`take`].
pub fn take_settled(patience: Duration) -> Result<BTreeSet<String>, SnapshotError> {
    let deadline = Instant::now() + patience;
    loop {
        let lines = take()?;
        if !lines.iter().any(|line| line.contains(" tentative")) || Instant::now() > deadline {
            return Ok(lines);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each table, set, map, chain, and each rule or element with the place it stands in.
fn rule_set(text: &str) -> Vec<String> {
    let mut place: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "}" {
            place.pop();
        } else if let Some(head) = line.strip_suffix('{').filter(|head| !head.contains('=')) {
            place.push(head.trim().to_owned());
            lines.push(format!("nft {}", place.join(" ")));
        } else {
            lines.push(format!("nft {}: {line}", place.join(" ")));
        }
    }
    lines
}

/// One value, or all of a folder. A few cannot be read before they are set; those tell nothing.
fn sysctls(path: &Path, lines: &mut BTreeSet<String>) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| sysctls(&entry.path(), lines)),
        Err(_) => {
            if let Ok(value) = fs::read_to_string(path) {
                let name = path.strip_prefix("/proc/sys").unwrap_or(path).display();
                lines.insert(format!("sysctl {name} = {}", value.trim()));
            }
        }
    }
}

/// Folders count as well, with a '/' at their end.
fn files(folder: &Path, lines: &mut BTreeSet<String>) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::List { path: folder.display().to_string(), source };
    let entries = match fs::read_dir(folder) {
        // Others may live on the node, and come and go.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            lines.insert(format!("file {}/", entry.path().display()));
            files(&entry.path(), lines)?;
        } else {
            lines.insert(format!("file {}", entry.path().display()));
        }
    }
    Ok(())
}

fn json(arguments: &[&str]) -> Result<Vec<Value>, SnapshotError> {
    let command = || format!("ip {}", arguments.join(" "));
    serde_json::from_str(&run("ip", arguments)?).map_err(|source| SnapshotError::Json { command: command(), source })
}

fn run(program: &str, arguments: &[&str]) -> Result<String, SnapshotError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = sandbox::command(program)
        .args(arguments)
        .output()
        .map_err(|source| SnapshotError::Run { command: command(), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(SnapshotError::Failed { command: command(), status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Without the number that ip(8) puts in front of an interface, and without lifetimes.
fn plain(line: &str) -> String {
    let line = line.split('\\').next().unwrap_or(line);
    let words = line.split_whitespace();
    let is_index =
        |word: &&str| word.strip_suffix(':').is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
    words.skip_while(is_index).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_known_by_its_place() {
        let text = "
table ip nat {
	set pods {
		type ipv4_addr
		elements = { 10.0.0.1 comment \"a\",
			     10.0.0.2 comment \"b\" }
	}

	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		counter jump CNI-HOSTPORT-MASQ
	}
}
";
        assert_eq!(
            rule_set(text),
            [
                "nft table ip nat",
                "nft table ip nat set pods",
                "nft table ip nat set pods: type ipv4_addr",
                "nft table ip nat set pods: elements = { 10.0.0.1 comment \"a\",",
                "nft table ip nat set pods: 10.0.0.2 comment \"b\" }",
                "nft table ip nat chain POSTROUTING",
                "nft table ip nat chain POSTROUTING: type nat hook postrouting priority srcnat; policy accept;",
                "nft table ip nat chain POSTROUTING: counter jump CNI-HOSTPORT-MASQ",
            ]
        );
    }
}
