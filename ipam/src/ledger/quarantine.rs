//! A damaged database is put aside, for whoever wants to know how it came to that.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::Error;
use crate::store::Damage;

/// What the names of such folders begin with.
const PREFIX: &str = "ledger.corrupt.";
/// How many are kept.
const KEPT: usize = 3;

/// Moves the database to `ledger.corrupt.TIME` and notes the reason in it.
pub(super) fn put_aside(dir: &Path, database: &Path, damage: &Damage) -> Result<(), Error> {
    let failed = |source| Error::Quarantine { path: database.to_owned(), source };
    let aside = dir.join(format!("{PREFIX}{}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ")));
    fs::rename(database, &aside).map_err(failed)?;
    let cause = damage.source().map_or_else(String::new, |source| format!(": {source}"));
    fs::write(aside.join("reason.txt"), format!("{damage}{cause}\n")).map_err(failed)?;
    let all = put_aside_before(dir).map_err(failed)?;
    for old in all.iter().rev().skip(KEPT) {
        fs::remove_dir_all(old).map_err(failed)?;
    }
    Ok(())
}

/// All that were put aside, oldest first.
pub(crate) fn put_aside_before(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
