//! Reports that were printed as JSON, read again.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::cases;
use crate::error::Error;
use crate::runner::{Report, Row};
use crate::target::Kind;
use crate::verdict::Outcome;

#[derive(Deserialize)]
struct SavedReport {
    target: String,
    about: String,
    kind: Kind,
    versions: Vec<String>,
    trouble: Option<String>,
    unasked: Option<String>,
    rows: Vec<SavedRow>,
    seconds: f64,
}

#[derive(Deserialize)]
struct SavedRow {
    id: String,
    #[serde(flatten)]
    outcome: Outcome,
    milliseconds: u64,
    #[serde(default)]
    calls: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    known: Option<String>,
}

/// The reports of a file that `run -o json` has printed. What they say of questions that are no longer asked is left out.
///
/// # Errors
/// If it cannot be read, or is not such a file.
pub fn saved(path: &Path) -> Result<Vec<Report>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let all: Vec<SavedReport> =
        serde_json::from_str(&text).map_err(|source| Error::Saved { path: path.to_owned(), source })?;
    Ok(all.into_iter().map(report).collect())
}

fn report(saved: SavedReport) -> Report {
    Report {
        target: saved.target,
        about: saved.about,
        kind: saved.kind.word(),
        versions: saved.versions,
        trouble: saved.trouble,
        unasked: saved.unasked,
        rows: saved.rows.into_iter().filter_map(row).collect(),
        seconds: saved.seconds,
    }
}

fn row(saved: SavedRow) -> Option<Row> {
    let case = cases::find(&saved.id)?;
    let SavedRow { outcome, milliseconds, calls, notes, known, .. } = saved;
    Some(Row { id: case.id, title: case.title, topic: case.topic, outcome, milliseconds, calls, notes, known })
}
