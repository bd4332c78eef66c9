//! Real container runtimes: their programs, and `podwire-runtimes` with them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::program::{self, command, exists, output};
use crate::{apt, packages, unpacked};

/// Who plays, in this order.
pub const ALL: [&str; 3] = ["containerd", "podman", "ctr"];

/// Debian's packages of them.
const PACKAGES: [&str; 3] = ["containerd", "runc", "podman"];

/// What is used of them.
const PROGRAMS: [&str; 5] = ["containerd", "ctr", "runc", "podman", "conmon"];

/// All of them; why not, if this user may not.
pub fn all(folder: &Path) -> Result<Option<String>, Error> {
    if let Err(Error::Hindered(reason)) = ensure_allowed() {
        return Ok(Some(reason));
    }
    ALL.iter().try_for_each(|runtime| run(folder, &["--runtime", runtime])).map(|()| None)
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

/// Fails where container runtimes would, for what this user may not.
pub fn ensure_allowed() -> Result<(), Error> {
    let is_root_of_all = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_whole(&map));
    if !nix::unistd::geteuid().is_root() || !is_root_of_all {
        return Err(Error::Hindered(
            "container runtimes need root of the machine, and this is somebody else".to_owned(),
        ));
    }
    let mut unshare = command("unshare");
    unshare.args(["--pid", "--fork", "--mount", "--mount-proc", "true"]);
    program::run(&mut unshare)
        .map_err(|error| Error::Hindered(format!("container runtimes need namespaces, and here {error}")))
}

/// Whether a user_namespaces(7) map is that of the first user namespace.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The folder that the packages are unpacked in; nothing if the machine has them.
fn programs() -> Result<Option<PathBuf>, Error> {
    let folder = unpacked::folder("runtimes");
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    if !exists("apt-get") || !exists("dpkg-deb") {
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !exists(program)).collect();
        return if missing.is_empty() { Ok(None) } else { Err(Error::Missing(missing.join(", "))) };
    }
    let missing = apt::with_lists(|| {
        output(apt::get("install").arg("--simulate").args(PACKAGES)).map(|simulated| missing(&simulated))
    })?;
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

    #[test]
    fn only_the_first_user_namespace_has_all_users() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("         0       1000          1\n"));
        assert!(!is_whole("         0          0      65536\n     65536      65536 4294901759\n"));
    }
}
