//! What ARCHITECTURE.md promises of this crate's modules.

use std::fs;
use std::path::{Path, PathBuf};

/// All source files under a folder.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    folders.iter().flat_map(|folder| sources(folder)).chain(files).collect()
}

/// The lines of a file that are code, and name one of the words.
fn naming(path: &Path, words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word)))
        .map(|line| format!("{}: {}", path.display(), line.trim()))
        .collect()
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn allocation_is_pure() {
    let effects = ["std::fs", "std::process", "std::env", "kernel::", "sled", "nix::", "crate::store", "crate::ledger"];
    for pure in ["allocate.rs", "pool.rs", "span.rs"] {
        let path = source_dir().join(pure);
        assert!(path.is_file(), "{pure} is elsewhere now");
        assert_eq!(naming(&path, &effects), Vec::<String>::new());
    }
}

#[test]
fn only_the_store_names_the_engine() {
    let store = source_dir().join("store");
    let others = sources(&source_dir()).into_iter().filter(|path| !path.starts_with(&store));
    let named: Vec<String> = others.flat_map(|path| naming(&path, &["sled::", "use sled"])).collect();
    assert_eq!(named, Vec::<String>::new());
    let inside: Vec<String> = sources(&store).iter().flat_map(|path| naming(path, &["sled::"])).collect();
    assert!(!inside.is_empty(), "the store is elsewhere now");
}
