//! A line that counts, while a person is watching.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::runner::Row;

/// Counts cases on stderr if that is a terminal.
pub struct Progress {
    target: String,
    all: usize,
    done: AtomicUsize,
    bad: AtomicUsize,
    watched: bool,
}

impl Progress {
    /// Nothing has been asked yet.
    #[must_use]
    pub fn new(target: &str, all: usize) -> Self {
        let (done, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { target: target.to_owned(), all, done, bad, watched: io::stderr().is_terminal() }
    }

    /// Shows a line if somebody is watching; the next takes its place.
    pub fn say(text: &str) {
        let watched = io::stderr().is_terminal();
        Self { target: String::new(), all: 0, done: AtomicUsize::new(0), bad: AtomicUsize::new(0), watched }.line(text);
    }

    /// One more case has ended.
    pub fn tell(&self, row: &Row) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let bad = self.bad.fetch_add(usize::from(row.outcome.is_failure()), Ordering::Relaxed);
        let bad = bad + usize::from(row.outcome.is_failure());
        self.line(&format!("{}: {done}/{} cases, {bad} failed, last {}", self.target, self.all, row.id));
    }

    /// All cases have ended.
    pub fn end(&self) {
        self.line("");
    }

    fn line(&self, text: &str) {
        if self.watched {
            // Carriage return, then "erase to the end of the line".
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
        }
    }
}
