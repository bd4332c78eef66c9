//! Real container runtimes: their programs, and `podwire-runtimes` with them.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::program::{self, command, exists, line, output};
use crate::{packages, say, unpacked};

/// Who plays, in this order.
pub const ALL: [&str; 3] = ["containerd", "podman", "ctr"];

/// Debian's packages of them.
const PACKAGES: [&str; 3] = ["containerd", "runc", "podman"];

/// All of them, if this user may.
pub fn all(folder: &Path) -> Result<(), Error> {
    if let Some(reason) = hindrance() {
        say(&format!("skipped: {reason}"));
        return Ok(());
    }
    ALL.iter().try_for_each(|runtime| run(folder, &["--runtime", runtime]))
}

/// Builds `podwire-runtimes` and plays with these options of it.
pub fn run(folder: &Path, options: &[&str]) -> Result<(), Error> {
    packages::ensure(packages::RUNTIMES)?;
    let mut runtimes = command("cargo");
    runtimes.args(["run", "--quiet", "--locked", "--package", "podwire-runtimes", "--"]);
    runtimes.arg("--plugin-dir").arg(folder).args(options);
    if let Some(programs) = programs()? {
        runtimes.arg("--programs").arg(programs);
    }
    program::run(&mut runtimes)
}

/// What container runtimes do that this user may not.
fn hindrance() -> Option<&'static str> {
    let mut unshare = command("unshare");
    unshare.args(["--pid", "--fork", "--mount", "--mount-proc", "true"]).stderr(std::process::Stdio::null());
    if !nix::unistd::geteuid().is_root() {
        Some("container runtimes need root, and this run is by an ordinary user")
    } else if !unshare.status().is_ok_and(|status| status.success()) {
        Some("container runtimes need namespaces, and this root may make none")
    } else {
        None
    }
}

/// The folder that the packages are unpacked in; nothing if the machine has them.
fn programs() -> Result<Option<PathBuf>, Error> {
    let folder = unpacked::folder("runtimes");
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    let mut install = command("apt-get");
    install.args(["install", "--simulate", "--no-install-recommends"]).args(PACKAGES).env("LC_ALL", "C");
    if !exists("apt-get") || !exists("dpkg-deb") {
        let there = ["containerd", "ctr", "runc", "podman", "conmon"].iter().all(|program| exists(program));
        return if there { Ok(None) } else { Err(Error::Packages(line(&install))) };
    }
    unpacked::update_lists()?;
    let missing = missing(&output(&mut install)?);
    if missing.is_empty() { Ok(None) } else { unpacked::unpack("runtimes", &missing).map(Some) }
}

/// What apt-get(8) would install newly. What is there in an older version will do.
fn missing(simulated: &str) -> Vec<String> {
    let installed = |line: &str| {
        let mut words = line.strip_prefix("Inst ")?.split_whitespace();
        let name = words.next()?;
        words.next().is_some_and(|word| word.starts_with('(')).then(|| name.to_owned())
    };
    simulated.lines().filter_map(installed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_in_an_older_version_is_not_missing() {
        let simulated = "\
Reading package lists...
Inst login [1:4.13+dfsg1-1+deb12u1] (1:4.13+dfsg1-1+deb12u2 Debian:12.15/oldstable [amd64])
Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst containerd (1.6.20~ds1-1+deb12u3 Debian:12.15/oldstable [amd64])
Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])
";
        assert_eq!(missing(simulated), ["runc", "containerd"]);
    }
}
