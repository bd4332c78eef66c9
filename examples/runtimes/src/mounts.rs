//! What a node with a container runtime has besides a network of its own: `/opt` for everything that is installed and
//! everything that the runtime keeps, `/etc` for its configuration, `/dev/shm`, and the machine's control groups.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use podwire_examples::shipped;
use serde_json::{Value, json};

use crate::cgroup;
use crate::error::Error;

/// Where runtimes look for plugins.
pub const PLUGINS: &str = "/opt/cni/bin";
/// Where they look for configuration lists.
pub const CONFLISTS: &str = "/etc/cni/net.d";
/// The folder of everything that a runtime keeps here. It is neither below `/run` nor below `/var/lib`, so that what is
/// new there is what the plugins left.
pub const KEPT: &str = "/opt/runtime";

/// Where the node has mounts of its own; those of the sandbox too.
const COVERED: [&str; 5] = ["/opt", "/dev/shm", "/run", "/sys", "/var/lib"];

/// What containerd calls for each pod before our chain. It is the reference's.
const LOOPBACK: &str = "/usr/lib/cni/loopback";
/// What the runtime sent.
pub const RECORD: &str = "/opt/runtime/calls.jsonl";
/// Plugins, and the command lines that look into what they keep.
const EXECUTABLES: [&str; 5] = ["podwire", "podwire-ipam", "ipam", "podwire-portmap", "podwire-record"];

/// The folder by a path that is there inside, from every working directory.
///
/// # Errors
/// If there is none, or if the node has something of its own at its place.
pub fn visible(folder: &Path) -> Result<PathBuf, Error> {
    let path = fs::canonicalize(folder).map_err(Error::file("find", folder))?;
    match COVERED.into_iter().find(|covered| path.starts_with(covered)) {
        Some(covered) => Err(Error::Covered { path, covered }),
        None => Ok(path),
    }
}

/// Leaves the machine's network and mounts, and furnishes the node. This process has one thread until then.
///
/// # Errors
/// If a step is refused.
pub fn enter(plugin_dir: &Path) -> Result<(), Error> {
    sandbox::enter()?;
    cgroup::mount_all(&cgroup::all()?)?;
    tmpfs("/opt")?;
    tmpfs("/dev/shm")?;
    for folder in [PLUGINS, KEPT, "/opt/etc/upper", "/opt/etc/work", "/opt/tmp"] {
        fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    }
    let layers = "lowerdir=/etc,upperdir=/opt/etc/upper,workdir=/opt/etc/work";
    mounted("overlay", "/etc", Some(layers))?;
    let plugins = EXECUTABLES.iter().map(|name| plugin_dir.join(name)).chain([PathBuf::from(LOOPBACK)]);
    for plugin in plugins {
        let to = Path::new(PLUGINS).join(plugin.file_name().unwrap_or_default());
        fs::copy(&plugin, &to).map_err(Error::file("copy", &plugin))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).map_err(Error::file("open", &to))?;
    }
    configure()
}

fn configure() -> Result<(), Error> {
    let resolver = Path::new("/etc/resolv.conf");
    // It may point to a file that is not there; runtimes copy it into every container.
    drop(fs::remove_file(resolver));
    let policy = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";
    let conflist = format!("{CONFLISTS}/10-podwire.conflist");
    for (file, text) in [
        ("/etc/resolv.conf", ""),
        ("/etc/containers/policy.json", policy),
        ("/etc/containers/registries.conf", ""),
        (conflist.as_str(), &recorded(shipped::conflist()?.json)),
    ] {
        let folder = Path::new(file).parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
        fs::write(file, text).map_err(Error::file("write", file))?;
    }
    // libcni makes it with the first result, and never removes it.
    let cache = Path::new("/var/lib/cni/results");
    fs::create_dir_all(cache).map_err(Error::file("make", cache))
}

/// The list with a plugin at its end that writes down what it is sent.
fn recorded(mut list: Value) -> String {
    let recorder = json!({ "type": "podwire-record", "capabilities": { "portMappings": true }, "recordTo": RECORD });
    list["plugins"].as_array_mut().into_iter().for_each(|plugins| plugins.push(recorder.clone()));
    list.to_string()
}

fn tmpfs(on: &str) -> Result<(), Error> {
    mounted("tmpfs", on, Some("mode=0755"))
}

fn mounted(what: &str, on: &str, data: Option<&str>) -> Result<(), Error> {
    mount(Some(what), on, Some(what), MsFlags::empty(), data).map_err(|source| Error::Mount {
        what: what.to_owned(),
        on: on.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_covers_is_refused_and_named() {
        let error = visible(Path::new("/sys/../sys/kernel")).unwrap_err().to_string();
        assert_eq!(error, "/sys/kernel is below /sys, which the node has of its own: put it somewhere else");
        assert!(visible(Path::new("src")).unwrap().is_absolute());
    }
}
