//! Control groups: one parent for all of a run, in every hierarchy that the kernel has. They are mounted by the run itself,
//! so that it does not matter whether and how the machine shows them: not at all, read-only, or in part.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::error::Error;

/// Where the hierarchies are mounted.
const FOLDER: &str = "/sys/fs/cgroup";
/// What the parents of all runs are called; the inode of the first process's process namespace and its number follow. A
/// number alone would be another's process where containers share hierarchies.
const PREFIX: &str = "podwire-runtimes-";
/// How long a group may be busy after its last process has ended.
const BUSY: Duration = Duration::from_secs(60);

/// One hierarchy, and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    on: PathBuf,
    kind: &'static str,
    /// Controllers or a name; nothing for version 2.
    data: String,
}

impl Hierarchy {
    /// Of version 1, where systemd has it.
    fn version_1(data: &str) -> Self {
        let folder = data.strip_prefix("name=").unwrap_or(data);
        Self { on: Path::new(FOLDER).join(folder), kind: "cgroup", data: data.to_owned() }
    }

    /// Of version 2.
    fn version_2(on: impl Into<PathBuf>) -> Self {
        Self { on: on.into(), kind: "cgroup2", data: String::new() }
    }

    /// What it is known by besides, if it has more than one controller: runtimes look for each by its own name.
    fn aliases(&self) -> impl Iterator<Item = &str> {
        self.data.split(',').filter(|_| self.data.contains(','))
    }
}

/// The hierarchies of /proc/PID/cgroup: those of version 1 with that of version 2 beside them, or that alone. Pure.
#[must_use]
pub fn hierarchies(groups: &str) -> Vec<Hierarchy> {
    let all = groups.lines().filter_map(|line| line.split(':').nth(1)).filter(|data| !data.is_empty());
    let version_1: BTreeSet<&str> = all.collect();
    if version_1.iter().all(|data| data.starts_with("name=")) {
        return vec![Hierarchy::version_2(FOLDER)];
    }
    let version_2 = Hierarchy::version_2(Path::new(FOLDER).join("unified"));
    version_1.into_iter().map(Hierarchy::version_1).chain([version_2]).collect()
}

/// Those of this machine.
///
/// # Errors
/// If they cannot be read.
pub fn all() -> Result<Vec<Hierarchy>, Error> {
    let groups = Path::new("/proc/self/cgroup");
    Ok(hierarchies(&fs::read_to_string(groups).map_err(Error::file("read", groups))?))
}

/// Mounts them, in this process's mount namespace alone, over what the machine shows there.
///
/// # Errors
/// If the kernel refuses one.
pub fn mount_all(hierarchies: &[Hierarchy]) -> Result<(), Error> {
    if !Path::new(FOLDER).is_dir() {
        mount_one("sysfs", Path::new("/sys"), "")?;
    }
    // Version 2 is not mounted over itself: EBUSY (do_add_mount in fs/namespace.c).
    mount_one("tmpfs", Path::new(FOLDER), "mode=0755")?;
    for hierarchy in hierarchies {
        let Hierarchy { on, kind, data } = hierarchy;
        fs::create_dir_all(on).map_err(Error::file("make", on))?;
        mount_one(kind, on, data)?;
        for alias in hierarchy.aliases().map(|alias| Path::new(FOLDER).join(alias)) {
            symlink(on, &alias).map_err(Error::file("make", alias))?;
        }
    }
    Ok(())
}

fn mount_one(kind: &str, on: &Path, data: &str) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), on, Some(kind), flags, (!data.is_empty()).then_some(data)).map_err(|source| Error::Mount {
        what: if data.is_empty() { kind.to_owned() } else { format!("{kind} with {data}") },
        on: on.to_owned(),
        source,
    })
}

/// The groups of one run.
#[derive(Debug)]
pub struct Groups {
    parent: String,
    hierarchies: Vec<Hierarchy>,
}

impl Groups {
    /// Those of the run that is this process, in hierarchies that are mounted already; none is made yet. What a run of this
    /// process namespace left that was killed itself is removed.
    ///
    /// # Errors
    /// If the process namespace cannot be read.
    pub fn of_this_run(hierarchies: Vec<Hierarchy>) -> Result<Self, Error> {
        let namespace = "/proc/self/ns/pid";
        let inode = fs::metadata(namespace).map_err(Error::file("read", namespace))?.ino();
        let prefix = format!("{PREFIX}{inode}-");
        let groups = Self { parent: format!("/{prefix}{}", std::process::id()), hierarchies };
        for hierarchy in &groups.hierarchies {
            for folder in fs::read_dir(&hierarchy.on).into_iter().flatten().flatten() {
                let name = folder.file_name().to_string_lossy().into_owned();
                let run = name.strip_prefix(&prefix).and_then(|number| number.parse::<u32>().ok());
                if run.is_some_and(|run| !Path::new(&format!("/proc/{run}")).exists()) {
                    // What is still busy is for the next run.
                    drop(remove_tree(&folder.path(), Instant::now()));
                }
            }
        }
        Ok(groups)
    }

    /// The parent that runtimes are told.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// Removes what they have made below it. Nothing runs in them any more.
    ///
    /// # Errors
    /// If one stays busy.
    pub fn remove(&self) -> Result<(), Error> {
        let deadline = Instant::now() + BUSY;
        self.hierarchies
            .iter()
            .try_for_each(|hierarchy| remove_tree(&hierarchy.on.join(self.parent.trim_start_matches('/')), deadline))
    }
}

/// Its files are the kernel's: only folders can be removed, the inner ones first.
fn remove_tree(folder: &Path, deadline: Instant) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::file("list", folder))?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path(), deadline)?;
    }
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => return removed.map_err(Error::file("remove", folder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel writes it, where systemd has joined controllers.
    const BOTH: &str = "\
5:memory:/user.slice
4:cpu,cpuacct:/
1:name=systemd:/init.scope
0::/init.scope
";

    #[test]
    fn version_2_stands_beside_version_1_or_alone() {
        let v1 = |on: &str, data: &str| Hierarchy { on: on.into(), kind: "cgroup", data: data.to_owned() };
        assert_eq!(
            hierarchies(BOTH),
            [
                v1("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
                v1("/sys/fs/cgroup/memory", "memory"),
                v1("/sys/fs/cgroup/systemd", "name=systemd"),
                Hierarchy::version_2("/sys/fs/cgroup/unified"),
            ]
        );
        let alone = [Hierarchy::version_2("/sys/fs/cgroup")];
        assert_eq!(hierarchies("0::/init.scope\n"), alone);
        // Nobody has mounted any yet; systemd's own has no controllers.
        assert_eq!(hierarchies(""), alone);
        assert_eq!(hierarchies("1:name=systemd:/\n0::/\n"), alone);
    }

    #[test]
    fn version_2_alone_is_mounted_where_it_is_mounted_already() {
        sandbox::private_host(|| {
            let map = fs::read_to_string("/proc/self/uid_map").unwrap();
            if !map.split_whitespace().eq(["0", "0", "4294967295"]) {
                eprintln!("skipped: control groups are mounted by root of the machine");
                return;
            }
            for _ in 0..2 {
                mount_all(&hierarchies("")).unwrap();
                assert!(Path::new(FOLDER).join("cgroup.procs").is_file());
            }
        });
    }

    #[test]
    fn joined_controllers_are_found_by_each_name() {
        let aliases: Vec<Vec<String>> =
            hierarchies(BOTH).iter().map(|hierarchy| hierarchy.aliases().map(str::to_owned).collect()).collect();
        assert_eq!(aliases, [vec!["cpu", "cpuacct"], vec![], vec![], vec![]]);
    }
}
