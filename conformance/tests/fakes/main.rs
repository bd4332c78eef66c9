//! Every case must be seen to fail: for each there is a plugin that is right but for that one sentence, and it fails in that
//! case only, or where `golden/fakes.txt` says so.
//!
//! Each plugin is asked its own case, and of the others those in which its mistake could show, which [`recording`] knows.
//! That is the whole catalogue: in all others it does what the faultless plugin does, which passes. `UPDATE_GOLDEN=1` writes
//! the file, `CONFORMANCE_ONLY` has filters as of `run --filter`, with commas between.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

mod golden;
mod plugin;
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cni_conformance::cases::{self, Case};
use cni_conformance::host::Profile;
use cni_conformance::runner::{self, Row};
use cni_conformance::target::Kind;
use cni_conformance::verdict::Outcome;

use golden::Golden;
use plugin::{KINDS, folder, kind_of, options, profile, target};
use recording::Recording;

/// At how many system calls plugins are killed: where that is the question, and where it is another's.
const POINTS: (usize, usize) = (24, 3);

/// What a plugin with a mistake did.
#[derive(Default)]
struct Seen {
    asked: BTreeSet<String>,
    failed: BTreeSet<String>,
    trouble: Vec<String>,
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for more")]
    std::env::var(name).ok()
}

/// How many cases are asked at a time: two for each processor, as many of them wait for an answer that does not come.
fn at_once() -> usize {
    2 * thread::available_parallelism().map_or(2, NonZero::get)
}

/// Whether the mistake shows only when two calls meet (`company.rs` of the fake).
fn meets(case: &Case) -> bool {
    case.topic == "concurrency" || case.id == "DEL-10"
}

/// Why this says nothing about the plugin: it is the suite's fault, or the machine's.
fn trouble(row: &Row) -> bool {
    let late = |why: &String| why.contains("had not ended after") || why.contains("waited in vain");
    matches!(&row.outcome, Outcome::Trouble(_)) || row.outcome.why().as_ref().is_some_and(late)
}

/// Asks a plugin of another kind with this case's mistake nothing but this case, if it comes to where it does it wrong.
fn ask_another(
    case: &'static Case,
    kind: Kind,
    recording: &Recording,
    faultless: &Profile,
    folder: &Path,
) -> Vec<String> {
    if !recording.shows(case.id).contains(case.id) {
        return Vec::new();
    }
    let report =
        runner::run_with(&target(kind, case.id, folder), faultless, &[case], &options(folder, POINTS.0), &|_| ());
    let report = report.unwrap_or_else(|error| panic!("{}: {}", case.id, error.chain()));
    let unseen = report.rows.iter().filter(|row| !row.outcome.is_failure() || trouble(row));
    unseen
        .map(|row| format!("{} of the {} plugin that does it wrong: {:?}", row.id, kind.word(), row.outcome))
        .collect()
}

/// Asks the plugin with this case's mistake.
fn ask(case: &'static Case, recording: &Recording, faultless: &Profile, folder: &Path) -> Seen {
    let kind = kind_of(case);
    let shows = recording.shows(case.id);
    if !shows.contains(case.id) {
        let trouble = vec![format!("{} does not come to where the plugin does it wrong", case.id)];
        return Seen { trouble, ..Seen::default() };
    }
    let target = target(kind, case.id, folder);
    let profile = match case.topic {
        "packets" | "ports" => profile(kind, case.id, &case.ifname(), folder),
        _ => faultless.clone(),
    };
    let others: Vec<_> = cases::all().filter(|other| other.id != case.id && shows.contains(other.id)).collect();
    let mut seen = Seen::default();
    for (cases, points) in [(vec![case], POINTS.0), (others, POINTS.1)] {
        let report = runner::run_with(&target, &profile, &cases, &options(folder, points), &|_| ());
        let report = report.unwrap_or_else(|error| panic!("{}: {}", case.id, error.chain()));
        for row in &report.rows {
            if trouble(row) {
                seen.trouble.push(format!("{} asked of {}: {:?}", row.id, case.id, row.outcome.why()));
                continue;
            }
            seen.asked.insert(row.id.to_owned());
            if row.outcome.is_failure() {
                seen.failed.insert(row.id.to_owned());
            }
        }
    }
    seen
}

#[test]
fn every_case_is_seen_to_fail_and_others_are_not() {
    let folder = folder();
    let profiles: Vec<_> = KINDS.iter().map(|kind| profile(*kind, "", "eth0", folder.path())).collect();
    let of = |kind: Kind| KINDS.iter().position(|known| *known == kind).expect("every kind");
    let recordings: Vec<_> =
        KINDS.iter().map(|kind| Recording::of(*kind, &profiles[of(*kind)], folder.path())).collect();
    let faultless = recordings.iter().zip(KINDS).flat_map(|(recording, kind)| unfit(recording, kind));
    let mut wrong: Vec<_> = faultless.collect();
    let only = variable("CONFORMANCE_ONLY");
    let chosen: Vec<_> = cases::all()
        .filter(|case| only.as_ref().is_none_or(|only| only.split(',').any(|only| case.matches(only))))
        .collect();
    // Those of mistakes that show when calls meet are spent on waiting for each other: they are asked beside the rest.
    let (waiting, busy): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|case| meets(case));
    let seen = Mutex::new(BTreeMap::new());
    let look = |case: &'static Case| {
        let place = of(kind_of(case));
        let mut one = ask(case, &recordings[place], &profiles[place], folder.path());
        for other in (0..KINDS.len()).filter(|other| *other != place) {
            let (recording, profile) = (&recordings[other], &profiles[other]);
            one.trouble.extend(ask_another(case, KINDS[other], recording, profile, folder.path()));
        }
        let mut seen = seen.lock().expect("nobody panics with it");
        if variable("UPDATE_GOLDEN").is_some() {
            golden::learn(case.id, &one.asked, &one.failed);
        }
        seen.insert(case.id, one);
    };
    let (next_waiting, next_busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (cases, next) in [(&waiting, &next_waiting), (&busy, &next_busy)] {
            for _ in 0..at_once() {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        look(case);
                    }
                });
            }
        }
    });
    let seen = seen.into_inner().expect("all threads have ended");
    let golden = golden::read();
    wrong.extend(seen.iter().flat_map(|(id, one)| judge(id, one, &golden)));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What the faultless plugin did not pass.
fn unfit(recording: &Recording, kind: Kind) -> Vec<String> {
    let failed = recording.rows.iter().filter(|row| row.outcome.is_failure() || trouble(row));
    failed.map(|row| format!("{} of the faultless {} plugin: {:?}", row.id, kind.word(), row.outcome.why())).collect()
}

/// Compares what failed with what must and may fail.
fn judge(id: &str, seen: &Seen, golden: &Golden) -> Vec<String> {
    let Seen { asked, failed, trouble } = seen;
    let mut wrong = trouble.clone();
    if asked.contains(id) && !failed.contains(id) {
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
