//! Debian packages that are unpacked below `target` and never installed: an installed daemon would be started on this
//! machine, with rules of its own, and may turn out what is there of other vendors.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::program::{command, root, run};
use crate::say;

/// A mirror may be busy for a moment. Nobody else writes into a folder of ours: without the last one, root's apt-get
/// says that it cannot be somebody else.
const OPTIONS: [&str; 7] = [
    "--quiet",
    "--option",
    "Acquire::Retries=5",
    "--option",
    "Acquire::http::Timeout=20",
    "--option",
    "APT::Sandbox::User=root",
];

/// Where they are, or will be.
pub fn folder(name: &str) -> PathBuf {
    root().join("target").join(name)
}

/// Fetches them, all that is in them readable by everybody. The lists of packages must be there.
pub fn unpack(name: &str, packages: &[impl AsRef<str>]) -> Result<PathBuf, Error> {
    let (target, folder) = (root().join("target"), folder(name));
    let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    say(&format!("unpacking {} in target/{name}, once", names.join(" ")));
    let parts = tempfile::tempdir_in(&target).map_err(file_error("make a folder below", &target))?;
    let (archives, unpacked) = (parts.path().join("archives"), parts.path().join("unpacked"));
    for new in [&archives, &unpacked] {
        fs::create_dir(new).map_err(file_error("make", new))?;
    }
    with_lists(|| run(command("apt-get").arg("download").args(OPTIONS).args(&names).current_dir(&archives)))?;
    for entry in fs::read_dir(&archives).map_err(file_error("list", &archives))? {
        let archive = entry.map_err(file_error("list", &archives))?.path();
        run(command("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
    }
    run(command("chmod").args(["--recursive", "a+rX"]).arg(&unpacked))?;
    let renamed = fs::rename(&unpacked, &folder);
    // Another run may have been faster.
    if !folder.is_dir() {
        renamed.map_err(file_error("make", &folder))?;
    }
    Ok(folder)
}

/// Does what needs the lists of packages; a fresh machine has none or old ones, and they are got when it fails.
pub fn with_lists<T>(mut get: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    get().or_else(|_| {
        run(command("apt-get").arg("update").args(OPTIONS))?;
        get()
    })
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::File { action, path: path.to_owned(), source }
}
