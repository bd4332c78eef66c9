//! What a chain leaves behind: the exact difference of the node before the first ADD and after the last DEL.

pub mod snapshot;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::conflist::Conflist;
use crate::leases;

/// The difference, sorted by whom it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Residue {
    /// How many lines of state were compared.
    pub compared: usize,
    /// What nobody may leave: `+` is new, `-` is gone.
    pub left: Vec<String>,
    /// What stays on purpose, or is known to be left by a reference plugin in the chain.
    pub known: Vec<Known>,
}

/// Lines that one plugin is known to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Who leaves them, and why that is no failure.
    pub by: &'static str,
    /// The lines.
    pub lines: Vec<String>,
}

/// Compares two snapshots; `list` says which plugins may have left what they are known for.
#[must_use]
pub fn compare(before: &BTreeSet<String>, after: &BTreeSet<String>, list: &Conflist) -> Residue {
    let mut residue = Residue { compared: before.union(after).count(), left: Vec::new(), known: Vec::new() };
    let added = after.difference(before).map(|line| (true, line));
    let gone = before.difference(after).map(|line| (false, line));
    for (is_new, line) in added.chain(gone) {
        let shown = format!("{} {line}", if is_new { '+' } else { '-' });
        match HABITS.iter().find(|habit| habit.explains(line, list)) {
            None => residue.left.push(shown),
            Some(habit) => match residue.known.iter_mut().find(|known| known.by == habit.by) {
                Some(known) => known.lines.push(shown),
                None => residue.known.push(Known { by: habit.by, lines: vec![shown] }),
            },
        }
    }
    residue
}

/// What somebody is known to leave.
struct Habit {
    by: &'static str,
    /// Only if the chain has a plugin of one of these types; none for everybody.
    of: &'static [&'static str],
    /// Where the plugin keeps its files unless its `dataDir` says otherwise: that folder and those above it count.
    folder: Option<&'static str>,
    /// `*` is any text, `DATADIR` that folder, `NETWORK` the network's name.
    lines: &'static [&'static str],
}

const HABITS: [Habit; 5] = [
    Habit {
        by: "kept: forwarding, which others on the node may need by now, and what the kernel does for it",
        of: &[],
        folder: None,
        lines: &[
            "sysctl net/ipv4/ip_forward =*",
            "sysctl net/ipv*/conf/*/forwarding =*",
            "sysctl net/ipv4/conf/all/accept_redirects =*",
            // RFC 4291, 2.6.1: a router answers to the first address of each subnet.
            "route anycast * proto kernel *",
        ],
    },
    Habit {
        by: "kept by podwire-ipam: its ledger, without leases",
        of: &["podwire-ipam"],
        folder: Some(leases::PODWIRE_IPAM),
        lines: &["file DATADIR/*", "file /var/lib/podwire/*"],
    },
    Habit {
        by: "left by the reference host-local",
        of: &["host-local"],
        folder: Some(leases::HOST_LOCAL),
        lines: &["file DATADIR/NETWORK/", "file DATADIR/NETWORK/lock", "file DATADIR/NETWORK/last_reserved_ip.*"],
    },
    Habit {
        by: "left by the reference ptp",
        of: &["ptp"],
        folder: None,
        lines: &[
            "nft table ip nat",
            "nft table ip6 nat",
            "nft table ip* nat chain POSTROUTING",
            "nft table ip* nat chain POSTROUTING: type nat hook *",
            "legacy iptables table nat in *",
        ],
    },
    Habit {
        by: "left by the reference portmap",
        of: &["portmap"],
        folder: None,
        lines: &[
            "nft table ip nat",
            "nft table ip6 nat",
            "nft table ip* nat chain PREROUTING",
            "nft table ip* nat chain OUTPUT",
            "nft table ip* nat chain POSTROUTING",
            "nft table ip* nat chain *: type nat hook *",
            "nft table ip* nat chain *: *jump CNI-HOSTPORT-*",
            "nft table ip* nat chain CNI-HOSTPORT-*",
            "legacy iptables table nat in *",
        ],
    },
];

impl Habit {
    fn explains(&self, line: &str, list: &Conflist) -> bool {
        let of = |name: &str| self.of.contains(&name);
        let mut plugins = list.plugins.iter();
        if !self.of.is_empty() && !plugins.any(|plugin| of(&plugin.plugin_type) || plugin.ipam_type().is_some_and(of)) {
            return false;
        }
        let folder = self.folder.map(|folder| leases::data_dir(list).unwrap_or(folder).trim_end_matches('/'));
        let data = folder.unwrap_or_default();
        let above = line.strip_prefix("file ").filter(|path| path.ends_with('/'));
        let is_above = above.is_some_and(|path| folder.is_some() && format!("{data}/").starts_with(path));
        let filled = |pattern: &str| pattern.replace("DATADIR", data).replace("NETWORK", list.name.as_str());
        is_above || self.lines.iter().any(|pattern| matches(&filled(pattern), line))
    }
}

/// `*` stands for any text.
fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|left| {
            // Nothing, one character, and so on, up to all of what is left.
            let ends = left.char_indices().map(|(at, _)| at).chain([left.len()]);
            ends.filter_map(|at| left.get(at..)).any(|left| matches(rest, left))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn list(plugins: &str) -> Conflist {
        let text = format!(r#"{{"cniVersion": "1.0.0", "name": "podnet", "plugins": [{plugins}]}}"#);
        Conflist::parse(Path::new("test.conflist"), text.as_bytes()).unwrap()
    }

    fn lines(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn the_difference_is_exact_in_both_directions() {
        let before = lines(&["link lo", "route a"]);
        let after = lines(&["link lo", "route b", "sysctl net/ipv4/ip_forward = 1"]);
        let residue = compare(&before, &after, &list(r#"{"type": "podwire"}"#));
        assert_eq!(residue.left, ["+ route b", "- route a"]);
        assert_eq!(residue.compared, 4);
        assert_eq!(residue.known.len(), 1);
        assert_eq!(residue.known[0].lines, ["+ sysctl net/ipv4/ip_forward = 1"]);
        assert!(compare(&before, &before, &list(r#"{"type": "podwire"}"#)).left.is_empty());
    }

    #[test]
    fn only_a_plugin_of_the_chain_is_excused() {
        let after = lines(&[
            "file /var/lib/cni/networks/podnet/last_reserved_ip.0",
            "file /var/lib/cni/networks/podnet/10.244.1.2",
            "file /var/lib/cni/networks/other/lock",
        ]);
        let left = |plugins| compare(&BTreeSet::new(), &after, &list(plugins)).left.len();
        assert_eq!(left(r#"{"type": "podwire", "ipam": {"type": "podwire-ipam"}}"#), 3);
        assert_eq!(left(r#"{"type": "podwire", "ipam": {"type": "host-local"}}"#), 2);
        assert_eq!(left(r#"{"type": "podwire", "ipam": {"type": "host-local", "dataDir": "/run/other"}}"#), 3);
    }

    #[test]
    fn a_ledger_is_excused_where_its_config_puts_it() {
        let after =
            lines(&["file /run/x/", "file /run/x/y/", "file /run/x/y/db", "file /run/x/z", "file /run/podwire/"]);
        let plugins = r#"{"type": "podwire", "ipam": {"type": "podwire-ipam", "dataDir": "/run/x/y/"}}"#;
        assert_eq!(compare(&BTreeSet::new(), &after, &list(plugins)).left, ["+ file /run/podwire/", "+ file /run/x/z"]);
    }

    #[test]
    fn a_star_is_any_text() {
        assert!(matches(
            "nft table ip* nat chain *: *jump CNI-*",
            "nft table ip6 nat chain OUTPUT: counter jump CNI-X"
        ));
        assert!(matches("a*", "a") && matches("*", "") && matches("a*c", "abcbc"));
        assert!(!matches("a*c", "abcb") && !matches("ab", "abc"));
    }
}
