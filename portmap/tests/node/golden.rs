//! From config to rule set: each folder of `tests/golden` has a network config (`config.json`), optionally the
//! container's part of the environment (`env.json`), and what a node then holds (`ruleset.nft`).
//! UPDATE_GOLDEN=1 rewrites the last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::plugin;
use cni_spec::{Attachment, NetConf};
use portmap::config::Config;
use portmap::ruleset;
use sandbox::private_host;

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

    /// The rule set as this crate plans it.
    fn planned(&self) -> String {
        let conf = NetConf::from_bytes(self.config.clone().into_bytes()).unwrap();
        let attachment = Attachment {
            network: conf.name.clone(),
            container_id: self.environment["CNI_CONTAINERID"].parse().unwrap(),
            ifname: self.environment["CNI_IFNAME"].parse().unwrap(),
        };
        let config = Config::new(&attachment, &conf, conf.prev_result.as_ref().unwrap()).unwrap();
        let tables = config.map(|config| ruleset::tables(&config).unwrap()).unwrap_or_default();
        tables.iter().map(ToString::to_string).collect()
    }

    /// The rule set as nft(8) lists it after an ADD by the executable.
    fn applied(&self) -> String {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        plugin::call("ADD", &environment, &self.config).ok();
        let listed = plugin::ruleset();
        plugin::call("DEL", &environment, &self.config).ok();
        assert_eq!(plugin::ruleset(), "", "after DEL");
        listed
    }

    fn expected(&self) -> String {
        fs::read_to_string(self.folder.join("ruleset.nft")).unwrap_or_default()
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }
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
        Case::all().iter().for_each(|case| fs::write(case.folder.join("ruleset.nft"), case.planned()).unwrap());
    }
    compare(Case::planned, str::to_owned);
}

#[test]
fn the_kernel_holds_what_was_planned() {
    private_host(|| compare(Case::applied, in_order));
}

#[test]
fn nft_reads_what_was_planned() {
    private_host(|| {
        let listed = |case: &Case| {
            plugin::nft(&["-f", case.folder.join("ruleset.nft").to_str().unwrap()]);
            let listed = plugin::ruleset();
            plugin::nft(&["flush", "ruleset"]);
            listed
        };
        compare(listed, in_order);
    });
}
