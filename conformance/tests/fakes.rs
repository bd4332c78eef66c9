//! Every case must be seen to fail: for each there is a plugin that is right but for that one sentence.
//!
//! Each of them is asked its own case, which must fail, and its neighbours, which must not: the case before and the case
//! after it of the same topic, and the [`EVERYDAY`] cases. Where a mistake cannot but show in other cases too,
//! `golden/fakes.txt` names them. `CONFORMANCE_FAKES=topic` asks the whole topic, `CONFORMANCE_FAKES=all` every case of the
//! catalogue; both with `UPDATE_GOLDEN=1` write that file. `CONFORMANCE_ONLY` is a filter as of `run --filter`.

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

/// Cases that any plugin meets first: a mistake that spoils one of these is wider than its sentence.
const EVERYDAY: [&str; 2] = ["IO-2a", "WIRE-2"];

const HEAD: &str = "\
# Where else the mistake shows that a case is there to notice. What is not listed shows in its own case only.
# A ? says that it depends on chance, such as the order of calls at the same time.
";

/// What a plugin with a mistake did.
struct Seen {
    asked: BTreeSet<String>,
    failed: BTreeSet<String>,
    trouble: Vec<String>,
}

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
        Kind::Main => "ips = true, mac = true, dns = true",
        Kind::Ipam => "ips = true, ipRanges = true",
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
        limit: Duration::from_secs(300),
        points: 24,
        program: PathBuf::from(env!("CARGO_BIN_EXE_cni-conformance")),
    }
}

/// Whom the case is asked when it is seen to fail.
fn kind_of(case: &Case) -> Kind {
    let of_chained = case.topic == "ports" || matches!(case.id, "CHK-4c" | "CHK-4d" | "CAP-2a" | "CAP-2b" | "CAP-2c");
    if of_chained { Kind::Chained } else { case.kinds[0] }
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for more")]
    std::env::var(name).ok()
}

/// The case, and others that the mistake could show in.
fn asked(case: &'static Case) -> Vec<&'static Case> {
    let kind = kind_of(case);
    let all: Vec<_> = cases::all().filter(|other| other.kinds.contains(&kind)).collect();
    let place = all.iter().position(|other| other.id == case.id).expect("it is one of all");
    let depth = variable("CONFORMANCE_FAKES");
    let wanted = |(index, other): &(usize, &&Case)| match depth.as_deref() {
        Some("all") => true,
        Some(_) => other.topic == case.topic,
        None => {
            let is_near = other.topic == case.topic && index.abs_diff(place) < 2;
            // Killing takes long, and is asked of the plugins that get it wrong.
            (is_near && (case.id == other.id || !other.id.starts_with("KILL"))) || EVERYDAY.contains(&other.id)
        }
    };
    all.iter().enumerate().filter(wanted).map(|(_, other)| *other).collect()
}

/// Asks the plugin with this case's mistake.
fn ask(case: &'static Case, profile: &Profile, folder: &Path) -> Seen {
    let target = target(kind_of(case), case.id, folder);
    let profile = match case.topic {
        "packets" | "ports" => runner::profile(&target, &options(folder)).expect("it can be tried"),
        _ => profile.clone(),
    };
    let report = runner::run_with(&target, &profile, &asked(case), &options(folder), &|_| ());
    let report = report.unwrap_or_else(|error| panic!("{}: {}", case.id, error.chain()));
    let ids = |wanted: fn(&Outcome) -> bool| {
        report.rows.iter().filter(|row| wanted(&row.outcome)).map(|row| row.id.to_owned()).collect()
    };
    let trouble = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Trouble(_)));
    let trouble = trouble.map(|row| format!("{} asked of {}: {:?}", row.id, case.id, row.outcome.why())).collect();
    Seen { asked: ids(|_| true), failed: ids(Outcome::is_failure), trouble }
}

/// What else each mistake shows in; with a question mark what it may show in.
fn golden() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(GOLDEN).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    lines.map(|(id, also)| (id.to_owned(), also.split(' ').map(str::to_owned).collect())).collect()
}

/// What the faultless plugin keeps for itself is what those with a fault may keep, unless their fault is in the rules that
/// they keep.
fn profiles(folder: &Path) -> impl Fn(Kind) -> Profile {
    let of = |kind| runner::profile(&target(kind, "", folder), &options(folder)).expect("the faultless plugin works");
    let all = [Kind::Main, Kind::Chained, Kind::Ipam].map(|kind| (kind, of(kind)));
    move |kind| all.iter().find(|(known, _)| *known == kind).map(|(_, profile)| profile.clone()).expect("every kind")
}

#[test]
fn every_case_is_seen_to_fail_and_its_neighbours_are_not() {
    let folder = folder();
    let profile = profiles(folder.path());
    let only = variable("CONFORMANCE_ONLY");
    let wanted = |case: &&Case| only.as_ref().is_none_or(|only| case.matches(only));
    let chosen: Vec<_> = cases::all().filter(wanted).collect();
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        // Many of them wait for an answer that does not come.
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = ask(case, &profile(kind_of(case)), folder.path());
                    seen.lock().expect("nobody panics with it").insert(case.id, one);
                }
            });
        }
    });
    let seen = seen.into_inner().expect("all threads have ended");
    if variable("UPDATE_GOLDEN").is_some() {
        write_golden(&seen);
    }
    let golden = golden();
    let wrong: Vec<_> = seen.iter().flat_map(|(id, one)| judge(id, one, &golden)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Compares what failed with what must and may fail.
fn judge(id: &str, seen: &Seen, golden: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let Seen { asked, failed, trouble } = seen;
    let mut wrong = trouble.clone();
    if !failed.contains(id) {
        wrong.push(format!("{id} does not notice the plugin that does it wrong"));
    }
    let listed = golden.get(id).cloned().unwrap_or_default();
    let new = failed.iter().filter(|other| *other != id && !listed.contains(*other));
    let new = new.filter(|other| !listed.contains(&format!("{other}?")));
    wrong.extend(new.map(|other| format!("{other} fails too, with the mistake of {id}")));
    let gone = listed.iter().filter(|other| asked.contains(*other) && !failed.contains(*other));
    wrong.extend(gone.map(|other| format!("{other} is listed for the mistake of {id}, and passes")));
    wrong
}

/// Replaces what is known of the cases that were asked; what depends on chance stays listed.
fn write_golden(seen: &BTreeMap<&str, Seen>) {
    let mut known = golden();
    for (id, Seen { asked, failed, .. }) in seen {
        let listed = known.entry((*id).to_owned()).or_default();
        listed.retain(|other| !asked.contains(other));
        let by_chance = listed.clone();
        let also = failed.iter().filter(|other| *other != id && !by_chance.contains(&format!("{other}?")));
        listed.extend(also.cloned());
    }
    let order = |id: &str| cases::all().position(|case| case.id == id.trim_end_matches('?'));
    let mut lines: Vec<_> = known.iter().filter(|(_, also)| !also.is_empty()).collect();
    lines.sort_by_key(|(id, _)| order(id));
    let mut text = HEAD.to_owned();
    for (id, also) in lines {
        let mut also: Vec<_> = also.iter().map(String::as_str).collect();
        also.sort_by_key(|other| order(other));
        text.push_str(&format!("{id}: {}\n", also.join(" ")));
    }
    fs::write(GOLDEN, text).expect("the golden file is writable");
}

fn passes(kind: Kind) {
    let folder = folder();
    let all: Vec<_> = cases::all().filter(|case| case.kinds.contains(&kind)).collect();
    let options = Options { jobs: 2, points: 6, ..options(folder.path()) };
    let report = runner::run(&target(kind, "", folder.path()), &all, &options, &|_| ()).expect("it runs");
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
