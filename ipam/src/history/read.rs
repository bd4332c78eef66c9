//! Reading the history.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::iter;
use std::os::unix::fs::MetadataExt;
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
    for (path, opened) in opened(state_dir).into_iter().rev() {
        let mut bytes = Vec::new();
        match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => history.take(&path, &bytes),
            Err(error) => history.garbage.push(Garbage { path, number: 0, problem: error.to_string() }),
        }
    }
    history.events.sort_by_key(|event| event.at);
    history.deeds.sort_by_key(|deed| deed.at);
    history
}

/// The files, the newest first, each once. Somebody may put the newest aside meanwhile: opened in this order, a file is
/// met twice then, and none is missed.
fn opened(state_dir: &Path) -> Vec<(PathBuf, io::Result<File>)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for path in iter::once(file(state_dir)).chain((1..=KEPT).map(|number| old_file(state_dir, number))) {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((meta, file)) if seen.insert((meta.dev(), meta.ino())) => all.push((path, Ok(file))),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => all.push((path, Err(error))),
        }
    }
    all
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::event::Cause;
    use crate::history::{Deed, Outcome};

    fn deed(number: usize) -> String {
        let by = Cause::of_this_process("test");
        let at = jiff::Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        let command = number.to_string();
        let deed =
            Deed { id: command.clone(), at, command, outcome: Outcome::Done, about: Vec::new(), by, login_uid: None };
        format!("{}\n", serde_json::json!(deed))
    }

    /// The files change their names all the time, and whoever reads finds what was there before he began, once.
    #[test]
    fn a_reader_misses_nothing_while_files_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let written = |number: usize| fs::write(file(dir.path()), deed(number)).unwrap();
        let rotate = || {
            for number in (1..KEPT).rev() {
                let _ = fs::rename(old_file(dir.path(), number), old_file(dir.path(), number + 1));
            }
            fs::rename(file(dir.path()), old_file(dir.path(), 1)).unwrap();
        };
        written(0);
        let (newest, over) = (std::sync::atomic::AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..2000 {
                    rotate();
                    written(number);
                    newest.store(number, Ordering::SeqCst);
                }
                over.store(true, Ordering::SeqCst);
            });
            let mut reads = 0;
            while !over.load(Ordering::SeqCst) {
                let before = newest.load(Ordering::SeqCst);
                let found: Vec<usize> =
                    read(dir.path()).deeds.iter().map(|deed| deed.command.parse().unwrap()).collect();
                let after = newest.load(Ordering::SeqCst);
                // Older files may be removed while they are looked for.
                if after < before + KEPT as usize {
                    assert!(found.contains(&before), "{before} is not in {found:?}, now {after}");
                }
                assert!(found.is_sorted() && found.windows(2).all(|two| two[0] != two[1]), "{found:?}");
                reads += 1;
            }
            writer.join().unwrap();
            assert!(reads > 10, "{reads}");
        });
    }
}
