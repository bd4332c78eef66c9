//! Every statement of the spec's checklist is a question, or is listed as one that nobody can ask, with the reason.

#![expect(clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

use std::collections::BTreeSet;

use cni_conformance::cases::{self, UNTESTABLE};
use cni_conformance::target::Target;

/// The checklist: each family of statements with its highest number.
///
/// IO: invocation, streams, errors. CFG: the format of configs. RT: duties of runtimes. The others are named after the
/// operation, IPAM after delegation.
const CHECKLIST: [(&str, u32); 10] = [
    ("IO", 14),
    ("ADD", 10),
    ("DEL", 7),
    ("CHK", 9),
    ("GC", 10),
    ("STA", 6),
    ("VER", 4),
    ("IPAM", 6),
    ("CFG", 4),
    ("RT", 15),
];

/// Statements that are asked under other names.
const ELSEWHERE: [(&str, &[&str]); 2] = [
    ("ADD-2", &["IO-2a", "IO-2d", "RES-1", "RES-7"]),
    ("IPAM-3", &["DEL-6a", "DEL-6b", "CHK-7a", "CHK-7b", "GC-4a", "GC-4b", "STA-4a", "STA-4b"]),
];

/// Whether the question belongs to this statement: GC-1a to GC-1, GC-10 not.
fn is_of(case: &str, statement: &str) -> bool {
    let rest = case.strip_prefix(statement);
    rest.is_some_and(|rest| rest.is_empty() || rest.chars().all(|letter| letter.is_ascii_lowercase()))
}

#[test]
fn the_checklist_is_complete() {
    let mut missing = Vec::new();
    for (family, highest) in CHECKLIST {
        for number in 1..=highest {
            let statement = format!("{family}-{number}");
            let elsewhere = ELSEWHERE.iter().find(|(id, _)| *id == statement).map_or(&[][..], |(_, ids)| ids);
            let asked = cases::all().any(|case| is_of(case.id, &statement))
                || (!elsewhere.is_empty() && elsewhere.iter().all(|id| cases::find(id).is_some()));
            let listed = UNTESTABLE.iter().any(|known| known.id == statement);
            if !asked && !listed {
                missing.push(statement);
            } else {
                assert!(!(asked && listed), "{statement} is asked, and listed as untestable");
            }
        }
    }
    assert!(missing.is_empty(), "neither asked nor listed as untestable: {missing:?}");
}

#[test]
fn every_question_says_what_it_is() {
    let mut ids = BTreeSet::new();
    for case in cases::all() {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        for (name, text) in
            [("title", case.title), ("section", case.section), ("sentence", case.sentence), ("does", case.does)]
        {
            assert!(text.len() > 1, "{} has no {name}", case.id);
        }
        assert!(case.does.contains("; "), "{} does not say how it is observed: {}", case.id, case.does);
        assert!(!case.kinds.is_empty(), "{} is for nobody", case.id);
        assert!(cni_conformance::host::shape::VERSIONS.contains(&case.since), "{}: {}", case.id, case.since);
    }
    assert!(ids.len() >= 150, "{}", ids.len());
}

#[test]
fn the_readme_counts_right() {
    let readme = include_str!("../README.md");
    let count = cases::all().count();
    assert!(readme.contains(&format!("Puts {count} questions")), "there are {count} questions");
}

/// The targets that the page is made of: `cargo xtask standing` takes all of them.
fn targets() -> Vec<Target> {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/targets")).expect("our own folder");
    folder.map(|entry| Target::read(&entry.expect("our own folder").path()).expect("a target file")).collect()
}

#[test]
fn the_published_page_has_every_question_and_target_there_is() {
    let page = include_str!("../../docs/standing.html");
    let (count, targets) = (cases::all().count(), targets());
    let told = format!(">{count} questions, put to {} targets by ", targets.len());
    assert!(page.contains(&told), "the page does not say {told:?}: make it anew with `cargo xtask standing`");
    let lacking: Vec<_> = cases::all().filter(|case| !page.contains(&format!("<tr id=\"{}\">", case.id))).collect();
    assert!(lacking.is_empty(), "the page does not have {lacking:?}");
    assert_eq!(page.matches("<tr id=\"").count(), count, "the page has questions that are not asked any more");
    let lacking = targets.iter().filter(|target| !page.contains(&format!("<tr><th>{}<br>", target.name)));
    let lacking: Vec<_> = lacking.map(|target| &target.name).collect();
    assert!(lacking.is_empty(), "the page does not have {lacking:?}");
}

/// Whether it says project, version and file: `containernetworking/plugins v1.1.1, plugins/main/ptp/ptp.go, cmdAdd`.
fn is_a_place(source: &str) -> bool {
    let mut parts = source.split(", ");
    let (project, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let version = project.split_once(" v").map_or("", |(_, version)| version);
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|digit| digit.is_ascii_digit());
    project.contains('/')
        && version.split('.').count() == 3
        && version.split('.').all(is_number)
        && path.contains(".go")
}

#[test]
fn deviations_name_cases_and_where_they_were_read() {
    let mut count = 0;
    for target in targets() {
        let is_ours = target.name.starts_with("podwire");
        assert!(!is_ours || target.deviations.is_empty(), "{} has a deviation", target.name);
        let mut listed = BTreeSet::new();
        for deviation in &target.deviations {
            count += 1;
            assert!(is_a_place(&deviation.source), "{}: {}", target.name, deviation.source);
            assert!(deviation.why.len() > 20, "{}: {}", target.name, deviation.why);
            for case in &deviation.cases {
                assert!(cases::find(case).is_some(), "{}: {case} is no case", target.name);
                let certain = !deviation.sometimes;
                assert!(listed.insert(case) || !certain, "{}: {case} is listed twice", target.name);
            }
        }
    }
    assert!(count > 40, "{count}");
}
