//! Every case must be seen to fail: for each there is a plugin that is right but for that one sentence.
//!
//! Each of them is asked its own case, which must fail. `CONFORMANCE_FAKES=next` asks the next case of the topic too, and
//! `CONFORMANCE_FAKES=all` the whole topic: none of those may fail, unless `golden/fakes.txt` says that this mistake cannot
//! but show there. `UPDATE_GOLDEN=1` adds to that file. `CONFORMANCE_ONLY` is a filter as of `run --filter`.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cni_conformance::cases::{self, Case};
use cni_conformance::host::Profile;
use cni_conformance::runner::{self, Options};
use cni_conformance::target::{Kind, Target};
use cni_conformance::verdict::Outcome;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fakes.txt");

/// Cases whose plugin must be stopped at very many places to be seen failing; see `killed_plugins_are_noticed`.
const SLOW: [&str; 4] = ["KILL-1", "KILL-2", "KILL-3", "KILL-4"];

const HEAD: &str = "\
# What else of its topic fails with the mistake that a case is there to notice. Every other mistake shows in its own case
# only.
";

/// Cases that have not been seen to fail yet: their plugins do not do it wrong well enough, or take too long to be caught.
const UNSEEN: &[&str] = &[
    "CHK-5c", "DP-13", "DP-14", "IO-13e", "IO-14", "IPA-4", "KILL-1", "KILL-2", "KILL-3", "PM-5c", "ROB-2", "ROB-9",
    "STA-3",
];

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("our own folder");
    folder
}

/// A target whose executables all have this fault; none if it is empty.
fn target(kind: Kind, fault: &str, folder: &Path) -> Target {
    let name =
        |role: &str| if fault.is_empty() { format!("cni-fake-{role}") } else { format!("cni-fake-{role}+{fault}") };
    for role in ["main", "ipam", "chained"] {
        let path = folder.join(name(role));
        if !path.exists() {
            symlink(env!("CARGO_BIN_EXE_cni-fake"), path).expect("a symbolic link");
        }
    }
    let capabilities = match kind {
        Kind::Chained => "portMappings = true, bandwidth = true",
        Kind::Main | Kind::Ipam => "ips = true",
    };
    let text = format!(
        "name = 'fake {fault}'\nkind = '{0}'\nunsupported = {{ unsupported = 'yes' }}\ninvalid = {{ invalid = 'yes' }}\n\
         plugins = [{{ type = '{1}', capabilities = {{ {capabilities} }}, ipam = {{ type = '{2}' }} }}]\n\
         [small_pool.ipam]\nsize = 6\n[traits]\nipv6 = true\nmasquerades = true\n",
        kind.word(),
        name(kind.word()),
        name("ipam"),
    );
    let path = folder.join(format!("{}.toml", name(kind.word())));
    fs::write(&path, text).expect("our own folder");
    Target::read(&path).expect("the text is a target")
}

fn options(folder: &Path) -> Options {
    Options {
        dirs: vec![folder.to_owned()],
        jobs: 1,
        limit: Duration::from_secs(60),
        thorough: false,
        program: PathBuf::from(env!("CARGO_BIN_EXE_cni-conformance")),
    }
}

/// Whom the case is asked when it is seen to fail.
fn kind_of(case: &Case) -> Kind {
    let of_chained = case.topic == "ports" || matches!(case.id, "CHK-4c" | "CHK-4d");
    if of_chained { Kind::Chained } else { case.kinds[0] }
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for more")]
    std::env::var(name).ok()
}

/// The case, and some or all of its topic.
fn asked(case: &'static Case) -> Vec<&'static Case> {
    let kind = kind_of(case);
    let topic = || cases::all().filter(|other| other.topic == case.topic && other.kinds.contains(&kind));
    let place = topic().position(|other| other.id == case.id).expect("it is of its own topic");
    let range = match variable("CONFORMANCE_FAKES").as_deref() {
        None => place..place + 1,
        Some("all") => 0..usize::MAX,
        Some(_) => place..place + 2,
    };
    let chosen = topic().enumerate().filter(|(index, _)| range.contains(index)).map(|(_, other)| other);
    chosen.filter(|other| other.id == case.id || !SLOW.contains(&other.id)).collect()
}

/// Which cases failed by their verdict, and what was wrong with the others.
fn failures(case: &'static Case, profile: &Profile, folder: &Path) -> (BTreeSet<&'static str>, Vec<String>) {
    let target = target(kind_of(case), case.id, folder);
    let report = runner::run_with(&target, profile, &asked(case), &options(folder), &|_| ());
    let report = report.unwrap_or_else(|error| panic!("{}: {}", case.id, error.chain()));
    let failed = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).map(|row| row.id).collect();
    let trouble = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Trouble(_)));
    let trouble = trouble.map(|row| format!("{} asked of {}: {:?}", row.id, case.id, row.outcome.why())).collect();
    (failed, trouble)
}

/// What else each mistake shows in.
fn golden() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(GOLDEN).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    lines.map(|(id, also)| (id.to_owned(), also.split(' ').map(str::to_owned).collect())).collect()
}

/// What the faultless plugin keeps for itself is what those with a fault may keep.
fn profiles(folder: &Path) -> impl Fn(Kind) -> Profile {
    let of = |kind| runner::profile(&target(kind, "", folder), &options(folder)).expect("the faultless plugin works");
    let all = [Kind::Main, Kind::Chained, Kind::Ipam].map(|kind| (kind, of(kind)));
    move |kind| all.iter().find(|(known, _)| *known == kind).map(|(_, profile)| profile.clone()).expect("every kind")
}

#[test]
fn every_case_is_seen_to_fail_and_its_neighbours_are_not() {
    let folder = folder();
    let (known, profile) = (golden(), profiles(folder.path()));
    let only = variable("CONFORMANCE_ONLY");
    let wanted = |case: &&Case| match &only {
        Some(only) => case.matches(only),
        None => !UNSEEN.contains(&case.id),
    };
    let chosen: Vec<_> = cases::all().filter(wanted).collect();
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failures = failures(case, &profile(kind_of(case)), folder.path());
                    seen.lock().expect("nobody panics with it").insert(case.id, failures);
                }
            });
        }
    });
    judge(&seen.into_inner().expect("all threads have ended"), &known);
}

/// Compares what failed with what must and may fail.
fn judge(seen: &BTreeMap<&str, (BTreeSet<&'static str>, Vec<String>)>, known: &BTreeMap<String, BTreeSet<String>>) {
    let (mut wrong, mut text) = (Vec::new(), String::from(HEAD));
    for (id, (failed, trouble)) in seen {
        wrong.extend(trouble.iter().cloned());
        if !failed.contains(id) {
            wrong.push(format!("{id} does not notice the plugin that does it wrong"));
        }
        let also: BTreeSet<String> = failed.iter().filter(|other| *other != id).map(|id| (*id).to_owned()).collect();
        let allowed = known.get(*id).cloned().unwrap_or_default();
        wrong.extend(also.difference(&allowed).map(|other| format!("{other} fails too, with the mistake of {id}")));
        let all: Vec<_> = also.union(&allowed).cloned().collect();
        if !all.is_empty() {
            text.push_str(&format!("{id}: {}\n", all.join(" ")));
        }
    }
    if variable("UPDATE_GOLDEN").is_some() {
        fs::write(GOLDEN, text).expect("the golden file is writable");
        wrong.retain(|text| !text.contains("fails too"));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn passes(kind: Kind) {
    let folder = folder();
    let all: Vec<_> = cases::all().filter(|case| case.kinds.contains(&kind) && !SLOW.contains(&case.id)).collect();
    let report =
        runner::run(&target(kind, "", folder.path()), &all, &Options { jobs: 3, ..options(folder.path()) }, &|_| ())
            .expect("it runs");
    let wrong: Vec<_> = report
        .rows
        .iter()
        .filter(|row| row.outcome.is_failure() || matches!(row.outcome, Outcome::Trouble(_)))
        .map(|row| format!("{} {}: {:?}", row.id, row.outcome.word(), row.outcome.why()))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_faultless_main_plugin_passes() {
    passes(Kind::Main);
}

#[test]
fn a_faultless_ipam_plugin_passes() {
    passes(Kind::Ipam);
}

#[test]
fn a_faultless_chained_plugin_passes() {
    passes(Kind::Chained);
}
