//! For people at a terminal.

use std::fmt::Write;

use crate::runner::{Report, Row};
use crate::verdict::Outcome;

/// What failed, deviates or was skipped, and the sums. `verbose` adds what passed, and the calls of what failed.
#[must_use]
pub fn table(reports: &[Report], verbose: bool) -> String {
    let mut text = String::new();
    for report in reports {
        one(&mut text, report, verbose);
    }
    text
}

fn one(text: &mut String, report: &Report, verbose: bool) {
    let _ = writeln!(text, "{} ({} plugin, spec {})", report.target, report.kind, report.versions.join(" "));
    if let Some(trouble) = &report.trouble {
        let _ = writeln!(text, "  {trouble}");
    }
    if let Some(why) = &report.unasked {
        let _ = writeln!(text, "  nothing was asked: {why}; --keep-going asks all the same");
    }
    let rows: Vec<_> = report.rows.iter().filter(|row| verbose || is_told(&row.outcome)).collect();
    let width = rows.iter().map(|row| row.id.len()).max().unwrap_or_default();
    for row in rows {
        line(text, row, width, verbose);
    }
    skips(text, report);
    let _ = writeln!(
        text,
        "  {} passed, {} failed, {} left residue, {} deviate as listed, {} skipped, {} in trouble; {:.1} s\n",
        report.count("passed"),
        report.count("FAILED"),
        report.count("RESIDUE"),
        report.count("deviates"),
        report.count("skipped"),
        report.count("TROUBLE"),
        report.seconds
    );
}

fn is_told(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Passed | Outcome::Skipped(_))
}

fn line(text: &mut String, row: &Row, width: usize, verbose: bool) {
    let _ = writeln!(text, "  {:<8} {:<width$}  {}", row.outcome.word(), row.id, row.title);
    if let Some(why) = row.outcome.why().filter(|_| is_told(&row.outcome)) {
        let _ = writeln!(text, "           {why}");
    }
    if let Some(known) = row.known.as_ref().filter(|_| matches!(row.outcome, Outcome::Deviates(_))) {
        let _ = writeln!(text, "           known: {known}");
    }
    for note in row.notes.iter().filter(|_| verbose) {
        let _ = writeln!(text, "           {note}");
    }
    for call in row.calls.iter().filter(|_| verbose) {
        let _ = writeln!(text, "             {call}");
    }
}

/// Skips are told by their reasons: many cases share one.
fn skips(text: &mut String, report: &Report) {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for row in &report.rows {
        if let Outcome::Skipped(why) = &row.outcome {
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, ids)) => ids.push(row.id),
                None => reasons.push((why.clone(), vec![row.id])),
            }
        }
    }
    for (reason, ids) in reasons {
        let _ = writeln!(text, "  skipped  {} ({}): {reason}", ids.len(), ids.join(" "));
    }
}
