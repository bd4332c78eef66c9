//! What has been said of things that stand: a run every few seconds would say it again each time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Lines that the run before said, from a file, and those of this one.
#[derive(Debug, Default)]
pub struct Told {
    path: Option<PathBuf>,
    before: BTreeSet<String>,
    now: BTreeSet<String>,
}

impl Told {
    /// Reads a file, if one is named. What cannot be read has told nothing: then all is said.
    pub fn of(path: Option<&Path>) -> Self {
        let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let before = text.lines().map(str::to_owned).collect();
        Self { path: path.map(Path::to_owned), before, now: BTreeSet::new() }
    }

    /// Whether a line is to be said.
    pub fn is_new(&mut self, line: &str) -> bool {
        self.now.insert(line.to_owned());
        !self.before.contains(line)
    }

    /// Keeps the lines for the next run. No file is kept for nothing.
    ///
    /// # Errors
    /// If the file cannot be written: then the next run says all again.
    pub fn keep(self) -> io::Result<()> {
        let Some(path) = self.path.filter(|_| self.now != self.before) else { return Ok(()) };
        if self.now.is_empty() {
            return fs::remove_file(path);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), fs::create_dir_all)?;
        let lines: String = self.now.iter().flat_map(|line| [line, "\n"]).collect();
        // Two runs at once write one of the two, and not a part of each.
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&unfinished, lines)?;
        fs::rename(&unfinished, &path)
    }
}
