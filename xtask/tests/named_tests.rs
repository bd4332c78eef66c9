//! Documents that promise a test for each behaviour: what they name is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Tables whose last column names files and the tests in them.
const DOCUMENTS: [&str; 2] = ["docs/reference-tests.md", "docs/threat-model.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// As the documents say: below the main plugin's tests, unless the name begins elsewhere.
fn place(name: &str) -> PathBuf {
    let plugin = root().join("cni-plugin");
    match name.split('/').next() {
        Some("src" | "tests") => plugin.join(name),
        Some("kernel") => root().join(name),
        _ => plugin.join("tests/namespaces").join(name),
    }
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_test_name(word: &str) -> bool {
    word.contains('_') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A function, or a row of a macro that makes one.
fn has_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    [format!("fn {name}("), format!("\n    {name}: ")].iter().any(|words| text.contains(words))
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut findings = Vec::new();
    let mut named = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut file: Option<PathBuf> = None;
        for row in text.lines().filter(|line| line.starts_with('|')) {
            let column = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
            for word in quoted(column) {
                if word.ends_with(".rs") || word.starts_with("tests/") {
                    let path = place(word);
                    if !path.exists() {
                        findings.push(format!("{document}: there is no {word}"));
                    }
                    file = word.ends_with(".rs").then_some(path);
                } else if is_test_name(word) {
                    named += 1;
                    if !file.as_ref().is_some_and(|file| has_test(file, word)) {
                        findings.push(format!("{document}: no test {word} where it says"));
                    }
                }
            }
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    assert!(named > 20, "only {named} tests are named: has the form of the tables changed?");
}
