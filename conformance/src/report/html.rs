//! One page that compares targets side by side. It needs nothing from elsewhere, and no script.

use std::fmt::Write;

use super::escape;
use crate::cases::{self, Case, UNTESTABLE};
use crate::runner::{Report, Row};
use crate::verdict::Outcome;

const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn html(reports: &[Report]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>CNI conformance</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut page, reports);
    summary(&mut page, reports);
    matrix(&mut page, reports);
    deviations(&mut page, reports);
    untestable(&mut page);
    page.push_str("</body>\n</html>\n");
    page
}

/// The sign, the class, and the words of an outcome.
fn sign(outcome: &Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("\u{2713}", "passed", "passed"),
        Outcome::Failed(_) => ("\u{2717}", "failed", "failed"),
        Outcome::Residue(_) => ("\u{2717}", "residue", "left something behind"),
        Outcome::Deviates(_) => ("\u{2248}", "deviates", "known deviation"),
        Outcome::Skipped(_) => ("\u{b7}", "skipped", "skipped"),
        Outcome::Trouble(_) => ("!", "trouble", "could not be asked"),
    }
}

fn head(page: &mut String, reports: &[Report]) {
    let asked = reports.iter().flat_map(|report| &report.rows);
    let asked: std::collections::BTreeSet<_> = asked.map(|row| row.id).collect();
    let _ = write!(
        page,
        "<h1>CNI conformance</h1>\n<p class=\"soft\">{} questions, put to {} targets by cni-conformance {}. Each holds to a \
         sentence of the <a href=\"https://www.cni.dev/docs/spec/\">CNI spec</a>, or to what runtimes do in practice, and is \
         asked on a private host of its own. Open a question to read the sentence, what is done, and why a target got \
         its mark.</p>\n<ul class=\"legend\">",
        asked.len(),
        reports.len(),
        env!("CARGO_PKG_VERSION"),
    );
    let outcomes = [
        (Outcome::Passed, "passed"),
        (Outcome::Deviates(String::new()), "fails, as its source explains"),
        (Outcome::Failed(String::new()), "fails, or leaves something behind"),
        (Outcome::Skipped(String::new()), "does not apply, with a reason"),
    ];
    for (outcome, text) in outcomes {
        let (sign, class, _) = sign(&outcome);
        let _ = write!(page, "<li><span class=\"sign {class}\">{sign}</span>{text}</li>");
    }
    page.push_str("</ul>\n");
}

/// How many rows speak against the target, or could not be asked.
fn failed(report: &Report) -> usize {
    report.rows.iter().filter(|row| row.outcome.is_failure()).count() + report.count("TROUBLE")
}

fn summary(page: &mut String, reports: &[Report]) {
    page.push_str(
        "<div class=\"frame\"><table>\n<thead><tr><th>Target<th>Spec versions<th>Standing<th class=\"number\">passed\
         <th class=\"number\">deviates<th class=\"number\">failed<th class=\"number\">skipped</tr></thead>\n<tbody>\n",
    );
    for report in reports {
        let unasked =
            report.unasked.as_ref().map(|why| format!("<br><small>nothing was asked: {}</small>", escape(why)));
        let counts = [report.count("passed"), report.count("deviates"), failed(report)];
        let mut bar = String::new();
        for (class, count) in ["passed", "deviates", "failed"].into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            let _ = write!(bar, "<i class=\"{class}\" style=\"flex:{count}\"></i>");
        }
        let _ = writeln!(
            page,
            "<tr><th>{}<br><small>{}</small>{}<td><small>{}</small><td><div class=\"bar\">{bar}</div><td class=\"number\">{}\
             <td class=\"number\">{}<td class=\"number\">{}<td class=\"number\">{}</tr>",
            escape(&report.target),
            escape(&report.about),
            unasked.unwrap_or_default(),
            escape(&span(&report.versions)),
            counts[0],
            counts[1],
            counts[2],
            report.count("skipped"),
        );
    }
    page.push_str("</tbody></table></div>\n");
}

/// The oldest and the newest.
fn span(versions: &[String]) -> String {
    match versions {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

fn matrix(page: &mut String, reports: &[Report]) {
    page.push_str(
        "<h2>Questions</h2>\n<div class=\"frame\"><table class=\"matrix\">\n<thead><tr><th class=\"id\">Id<th>Question",
    );
    for report in reports {
        let _ = write!(page, "<th class=\"target\"><span>{}</span>", escape(&report.target));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let mut topic = "";
    for case in cases::all() {
        let rows: Vec<_> = reports.iter().map(|report| report.rows.iter().find(|row| row.id == case.id)).collect();
        if rows.iter().all(Option::is_none) {
            continue;
        }
        if case.topic != topic {
            topic = case.topic;
            let _ = write!(page, "<tr class=\"topic\"><th colspan=\"2\">{}", escape(topic));
            page.push_str(&"<td class=\"mark\">".repeat(reports.len()));
            page.push_str("</tr>\n");
        }
        line(page, case, reports, &rows);
    }
    page.push_str("</tbody></table></div>\n");
}

fn line(page: &mut String, case: &Case, reports: &[Report], rows: &[Option<&Row>]) {
    let _ = write!(
        page,
        "<tr id=\"{0}\"><td class=\"id\"><code>{0}</code><td><details><summary>{1}</summary><div class=\"more\">\
         <blockquote>{2}</blockquote><p class=\"soft\">{3}, since {4}</p><p>{5}</p>",
        escape(case.id),
        escape(case.title),
        escape(case.sentence),
        escape(case.section),
        escape(case.since),
        escape(case.does),
    );
    let told: Vec<_> = reports.iter().zip(rows).filter_map(|(report, row)| Some((report, why((*row)?)?))).collect();
    if !told.is_empty() {
        page.push_str("<dl>");
        for (report, why) in told {
            let _ = write!(page, "<dt>{}<dd>{}", escape(&report.target), escape(&why));
        }
        page.push_str("</dl>");
    }
    page.push_str("</div></details>");
    for row in rows {
        match row {
            None => page.push_str("<td class=\"mark\">"),
            Some(row) => {
                let (sign, class, words) = sign(&row.outcome);
                let _ = write!(page, "<td class=\"mark {class}\" title=\"{words}\"><span class=\"sign\">{sign}</span>");
            }
        }
    }
    page.push_str("</tr>\n");
}

/// What there is to say of a mark: nothing of a question that is not for this kind of plugin.
fn why(row: &Row) -> Option<String> {
    match &row.outcome {
        Outcome::Skipped(why) if why.starts_with("it is for ") => None,
        Outcome::Deviates(seen) => Some(format!("{}. Seen: {seen}", row.known.as_deref().unwrap_or_default())),
        outcome => outcome.why(),
    }
}

/// Each reason once, with the questions that it explains.
fn deviations(page: &mut String, reports: &[Report]) {
    let mut text = String::new();
    for report in reports {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Deviates(_))) {
            let known = row.known.as_deref().unwrap_or_default();
            match reasons.iter_mut().find(|(reason, _)| *reason == known) {
                Some((_, ids)) => ids.push(row.id),
                None => reasons.push((known, vec![row.id])),
            }
        }
        for (index, (reason, ids)) in reasons.iter().enumerate() {
            let links: Vec<_> =
                ids.iter().map(|id| format!("<a href=\"#{0}\"><code>{0}</code></a>", escape(id))).collect();
            let name = if index == 0 { escape(&report.target) } else { String::new() };
            let _ = writeln!(text, "<tr><th>{name}<td>{}<td>{}</tr>", links.join(" "), escape(reason));
        }
    }
    if !text.is_empty() {
        let _ = write!(
            page,
            "<h2>Known deviations</h2>\n<p class=\"soft\">Confirmed by reading the source, which is named. One that is not seen \
             any more counts as a failure.</p>\n<div class=\"frame\"><table>\n<tbody>\n{text}</tbody></table></div>\n"
        );
    }
}

fn untestable(page: &mut String) {
    page.push_str("<h2>What is not asked</h2>\n<div class=\"frame\"><table>\n<tbody>\n");
    for statement in UNTESTABLE {
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}<td class=\"soft\">{}</tr>",
            escape(statement.id),
            escape(statement.statement),
            escape(statement.why)
        );
    }
    page.push_str("</tbody></table></div>\n");
}
