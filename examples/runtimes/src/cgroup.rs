//! Control groups: one parent for all of a run, in every hierarchy that the machine has.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
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

/// One mounted hierarchy, as `/proc/mounts` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    on: PathBuf,
    kind: String,
    /// Controllers or a name; nothing for version 2.
    data: String,
}

/// The hierarchies of a table of mounts. Pure.
#[must_use]
pub fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let of_any_mount = ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec"];
    let of_version_2 = ["nsdelegate", "memory_recursiveprot", "favordynmods", "memory_hugetlb_accounting"];
    let hierarchy = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (on, kind, options) = (words.next()?, words.next()?, words.next()?);
        let chosen = |option: &&str| !of_any_mount.contains(option) && !of_version_2.contains(option);
        let data: Vec<&str> = options.split(',').filter(chosen).collect();
        (matches!(kind, "cgroup" | "cgroup2") && Path::new(on).starts_with(FOLDER)).then(|| Hierarchy {
            on: on.into(),
            kind: kind.to_owned(),
            data: data.join(","),
        })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

/// Those of this process.
///
/// # Errors
/// If they cannot be read.
pub fn mounted() -> Result<Vec<Hierarchy>, Error> {
    let mounts = Path::new("/proc/self/mounts");
    Ok(hierarchies(&fs::read_to_string(mounts).map_err(Error::file("read", mounts))?))
}

/// Mounts them again, where a new `/sys` has covered them.
///
/// # Errors
/// If the kernel refuses one.
pub fn mount_again(hierarchies: &[Hierarchy]) -> Result<(), Error> {
    if hierarchies.iter().all(|hierarchy| hierarchy.on != Path::new(FOLDER)) {
        mount_one("tmpfs", Path::new(FOLDER), "mode=0755")?;
    }
    for Hierarchy { on, kind, data } in hierarchies {
        fs::create_dir_all(on).map_err(Error::file("make", on))?;
        mount_one(kind, on, data)?;
    }
    Ok(())
}

fn mount_one(kind: &str, on: &Path, data: &str) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), on, Some(kind), flags, (!data.is_empty()).then_some(data)).map_err(|source| Error::Mount {
        what: kind.to_owned(),
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
    /// Those of the run that is this process; none is made yet. What a run of this process namespace left that was killed
    /// itself is removed.
    ///
    /// # Errors
    /// If the hierarchies cannot be read.
    pub fn of_this_run() -> Result<Self, Error> {
        let namespace = "/proc/self/ns/pid";
        let inode = fs::metadata(namespace).map_err(Error::file("read", namespace))?.ino();
        let prefix = format!("{PREFIX}{inode}-");
        let groups = Self { parent: format!("/{prefix}{}", std::process::id()), hierarchies: mounted()? };
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

    fn hierarchy(on: &str, kind: &str, data: &str) -> Hierarchy {
        Hierarchy { on: on.into(), kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn both_versions_are_found_with_their_controllers() {
        let mounts = "\
proc /proc proc rw 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime,nsdelegate 0 0
cgroup2 /elsewhere cgroup2 rw 0 0
";
        assert_eq!(
            hierarchies(mounts),
            [
                hierarchy("/sys/fs/cgroup/cpu", "cgroup", "cpu,cpuacct"),
                hierarchy("/sys/fs/cgroup/systemd", "cgroup", "name=systemd"),
                hierarchy("/sys/fs/cgroup/unified", "cgroup2", ""),
            ]
        );
        let alone =
            "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0";
        assert_eq!(hierarchies(alone), [hierarchy("/sys/fs/cgroup", "cgroup2", "")]);
    }
}
