//! Debian's firewalls, beside which host ports are tested. They are unpacked below `target` and never installed: an
//! installed one would be started on this machine, with rules of its own.

use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::packages::{self, Needed};
use crate::program::{command, root, run};
use crate::say;

/// Programs and the Python files that they consist of.
const PACKAGES: [&str; 4] = ["firewalld", "python3-firewall", "python3-nftables", "ufw"];

/// What those run with, none of which starts anything.
const LIBRARIES: &[Needed] = &[
    ("dbus-daemon", "dbus-daemon"),
    ("/usr/lib/python3/dist-packages/dbus/__init__.py", "python3-dbus"),
    ("/usr/lib/python3/dist-packages/gi/__init__.py", "python3-gi"),
];

/// Unpacks them once. The tests find them in `target/firewalls`.
pub fn unpack() -> Result<(), Error> {
    packages::ensure(LIBRARIES)?;
    let folder = root().join("target/firewalls");
    if folder.is_dir() {
        return Ok(());
    }
    say(&format!("unpacking {} into {}", PACKAGES.join(" "), folder.display()));
    let whole = root().join("target");
    let parts = tempfile::tempdir_in(&whole).map_err(file_error("make a folder below", &whole))?;
    let archives = parts.path().join("archives");
    fs::create_dir(&archives).map_err(file_error("make", &archives))?;
    let download = || {
        let mut get = command("apt-get");
        get.args(["download", "--quiet", "--option", "Acquire::Retries=2", "--option", "Acquire::http::Timeout=20"]);
        // Nobody else writes into a folder of ours: without this, root's apt-get says that it cannot be somebody else.
        get.args(["--option", "APT::Sandbox::User=root"]);
        run(get.args(PACKAGES).current_dir(&archives))
    };
    if download().is_err() {
        // A fresh machine has no lists.
        run(command("apt-get").args(["update", "--quiet"]))?;
        download()?;
    }
    let unpacked = parts.path().join("unpacked");
    for entry in fs::read_dir(&archives).map_err(file_error("list", &archives))?.flatten() {
        run(command("dpkg-deb").arg("--extract").args([entry.path(), unpacked.clone()]))?;
    }
    // The tests run as ordinary users, too.
    run(command("chmod").args(["--recursive", "a+rX"]).arg(&unpacked))?;
    fs::rename(&unpacked, &folder).map_err(file_error("make", &folder))
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::File { action, path: path.to_owned(), source }
}
