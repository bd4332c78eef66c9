//! From config to rule set: each folder of `tests/golden` has a network config (`config.json`), optionally the
//! container's part of the environment (`env.json`), and what a node then holds: `ruleset.nft` on nftables,
//! `ruleset.iptables` and `ruleset.ip6tables` on iptables. UPDATE_GOLDEN=1 rewrites the last three.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::backend::Backend;
use crate::common::plugin;
use cni_spec::{Attachment, NetConf};
use data_encoding::HEXLOWER;
use nft_model::Family;
use portmap::config::Config;
use portmap::ruleset::{self, LAYOUT, Realm};
use sha2::{Digest, Sha256};

on_each_backend!(the_kernel_holds_what_was_planned, its_tool_reads_what_was_planned, it_can_be_called_portmap,);

struct Case {
    folder: PathBuf,
    config: String,
    environment: BTreeMap<String, String>,
}

impl Case {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        assert!(!folders.is_empty());
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        let environment = fs::read_to_string(folder.join("env.json"));
        let mut environment: BTreeMap<String, String> =
            environment.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
        for (name, value) in [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/pod")] {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        Self { folder, config, environment }
    }

    /// The config as this crate reads it; `None` if it asks for no host port.
    fn checked(&self) -> Option<Config> {
        let conf = NetConf::from_bytes(self.config.clone().into_bytes()).unwrap();
        let attachment = Attachment {
            network: conf.name.clone(),
            container_id: self.environment["CNI_CONTAINERID"].parse().unwrap(),
            ifname: self.environment["CNI_IFNAME"].parse().unwrap(),
        };
        Config::new(&attachment, &conf, conf.prev_result.as_ref().unwrap()).unwrap()
    }

    /// Whether nftables can do it.
    fn is_for_nftables(&self) -> bool {
        !self.config.contains("externalSetMarkChain")
    }

    /// The rule set as this crate plans it, in nftables.
    fn planned(&self) -> String {
        let config = self.checked().filter(|_| self.is_for_nftables());
        let tables = config.map(|config| ruleset::tables(&config).unwrap()).unwrap_or_default();
        tables.iter().map(ToString::to_string).collect()
    }

    /// The rule set as this crate plans it, in iptables.
    fn planned_rules(&self, family: Family) -> String {
        let config = self.checked().filter(|config| config.maps(family));
        config.map(|config| ruleset::iptables::listing(&config, family)).unwrap_or_default()
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// The config with a backend.
    fn config_on(&self, backend: Backend) -> String {
        let mut config: serde_json::Value = serde_json::from_str(&self.config).unwrap();
        config["backend"] = backend.key();
        config.to_string()
    }

    /// Our rules as iptables(8) lists them after an ADD by the executable: each with its table, in the order of their
    /// chains.
    fn applied_rules(&self, backend: Backend) -> Vec<String> {
        plugin::call("ADD", &self.environment(), &self.config_on(backend)).ok();
        let rules = backend.rules();
        plugin::call("DEL", &self.environment(), &self.config_on(backend)).ok();
        assert_eq!(backend.rules(), "", "after DEL");
        in_chains(&rules)
    }

    /// The rule set as nft(8) lists it after an ADD by the executable.
    fn applied(&self) -> String {
        if !self.is_for_nftables() {
            return String::new();
        }
        let config = self.config_on(Backend::Nftables);
        plugin::call("ADD", &self.environment(), &config).ok();
        let listed = plugin::ruleset();
        plugin::call("DEL", &self.environment(), &config).ok();
        assert_eq!(plugin::ruleset(), "", "after DEL");
        listed
    }

    fn expected(&self) -> String {
        fs::read_to_string(self.folder.join("ruleset.nft")).unwrap_or_default()
    }

    fn expected_rules(&self, family: Family) -> String {
        fs::read_to_string(self.folder.join(rules_file(family))).unwrap_or_default()
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }
}

fn rules_file(family: Family) -> &'static str {
    if family == Family::Ip { "ruleset.iptables" } else { "ruleset.ip6tables" }
}

/// Rules without the quotes that iptables prints only where it must, sorted by their chains.
fn in_chains(rules: &str) -> Vec<String> {
    let mut rules: Vec<String> =
        rules.lines().filter(|line| line.starts_with("-A ")).map(|line| line.replace('"', "")).collect();
    rules.sort_by_key(|rule| rule.split(' ').nth(1).unwrap_or_default().to_owned());
    rules
}

/// nft(8) lists elements in the order in which the kernel happens to give them: here each has a line, sorted.
fn in_order(listing: &str) -> String {
    let (mut lines, mut elements) = (Vec::new(), Vec::new());
    for line in listing.lines() {
        if line.starts_with("\t\telements = { ") || line.starts_with("\t\t\t     ") {
            let element = line.trim_start().trim_start_matches("elements = { ");
            elements.push(element.trim_end_matches(',').trim_end_matches(" }"));
        } else {
            elements.sort_unstable();
            lines.append(&mut elements);
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn compare(found: impl Fn(&Case) -> String, normal: fn(&str) -> String) {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let (expected, found) = (normal(&case.expected()), normal(&found(&case)));
        if expected != found {
            wrong.push(format!("== {}\n-- expected\n{expected}\n-- found\n{found}\n", case.name()));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn rule_sets_are_as_planned() {
    #[expect(clippy::disallowed_methods, reason = "how golden files are rewritten")]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for case in Case::all() {
            fs::write(case.folder.join("ruleset.nft"), case.planned()).unwrap();
            for family in Family::ALL {
                fs::write(case.folder.join(rules_file(family)), case.planned_rules(family)).unwrap();
            }
        }
    }
    compare(Case::planned, str::to_owned);
    for case in Case::all() {
        for family in Family::ALL {
            assert_eq!(case.planned_rules(family), case.expected_rules(family), "{} {family}", case.name());
        }
    }
}

/// What STATUS looks for is what rules have, neither more nor less.
#[test]
fn pieces_of_iptables_are_those_of_its_rules() {
    let words = |rules: &str, before: &str| -> BTreeSet<String> {
        let words: Vec<&str> = rules.split_whitespace().collect();
        words.windows(2).filter(|pair| pair[0] == before).map(|pair| pair[1].to_owned()).collect()
    };
    for (case, family) in Case::all().iter().flat_map(|case| Family::ALL.map(|family| (case, family))) {
        let rules = case.expected_rules(family);
        let Some(config) = case.checked().filter(|config| config.maps(family)) else { continue };
        let pieces = ruleset::iptables::pieces(&config.settings, family);
        let of = |is_target: bool| -> BTreeSet<String> {
            pieces.iter().filter(|piece| piece.is_target == is_target).map(|piece| piece.name.to_owned()).collect()
        };
        let mut matches = words(&rules, "-m");
        matches.retain(|name| !["tcp", "udp", "sctp"].contains(&name.as_str()));
        assert_eq!(of(false), matches, "{} {family}", case.name());
        let mut targets = words(&rules, "-j");
        targets.retain(|name| name != "DROP" && !name.contains('-'));
        assert_eq!(of(true), targets, "{} {family}", case.name());
    }
}

/// A chain that a config expects somebody else to have.
fn their_chain(backend: Backend) {
    for program in ["iptables", "ip6tables"] {
        let restore = format!("{program}{}-restore", &backend.iptables()["iptables".len()..]);
        plugin::feed(&restore, &["--noflush"], "*nat\n:KUBE-MARK-MASQ - [0:0]\nCOMMIT\n");
    }
}

fn both(case: &Case) -> Vec<String> {
    in_chains(&Family::ALL.map(|family| case.expected_rules(family)).concat())
}

fn the_kernel_holds_what_was_planned(backend: Backend) {
    if backend == Backend::Nftables {
        return compare(Case::applied, in_order);
    }
    their_chain(backend);
    for case in Case::all() {
        assert_eq!(case.applied_rules(backend), both(&case), "{}", case.name());
    }
}

fn its_tool_reads_what_was_planned(backend: Backend) {
    if backend == Backend::Nftables {
        let listed = |case: &Case| {
            plugin::nft(&["-f", case.folder.join("ruleset.nft").to_str().unwrap()]);
            let listed = plugin::ruleset();
            plugin::nft(&["flush", "ruleset"]);
            listed
        };
        return compare(listed, in_order);
    }
    for case in Case::all() {
        their_chain(backend);
        for program in ["iptables", "ip6tables"] {
            let restore = format!("{program}{}-restore", &backend.iptables()["iptables".len()..]);
            let family = if program == "iptables" { Family::Ip } else { Family::Ip6 };
            plugin::feed(&restore, &["--noflush"], &case.expected_rules(family));
        }
        assert_eq!(in_chains(&backend.rules()), both(&case), "{}", case.name());
        for program in ["iptables", "ip6tables"] {
            let restore = format!("{program}{}-restore", &backend.iptables()["iptables".len()..]);
            plugin::feed(&restore, &[], "*nat\nCOMMIT\n*raw\nCOMMIT\n");
        }
    }
}

/// Installed under the name of the reference plugin, with a config and a request as containerd has them.
fn it_can_be_called_portmap(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let portmap = folder.path().join("portmap");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_podwire-portmap"), &portmap).unwrap();
    let case = Case::all().into_iter().find(|case| case.name() == "containerd").unwrap();
    let config = case.config_on(backend).replace("podwire-portmap", "portmap");
    let call = |verb| {
        let output = plugin::run(sandbox::command(&portmap), verb, &case.environment(), &config);
        plugin::Answer::of(&output).ok()
    };
    call("ADD");
    assert!(backend.rules().contains("8080"), "{}", backend.rules());
    call("CHECK");
    call("DEL");
    assert_eq!(backend.rules(), "");
}

/// The number stands for the frame: whoever changes one has to change the other, and this.
#[test]
fn another_frame_has_another_number() {
    let frames = Family::ALL.map(|family| ruleset::frame(&Realm::common(family)).unwrap().to_string());
    let hash = HEXLOWER.encode(&Sha256::digest(frames.concat())[..8]);
    assert_eq!((LAYOUT, hash.as_str()), ("podwire-portmap layout 2", "86f94a8708269193"));
}
