//! The cases themselves.

use std::fmt::Write;

use serde_json::json;

use crate::cases::{Case, UNTESTABLE};
use crate::error::Error;

/// Every case with its sentence, by topic.
#[must_use]
pub fn list(cases: &[&Case]) -> String {
    let mut text = String::new();
    let mut topic = "";
    for case in cases {
        if case.topic != topic {
            topic = case.topic;
            let _ = writeln!(text, "{topic}");
        }
        let _ = writeln!(text, "  {:<8} {}", case.id, case.title);
        let _ = writeln!(text, "           {} (spec {}, since {})", case.sentence, case.section, case.since);
    }
    let _ = writeln!(text, "{} cases", cases.len());
    text
}

/// The same for programs.
///
/// # Errors
/// If it cannot be encoded.
pub fn list_json(cases: &[&Case]) -> Result<String, Error> {
    let all: Vec<_> = cases
        .iter()
        .map(|case| {
            let kinds: Vec<_> = case.kinds.iter().map(|kind| kind.word()).collect();
            json!({
                "id": case.id, "topic": case.topic, "title": case.title, "since": case.since, "section": case.section,
                "sentence": case.sentence, "does": case.does, "kinds": kinds,
            })
        })
        .collect();
    serde_json::to_string_pretty(&all).map_err(Error::Encode)
}

/// All that is to be known of one case.
#[must_use]
pub fn explain(case: &Case) -> String {
    let kinds: Vec<_> = case.kinds.iter().map(|kind| kind.word()).collect();
    let (done, seen) = case.does.split_once("; ").unwrap_or((case.does, ""));
    let fields = [
        ("spec", format!("\"{}\"", case.sentence)),
        ("where", format!("{}, since {}", case.section, case.since)),
        ("asked of", format!("{} plugins", kinds.join(", "))),
        ("done", done.to_owned()),
        ("observed", seen.to_owned()),
        ("run it", format!("cni-conformance run --filter {} TARGET -v", case.id)),
    ];
    let mut text = format!("{}: {}\n", case.id, case.title);
    for (name, value) in fields {
        let _ = writeln!(text, "  {name:<9} {value}");
    }
    text
}

/// Why there is no case for this statement of the checklist.
#[must_use]
pub fn explain_untestable(id: &str) -> Option<String> {
    let found = UNTESTABLE.iter().find(|statement| statement.id.eq_ignore_ascii_case(id))?;
    Some(format!("{}: {}\n  not asked: {}\n", found.id, found.statement, found.why))
}
