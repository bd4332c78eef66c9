//! What runtimes wrote, for a run that did not go as it should.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::mounts::KEPT;

/// How many lines of a log are shown.
const LINES: usize = 30;
/// How many bytes of a line: containerd writes its whole configuration into one.
const WIDTH: usize = 400;

/// Prints the end of every log: the runtime's, its command line's, the containers', and what the plugins were sent.
///
/// # Errors
/// If nobody reads.
pub fn show(out: &mut dyn Write) -> io::Result<()> {
    for log in all(Path::new(KEPT)) {
        let text = fs::read_to_string(&log).unwrap_or_else(|error| format!("cannot be read: {error}"));
        writeln!(out, "\n--- the end of {}\n{}", log.display(), tail(&text))?;
    }
    out.flush()
}

/// Those that have been written. Whatever is missing was not come to.
fn all(kept: &Path) -> Vec<PathBuf> {
    let folders = [kept.to_owned(), kept.join("logs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log" || end == "jsonl");
    let mut logs: Vec<PathBuf> = files.map(|file| file.path()).filter(is_log).collect();
    logs.sort();
    logs
}

/// The last lines, none of them long.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    let short = |line: &&str| match line.char_indices().map(|(at, _)| at).find(|&at| at >= WIDTH) {
        Some(end) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => (*line).to_owned(),
    };
    last.iter().map(short).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_shown_and_lines_are_cut() {
        let text = (0..100).map(|number| format!("{number} {}\n", "ä".repeat(number * 10))).collect::<String>();
        let shown = tail(&text);
        assert_eq!(shown.lines().count(), LINES);
        assert!(shown.starts_with("70 "), "{shown}");
        assert!(shown.lines().all(|line| line.len() <= WIDTH + 4 && line.ends_with("ä...")), "{shown}");
        assert_eq!(tail("short"), "short");
    }

    #[test]
    fn logs_of_the_runtime_and_of_its_containers_are_found() {
        let kept = tempfile::tempdir().unwrap();
        fs::create_dir(kept.path().join("logs")).unwrap();
        let names = ["calls.jsonl", "containerd.log", "logs/web.log"];
        for name in names.into_iter().chain(["image.tar", "containerd.toml"]) {
            fs::write(kept.path().join(name), "").unwrap();
        }
        assert_eq!(all(kept.path()), names.map(|name| kept.path().join(name)));
    }
}
