//! What programs read must be what they expect, whatever plugins say.

use cni_conformance::cases;
use cni_conformance::report;
use cni_conformance::runner::{Report, Row};
use cni_conformance::verdict::Outcome;

/// Text that means something to XML, and text that XML cannot hold.
const HOSTILE: &str = "<b>\"&amp;'</b> ]]> \u{1b}[31m \u{0} ü\nline";

fn report() -> Report {
    let outcomes = [
        Outcome::Passed,
        Outcome::Failed(HOSTILE.to_owned()),
        Outcome::Residue(vec![HOSTILE.to_owned()]),
        Outcome::Deviates(HOSTILE.to_owned()),
        Outcome::Skipped(HOSTILE.to_owned()),
        Outcome::Trouble(HOSTILE.to_owned()),
    ];
    let rows = cases::all().zip(outcomes).map(|(case, outcome)| Row {
        id: case.id,
        title: case.title,
        topic: case.topic,
        calls: if outcome.is_failure() { vec![HOSTILE.to_owned()] } else { Vec::new() },
        notes: vec![HOSTILE.to_owned()],
        known: matches!(outcome, Outcome::Deviates(_)).then(|| HOSTILE.to_owned()),
        outcome,
        milliseconds: 1234,
    });
    Report {
        target: HOSTILE.to_owned(),
        about: HOSTILE.to_owned(),
        kind: "main",
        versions: vec!["1.0.0".to_owned(), "1.1.0".to_owned()],
        trouble: Some(HOSTILE.to_owned()),
        unasked: Some(HOSTILE.to_owned()),
        rows: rows.collect(),
        seconds: 7.5,
    }
}

/// The rules of the JUnit XML schema that CI systems go by: names, counts, and one outcome in each test case.
#[test]
fn junit_is_what_ci_systems_read() {
    let text = report::junit(&[report(), report()]);
    let document = roxmltree::Document::parse(&text).expect("it is XML");
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "testsuites");
    let suites: Vec<_> = root.children().filter(roxmltree::Node::is_element).collect();
    assert_eq!(suites.len(), 2);
    for suite in suites {
        assert_eq!(suite.tag_name().name(), "testsuite");
        assert!(suite.attribute("name").is_some_and(|name| name.contains("<b>\"&amp;'</b>")));
        assert!(suite.attribute("time").and_then(|time| time.parse::<f64>().ok()).is_some());
        let cases: Vec<_> = suite.children().filter(roxmltree::Node::is_element).collect();
        assert!(cases.iter().all(|case| case.tag_name().name() == "testcase"));
        assert!(cases.iter().all(|case| ["name", "classname", "time"].iter().all(|key| case.has_attribute(*key))));
        let with = |tag: &str| {
            let has = |case: &&roxmltree::Node<'_, '_>| case.children().any(|child| child.has_tag_name(tag));
            cases.iter().filter(has).count().to_string()
        };
        assert_eq!(suite.attribute("tests"), Some(cases.len().to_string().as_str()));
        for (attribute, tag) in [("failures", "failure"), ("errors", "error"), ("skipped", "skipped")] {
            assert_eq!(suite.attribute(attribute), Some(with(tag).as_str()), "{attribute}");
        }
        let told = cases.iter().flat_map(roxmltree::Node::children).filter(roxmltree::Node::is_element);
        assert!(told.clone().all(|child| child.attribute("message").is_some_and(|message| !message.is_empty())));
        assert_eq!(told.count(), 6, "all but the one that passed say why, and so does the trial");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_hides_no_reason() {
    let page = report::html(&[report(), report()]);
    for foreign in ["<script", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(!page.contains("<b>"), "what plugins say is text");
    let shown = page.matches("&lt;b&gt;&quot;&amp;amp;").count();
    assert!(shown >= 2 * 5, "{shown} of ten reasons and two names");
    for row in report().rows {
        assert!(page.contains(&format!("id=\"{}\"", row.id)), "{}", row.id);
    }
}

#[test]
fn json_has_a_row_for_each_question() {
    let value = serde_json::to_value([report()]).expect("it is JSON");
    let rows = value[0]["rows"].as_array().expect("rows");
    let words: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().expect("a word")).collect();
    assert_eq!(words, ["passed", "failed", "residue", "deviates", "skipped", "trouble"]);
    assert!(rows.iter().skip(1).all(|row| row.get("why").is_some()));
}

#[test]
fn what_is_saved_is_read_again() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), serde_json::to_vec(&[report()]).expect("it is JSON")).expect("our own file");
    let again = report::saved(file.path()).expect("it was saved");
    assert_eq!(serde_json::to_value(again).expect("it is JSON"), serde_json::to_value([report()]).expect("it is JSON"));
    assert_eq!(report::html(&report::saved(file.path()).expect("it was saved")), report::html(&[report()]));
}

#[test]
fn the_table_gives_each_skip_its_reason() {
    let text = report::table(&[report()], false);
    assert!(text.contains("skipped  1 ("), "{text}");
    assert!(
        text.contains("1 passed, 1 failed, 1 left residue, 1 deviate as listed, 1 skipped, 1 in trouble"),
        "{text}"
    );
}
