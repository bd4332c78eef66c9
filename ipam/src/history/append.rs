//! Writing the history.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;

use super::{Deed, KEPT, file, old_file};
use crate::event::Event;

/// How long the file may become before it is put aside, in bytes: some 8,000 leases.
const LONGEST: u64 = 4 << 20;

/// Appends events. Called under the ledger's lock, after the change is flushed and before it is answered; whoever
/// is killed in between leaves a note, and the next opener of the ledger records the change: so an event may be
/// there twice, under the same lease id, but is not missed.
pub(crate) fn record(state_dir: &Path, events: &[Event]) -> io::Result<()> {
    append(state_dir, events, LONGEST)
}

/// Appends what a person did.
pub(crate) fn note(state_dir: &Path, deed: &Deed) -> io::Result<()> {
    append(state_dir, std::slice::from_ref(deed), LONGEST)
}

fn append<T: Serialize>(state_dir: &Path, lines: &[T], longest: u64) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = file(state_dir);
    let open = || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = state_dir.parent() {
                fs::create_dir_all(parent)?;
            }
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
            open()?
        }
        opened => opened?,
    };
    let length = file.metadata()?.len();
    if length >= longest {
        let put_aside = match rotate(state_dir, longest) {
            // Somebody else has done it just now, and there is no new file yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            done => done?,
        };
        if put_aside {
            file = open()?;
        }
    }
    if is_cut_off(&file)? {
        // What a full disk cut off must not swallow the next line.
        file.write_all(b"\n")?;
    }
    for line in lines {
        file.write_all(format!("{}\n", serde_json::json!(line)).as_bytes())?;
    }
    Ok(())
}

fn is_cut_off(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// Puts the file aside, unless somebody else does or did. Whoever has it open still writes to it under its new name,
/// which loses nothing.
fn rotate(state_dir: &Path, longest: u64) -> io::Result<bool> {
    let path = file(state_dir);
    let locked = File::open(&path)?;
    if locked.try_lock().is_err() {
        return Ok(false);
    }
    let is_the_same = {
        use std::os::unix::fs::MetadataExt;
        let (held, there) = (locked.metadata()?, fs::metadata(&path)?);
        (held.dev(), held.ino()) == (there.dev(), there.ino()) && there.len() >= longest
    };
    if !is_the_same {
        return Ok(true);
    }
    for number in (1..KEPT).rev() {
        match fs::rename(old_file(state_dir, number), old_file(state_dir, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(&path, old_file(state_dir, 1))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("made");
        for number in 0..40 {
            append(&state_dir, &[json!({ "number": number })], 24).unwrap();
        }
        let text = |path| fs::read_to_string(path).unwrap();
        assert_eq!(text(file(&state_dir)), "{\"number\":38}\n{\"number\":39}\n");
        assert_eq!(text(old_file(&state_dir, 1)), "{\"number\":36}\n{\"number\":37}\n");
        assert_eq!(text(old_file(&state_dir, KEPT)), "{\"number\":22}\n{\"number\":23}\n");
        assert!(!old_file(&state_dir, KEPT + 1).exists());
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path()), "{\"number\":").unwrap();
        append(dir.path(), &[json!({ "number": 1 })], 1000).unwrap();
        assert_eq!(fs::read_to_string(file(dir.path())).unwrap(), "{\"number\":\n{\"number\":1}\n");
    }

    #[test]
    fn lines_of_many_writers_do_not_mix() {
        // At nearly each line somebody finds no file, because another has just put it aside.
        [600, 1].into_iter().for_each(many_writers);
    }

    fn many_writers(longest: u64) {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = dir.path();
                scope.spawn(move || {
                    for number in 0..50 {
                        append(path, &[json!({ "writer": writer, "number": number })], longest).unwrap();
                    }
                });
            }
        });
        let mut lines = 0;
        for path in super::super::files(dir.path()) {
            for line in fs::read_to_string(path).unwrap().lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
                lines += 1;
            }
        }
        // The oldest may have gone; what is there is whole.
        assert!((1..=400).contains(&lines), "{lines}");
    }
}
