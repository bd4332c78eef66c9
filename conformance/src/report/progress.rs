//! How far a run is: a line that counts while a person is watching, else a line now and then, so that a log is not silent for
//! minutes.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::runner::Row;

/// Without a terminal there is a line after this many cases,
const CASES: usize = 25;
/// and after this long.
const PAUSE: Duration = Duration::from_secs(10);

/// Where progress is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// A terminal.
    Terminal,
    /// A file or a pipe.
    Log,
    /// Nowhere.
    Nobody,
}

/// Counts cases on stderr.
pub struct Progress {
    target: String,
    all: usize,
    to: To,
    counts: Mutex<Counts>,
}

struct Counts {
    done: usize,
    bad: usize,
    told: Instant,
}

impl Progress {
    /// Nothing has been asked yet.
    #[must_use]
    pub fn new(target: &str, all: usize, quiet: bool) -> Self {
        let to = match io::stderr().is_terminal() {
            _ if quiet => To::Nobody,
            true => To::Terminal,
            false => To::Log,
        };
        let counts = Mutex::new(Counts { done: 0, bad: 0, told: Instant::now() });
        Self { target: target.to_owned(), all, to, counts }
    }

    /// Shows a line if somebody is watching; the next takes its place.
    pub fn say(text: &str) {
        if io::stderr().is_terminal() {
            over(text);
        }
    }

    /// One more case has ended.
    pub fn tell(&self, row: &Row) {
        let Ok(mut counts) = self.counts.lock() else { return };
        counts.done += 1;
        counts.bad += usize::from(row.outcome.is_failure());
        let text =
            format!("{}: {}/{} cases, {} failed, last {}", self.target, counts.done, self.all, counts.bad, row.id);
        match self.to {
            To::Terminal => over(&text),
            To::Log if counts.done % CASES == 0 || counts.told.elapsed() > PAUSE => {
                counts.told = Instant::now();
                let _ = writeln!(io::stderr(), "{text}");
            }
            To::Log | To::Nobody => {}
        }
    }

    /// All cases have ended.
    pub fn end(&self) {
        if self.to == To::Terminal {
            over("");
        }
    }
}

/// Carriage return, then "erase to the end of the line".
fn over(text: &str) {
    let _ = write!(io::stderr(), "\r{text}\x1b[K");
}
