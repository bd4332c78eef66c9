//! Debian packages that are unpacked below `target` and never installed: an installed daemon would be started on this
//! machine, with rules of its own, and may turn out what is there of other vendors.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::program::{command, root, run};
use crate::{apt, say};

/// Where they are, or will be.
pub fn folder(name: &str) -> PathBuf {
    root().join("target").join(name)
}

/// Fetches them, all that is in them readable by everybody. Of runs at the same time one does it, and the others wait.
pub fn unpack(name: &str, packages: &[impl AsRef<str>]) -> Result<PathBuf, Error> {
    let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    made_once(&root().join("target"), name, |parts| {
        say(&format!("unpacking {} in target/{name}, once", names.join(" ")));
        fetch(parts, &names)
    })
}

/// The folder of this name, which is there whole or not at all: `make` does its work in another, whose subfolder
/// `unpacked` it becomes. What a run left there that was interrupted is removed, and so is the rest of what is there.
fn made_once(below: &Path, name: &str, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    let (folder, parts) = (below.join(name), below.join(format!("{name}.part")));
    let lock = below.join(format!("{name}.lock"));
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.map_err(file_error("lock", &lock))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    remove(&parts)?;
    fs::create_dir(&parts).map_err(file_error("make", &parts))?;
    let made =
        make(&parts).and_then(|()| fs::rename(parts.join("unpacked"), &folder).map_err(file_error("make", &folder)));
    let removed = remove(&parts);
    made.and(removed).map(|()| folder)
}

fn fetch(parts: &Path, names: &[&str]) -> Result<(), Error> {
    let (archives, unpacked) = (parts.join("archives"), parts.join("unpacked"));
    apt::with_lists(|| {
        // With other lists, other versions may come.
        remove(&archives)?;
        fs::create_dir(&archives).map_err(file_error("make", &archives))?;
        run(apt::get("download").args(names).current_dir(&archives))
    })?;
    fs::create_dir(&unpacked).map_err(file_error("make", &unpacked))?;
    for entry in fs::read_dir(&archives).map_err(file_error("list", &archives))? {
        let archive = entry.map_err(file_error("list", &archives))?.path();
        run(command("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
    }
    run(command("chmod").args(["--recursive", "a+rX"]).arg(&unpacked))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file_error("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn make(parts: &Path) -> Result<(), Error> {
        let unpacked = parts.join("unpacked");
        fs::create_dir(&unpacked).and_then(|()| fs::write(unpacked.join("file"), "")).unwrap();
        Ok(())
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn what_an_interrupted_run_left_is_removed_and_never_used() {
        let below = tempfile::tempdir().unwrap();
        let left = below.path().join("programs.part/unpacked/half");
        fs::create_dir_all(&left).unwrap();
        let folder = made_once(below.path(), "programs", make).unwrap();
        assert_eq!(names(&folder), ["file"]);
        assert_eq!(names(below.path()), ["programs", "programs.lock"]);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let below = tempfile::tempdir().unwrap();
        made_once(below.path(), "programs", |parts| make(parts).and(Err(Error::NoHost))).unwrap_err();
        assert_eq!(names(below.path()), ["programs.lock"]);
    }

    #[test]
    fn one_of_many_makes_it() {
        let (below, made) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
        let counted = |parts: &Path| {
            made.fetch_add(1, Ordering::SeqCst);
            make(parts)
        };
        thread::scope(|scope| {
            let runs: Vec<_> =
                (0..8).map(|_| scope.spawn(|| made_once(below.path(), "programs", counted).unwrap())).collect();
            runs.into_iter().for_each(|run| assert_eq!(names(&run.join().unwrap()), ["file"]));
        });
        assert_eq!(made.into_inner(), 1);
    }
}
