//! One page that compares targets side by side. It needs nothing from elsewhere.

use std::fmt::Write;

use super::escape;
use crate::cases::{self, UNTESTABLE};
use crate::runner::{Report, Row};
use crate::verdict::Outcome;

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8884; --pass: #2a7d46; --fail: #c0362c; --known: #b57a00; --skip: #8889; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; \
text-align: left; vertical-align: top; } thead th { position: sticky; top: 0; background: Canvas; }
td.mark { text-align: center; white-space: nowrap; } .passed { color: var(--pass); } .failed, .residue, .trouble { color: \
var(--fail); font-weight: 600; } .deviates { color: var(--known); } .skipped { color: var(--skip); }
tr.topic th { padding-top: 1.2rem; text-transform: capitalize; } details summary { cursor: pointer; } \
code { font-size: .9em; } .sentence { opacity: .75; } .why { font-weight: 400; max-width: 30rem; text-align: left; white-space: normal; }";

/// The page.
#[must_use]
pub fn html(reports: &[Report]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>CNI conformance</title>\n<style>\n{STYLE}\n</style>\n<h1>CNI conformance</h1>\n\
         <p>Each row is a question with the sentence that it holds to; each column is a target. A known deviation was \
         confirmed in the plugin's source, which is named. Open a mark to read why.</p>\n"
    );
    summary(&mut page, reports);
    details(&mut page, reports);
    untestable(&mut page);
    page.push_str("</html>\n");
    page
}

fn summary(page: &mut String, reports: &[Report]) {
    page.push_str("<table>\n<thead><tr><th>target<th>what<th>spec versions<th>passed<th>failed<th>known deviations<th>skipped</tr></thead>\n");
    for report in reports {
        let failed = report.rows.iter().filter(|row| row.outcome.is_failure()).count() + report.count("TROUBLE");
        let _ = writeln!(
            page,
            "<tr><th>{}<td>{}<td>{}<td class=\"passed\">{}<td class=\"failed\">{failed}<td class=\"deviates\">{}<td class=\"skipped\">{}</tr>",
            escape(&report.target),
            escape(&report.about),
            escape(&report.versions.join(" ")),
            report.count("passed"),
            report.count("deviates"),
            report.count("skipped"),
        );
    }
    page.push_str("</table>\n");
}

fn details(page: &mut String, reports: &[Report]) {
    page.push_str("<table>\n<thead><tr><th>case<th>question");
    for report in reports {
        let _ = write!(page, "<th>{}", escape(&report.target));
    }
    page.push_str("</tr></thead>\n");
    let mut topic = "";
    for case in cases::all() {
        let marks: Vec<_> = reports.iter().map(|report| report.rows.iter().find(|row| row.id == case.id)).collect();
        if marks.iter().all(Option::is_none) {
            continue;
        }
        if case.topic != topic {
            topic = case.topic;
            let _ = writeln!(page, "<tr class=\"topic\"><th colspan=\"{}\">{}</tr>", reports.len() + 2, escape(topic));
        }
        let _ = write!(
            page,
            "<tr id=\"{0}\"><td><code>{0}</code><td>{1}<br><span class=\"sentence\">{2} ({3})</span>",
            escape(case.id),
            escape(case.title),
            escape(case.sentence),
            escape(case.section)
        );
        for row in marks {
            mark(page, row);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn mark(page: &mut String, row: Option<&Row>) {
    let Some(row) = row else {
        page.push_str("<td class=\"mark\">");
        return;
    };
    let word = row.outcome.word().to_lowercase();
    let sign = match row.outcome {
        Outcome::Passed => "\u{2713}",
        Outcome::Failed(_) | Outcome::Residue(_) => "\u{2717}",
        Outcome::Deviates(_) => "\u{2248}",
        Outcome::Skipped(_) => "\u{2013}",
        Outcome::Trouble(_) => "!",
    };
    let known = row.known.as_ref().map(|known| format!("{known}. Seen: ")).unwrap_or_default();
    let _ = match row.outcome.why() {
        None => write!(page, "<td class=\"mark {word}\" title=\"{word}\">{sign}"),
        Some(why) => write!(
            page,
            "<td class=\"mark {word}\"><details><summary>{sign} {word}</summary><div class=\"why\">{}{}</div></details>",
            escape(&known),
            escape(&why)
        ),
    };
}

fn untestable(page: &mut String) {
    page.push_str("<h2>What is not asked</h2>\n<table>\n");
    for statement in UNTESTABLE {
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{}</tr>",
            escape(statement.id),
            escape(statement.statement),
            escape(statement.why)
        );
    }
    page.push_str("</table>\n");
}
