//! `cni-conformance` with the targets of this repository.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::program::{command, output, root, run};
use crate::{build, say};

/// Shown below `--help`.
pub const OURS_EXAMPLES: &str = "Examples:
  cargo xtask conformance              all questions, to all targets of ours
  cargo run -p cni-conformance -- run conformance/targets/podwire.toml --plugin-dir DIR --filter gc";

/// Shown below `--help`.
pub const STANDING_EXAMPLES: &str = "Examples:
  cargo xtask standing                 takes a quarter of an hour, and writes nothing if something fails unexplained";

/// Before how many system calls `cargo xtask test` kills each plugin: the crates' own tests kill at all of them.
const POINTS: &str = "6";

/// The page that `cargo xtask standing` writes.
const PAGE: &str = "docs/standing.html";

/// Puts every question to every target of ours, none of which may have a known deviation.
pub fn ours(folder: &Path) -> Result<(), Error> {
    let targets = targets("podwire")?;
    for target in &targets {
        let text = fs::read_to_string(target).map_err(|source| file_error("read", target, source))?;
        if text.contains("[[deviations]]") {
            return Err(Error::Deviates(target.clone()));
        }
    }
    let mut suite = suite(folder);
    suite.args(["--points", POINTS]).args(&targets);
    run(&mut suite)
}

/// Writes the page that compares our targets with the reference plugins, unless something fails that is not explained.
pub fn standing() -> Result<(), Error> {
    let folder = build::executables()?;
    let mut suite = suite(&folder);
    suite.args(["--output", "html"]).args(targets("podwire")?).args(targets("reference")?);
    let page = root().join(PAGE);
    fs::write(&page, output(&mut suite)?).map_err(|source| file_error("write", &page, source))?;
    say(&page.display().to_string());
    Ok(())
}

fn suite(folder: &Path) -> std::process::Command {
    let mut suite = command("cargo");
    suite.args(["run", "--quiet", "--locked", "--package", "cni-conformance", "--bin", "cni-conformance", "--", "run"]);
    suite.arg("--plugin-dir").arg(folder);
    suite
}

/// The target files whose names begin so.
fn targets(beginning: &str) -> Result<Vec<PathBuf>, Error> {
    let folder = root().join("conformance/targets");
    let entries = fs::read_dir(&folder).map_err(|source| file_error("read", &folder, source))?;
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect();
    found.sort();
    Ok(found)
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}
