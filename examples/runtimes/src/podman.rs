//! podman with its CNI backend, and with a configuration and folders of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde_json::Value;

use crate::error::Error;
use crate::mounts::{CONFLISTS, KEPT, PLUGINS};
use crate::programs::{Programs, line, output};

/// podman, which has no daemon.
#[derive(Debug)]
pub struct Podman {
    programs: Programs,
}

impl Podman {
    /// Writes its configuration.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(programs: &Programs) -> Result<Self, Error> {
        let podman = Self { programs: programs.clone() };
        for (name, text) in [("containers.conf", configuration(programs)?), ("storage.conf", STORAGE.to_owned())] {
            let file = Path::new(KEPT).join(name);
            fs::write(&file, text).map_err(Error::file("write", &file))?;
        }
        Ok(podman)
    }

    /// A command of it.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut podman = self.programs.command("podman");
        podman.env("CONTAINERS_CONF", format!("{KEPT}/containers.conf"));
        podman.env("CONTAINERS_STORAGE_CONF", format!("{KEPT}/storage.conf"));
        podman.args(arguments);
        podman
    }

    /// Its name and version.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn version(&self) -> Result<String, Error> {
        Ok(output(&mut self.command(&["--version"]))?.trim().replace(" version", ""))
    }

    /// What a container wrote, or why that cannot be told.
    #[must_use]
    pub fn logs(&self, name: &str) -> String {
        output(&mut self.command(&["logs", name])).unwrap_or_else(|error| error.to_string())
    }

    /// What it knows of a container.
    ///
    /// # Errors
    /// If it knows none of this name.
    pub fn inspect(&self, name: &str) -> Result<Value, Error> {
        let mut command = self.command(&["container", "inspect", name]);
        let text = output(&mut command)?;
        let all: Option<Vec<Value>> = serde_json::from_str(&text).ok();
        let first = all.and_then(|all| all.into_iter().next());
        first.ok_or_else(|| Error::Printed { command: line(&command), what: "container", output: text })
    }
}

/// Where podman keeps images and containers; one program at a time writes there.
const STORAGE: &str =
    "[storage]\ndriver = \"overlay\"\ngraphroot = \"/opt/runtime/storage\"\nrunroot = \"/opt/runtime/run\"\n";

/// Limits that podman would raise, and may not without CAP_SYS_RESOURCE, stay as they are.
fn configuration(programs: &Programs) -> Result<String, Error> {
    let limit = |(resource, name)| {
        let (_, hard) = getrlimit(resource).map_err(|source| Error::System { action: "read a limit", source })?;
        Ok::<_, Error>(ulimit(name, hard))
    };
    let limits = [(Resource::RLIMIT_NOFILE, "nofile"), (Resource::RLIMIT_NPROC, "nproc")].map(limit);
    let limits = limits.into_iter().collect::<Result<Vec<_>, _>>()?.join(", ");
    let path = |name: &str| programs.find(name).unwrap_or_default().display().to_string();
    Ok(format!(
        r#"[containers]
log_driver = "k8s-file"
default_ulimits = [{limits}]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
conmon_path = ["{conmon}"]
tmp_dir = "{KEPT}/libpod"
[engine.runtimes]
runc = ["{runc}"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{PLUGINS}"]
network_config_dir = "{CONFLISTS}"
default_network = "podnet"
"#,
        conmon = path("conmon"),
        runc = path("runc"),
    ))
}

/// As `default_ulimits` has it, where -1 is no limit.
fn ulimit(name: &str, hard: u64) -> String {
    let hard = if hard == RLIM_INFINITY { "-1".to_owned() } else { hard.to_string() };
    format!("\"{name}={hard}:{hard}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_no_number_that_podman_refuses() {
        assert_eq!(ulimit("nofile", 1024), "\"nofile=1024:1024\"");
        assert_eq!(ulimit("nproc", RLIM_INFINITY), "\"nproc=-1:-1\"");
    }
}
