//! Reading the history.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Deed, Garbage, KEPT, Line, file, old_file};
use crate::event::Event;

/// What the history says, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub events: Vec<Event>,
    pub deeds: Vec<Deed>,
    /// What cannot be understood.
    pub garbage: Vec<Garbage>,
}

/// The files there are, the oldest first.
pub(crate) fn files(state_dir: &Path) -> Vec<PathBuf> {
    let old = (1..=KEPT).rev().map(|number| old_file(state_dir, number));
    old.chain([file(state_dir)]).filter(|path| path.exists()).collect()
}

/// Reads all of it. What cannot be read is told as garbage: the rest is worth something still.
pub(crate) fn read(state_dir: &Path) -> History {
    let mut history = History::default();
    for path in files(state_dir) {
        match fs::read(&path) {
            Ok(bytes) => history.take(&path, &bytes),
            // Put aside or removed in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => history.garbage.push(Garbage { path, number: 0, problem: error.to_string() }),
        }
    }
    history.events.sort_by_key(|event| event.at);
    history
}

impl History {
    fn take(&mut self, path: &Path, bytes: &[u8]) {
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(Line::Event(event)) => self.events.push(*event),
                Ok(Line::Deed(deed)) => self.deeds.push(*deed),
                Err(_) => {
                    let problem = problem(line);
                    self.garbage.push(Garbage { path: path.to_owned(), number: index + 1, problem });
                }
            }
        }
    }
}

fn problem(line: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(_) => "is no line of a history".to_owned(),
        Err(error) => format!("is no JSON: {error}"),
    }
}
