//! JUnit XML, which CI systems read.

use std::fmt::Write;

use super::escape;
use crate::runner::{Report, Row};
use crate::verdict::Outcome;

/// A test suite for each target, a test case for each row.
#[must_use]
pub fn junit(reports: &[Report]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let failures = report.rows.iter().filter(|row| row.outcome.is_failure()).count();
        let untried: Vec<&str> = [&report.trouble, &report.unasked].into_iter().flatten().map(String::as_str).collect();
        let skipped = report.count("skipped") + report.count("deviates");
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\" skipped=\"{skipped}\" time=\"{:.3}\">",
            escape(&report.target),
            report.rows.len() + usize::from(!untried.is_empty()),
            report.count("TROUBLE") + usize::from(!untried.is_empty()),
            report.seconds
        );
        if !untried.is_empty() {
            let _ = writeln!(
                text,
                "    <testcase classname=\"trial\" name=\"a first ADD and DEL\" time=\"0\"><error message=\"{}\"/></testcase>",
                escape(&untried.join("; "))
            );
        }
        for row in &report.rows {
            case(&mut text, row);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, row: &Row) {
    let seconds = std::time::Duration::from_millis(row.milliseconds).as_secs_f64();
    let _ = write!(
        text,
        "    <testcase classname=\"{}\" name=\"{} {}\" time=\"{seconds:.3}\"",
        escape(row.topic),
        escape(row.id),
        escape(row.title)
    );
    let why = escape(&row.outcome.why().unwrap_or_default());
    let _ = match &row.outcome {
        Outcome::Passed => writeln!(text, "/>"),
        Outcome::Skipped(_) => writeln!(text, "><skipped message=\"{why}\"/></testcase>"),
        Outcome::Deviates(_) => {
            let known = escape(row.known.as_deref().unwrap_or_default());
            writeln!(text, "><skipped message=\"known deviation: {known}\"/></testcase>")
        }
        Outcome::Failed(_) | Outcome::Residue(_) => {
            let calls = escape(&row.calls.join("\n"));
            writeln!(text, "><failure message=\"{why}\">{calls}</failure></testcase>")
        }
        Outcome::Trouble(_) => writeln!(text, "><error message=\"{why}\"/></testcase>"),
    };
}
