//! The invariants of ARCHITECTURE.md that no lint can hold: read the sources and look.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Planning is pure: these import nothing that has effects. Files, or folders with all that is in them.
const PURE: &[&str] = &[
    "nft-model/src",
    "cni-plugin/src/diff.rs",
    "cni-plugin/src/masquerade",
    "cni-plugin/src/masquerade.rs",
    "cni-plugin/src/names.rs",
    "cni-plugin/src/plan.rs",
    "cni-plugin/src/reconcile/tables.rs",
    "cni-plugin/src/step.rs",
    "portmap/src/claim.rs",
    "portmap/src/difference.rs",
    "portmap/src/forward.rs",
    "portmap/src/policy.rs",
    "portmap/src/probe.rs",
    "portmap/src/conditions.rs",
    "portmap/src/ruleset.rs",
    "portmap/src/ruleset",
    "ipam/src/allocate.rs",
    "ipam/src/pool.rs",
    "ipam/src/span.rs",
    "ipam/src/cli/map/cells.rs",
    "ipam/src/cli/map/svg.rs",
    "ipam/src/cli/map/text.rs",
    "ipam/src/cli/metrics.rs",
    "ipam/src/cli/transfer/plan.rs",
    "ipam/src/cli/verify/compare.rs",
    "ipam/src/history/tenancy.rs",
];

/// What a pure module must not name.
const EFFECTS: &[&str] = &["std::fs", "std::process", "std::net::Tcp", "kernel::", "sled", "use kernel", "std::env"];

/// The longest a source file may be, in lines.
const LONGEST: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn sources(below: &Path) -> Vec<PathBuf> {
    if below.is_file() {
        return vec![below.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap_or_else(|error| panic!("{}: {error}", below.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

/// Every line of the code itself, without its unit tests and comments, with its place.
fn code_lines(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let place = |number: usize| format!("{}:{}", file.strip_prefix(root()).unwrap().display(), number + 1);
    let is_comment = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().enumerate().filter(|(_, line)| is_comment(line)).map(|(n, line)| (place(n), line.to_owned())).collect()
}

fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn planning_is_pure() {
    let mut findings = Vec::new();
    for part in PURE {
        for file in sources(&root().join(part)) {
            for (place, line) in code_lines(&file) {
                if let Some(effect) = EFFECTS.iter().find(|effect| line.contains(**effect)) {
                    findings.push(format!("{place}: a pure module names {effect}"));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn only_the_store_names_sled() {
    let mut findings = Vec::new();
    for file in sources(root()) {
        let relative = file.strip_prefix(root()).unwrap().to_owned();
        if relative.starts_with("ipam/src/store") || relative.starts_with("xtask") || relative.starts_with("ipam/tests")
        {
            continue;
        }
        for (place, line) in code_lines(&file) {
            if line.contains("sled::") || line.contains("use sled") {
                findings.push(format!("{place}: names sled"));
            }
        }
    }
    report(&findings);
}

#[test]
fn conformance_knows_no_plugin() {
    let manifest = fs::read_to_string(root().join("conformance/Cargo.toml")).unwrap();
    let ours = ["cni-spec", "podwire", "ipam", "portmap", "kernel", "nft-model"];
    let findings: Vec<String> = ours
        .iter()
        .filter(|name| manifest.lines().any(|line| line.starts_with(*name)))
        .map(|name| format!("conformance/Cargo.toml depends on {name}"))
        .collect();
    report(&findings);
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    for file in sources(root()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        let relative = file.strip_prefix(root()).unwrap();
        let is_test = relative.components().any(|part| part.as_os_str() == "tests");
        if lines > LONGEST && !is_test {
            findings.push(format!("{}: {lines} lines, more than {LONGEST}", relative.display()));
        }
    }
    report(&findings);
}
