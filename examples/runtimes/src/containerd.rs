//! containerd, with a configuration and folders of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::cri::Client;
use crate::cri::message::{
    ImageSpec, ImageStatusRequest, ImageStatusResponse, StatusRequest, StatusResponse, VersionRequest, VersionResponse,
};
use crate::error::Error;
use crate::image;
use crate::mounts::{CONFLISTS, KEPT, PLUGINS};
use crate::programs::{self, Programs, output, wait_for};

/// The containerd namespace of what a kubelet asks for.
pub const KUBERNETES: &str = "k8s.io";

/// A containerd that runs. It is killed when this is dropped; its shims live on until the process namespace ends.
#[derive(Debug)]
pub struct Containerd {
    programs: Programs,
    child: Child,
}

impl Containerd {
    /// Starts it, and waits until it is ready for pods.
    ///
    /// # Errors
    /// If it does not start, or is not ready in time.
    pub fn start(programs: &Programs) -> Result<Self, Error> {
        let config = file("containerd.toml");
        fs::write(&config, configuration()).map_err(Error::file("write", &config))?;
        let log = OpenOptions::new().create(true).append(true).open(log()).map_err(Error::file("write", log()))?;
        let errors = log.try_clone().map_err(Error::file("write", self::log()))?;
        let mut command = programs.command("containerd");
        let child = command.arg("--config").arg(&config).stdout(log).stderr(errors).spawn();
        let mut containerd = Self { programs: programs.clone(), child: child.map_err(programs::start("containerd"))? };
        containerd.wait_until_ready()?;
        Ok(containerd)
    }

    /// Kills it as the kernel does when memory is short.
    pub fn kill(mut self) {
        programs::end(&mut self.child);
    }

    /// A connection for a kubelet.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn client(&self) -> Result<Client, Error> {
        Client::connect(&socket())
    }

    /// `ctr` in a containerd namespace.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut ctr = self.programs.command("ctr");
        ctr.arg("--address").arg(socket()).args(["--namespace", namespace]);
        ctr
    }

    /// Makes the image known in a containerd namespace; in that of Kubernetes, waits until the kubelet's side knows it.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn import(&self, archive: &Path, namespace: &str) -> Result<(), Error> {
        output(self.ctr(namespace).args(["images", "import"]).arg(archive))?;
        if namespace != KUBERNETES {
            return Ok(());
        }
        let client = self.client()?;
        let known = || {
            let image = Some(ImageSpec { image: image::NAME.to_owned() });
            let status: ImageStatusResponse =
                client.call_of("ImageService", "ImageStatus", ImageStatusRequest { image })?;
            Ok(status.image)
        };
        wait_for("containerd's CRI side to know the image", known, String::new).map(drop)
    }

    /// Its name and version, as it tells a kubelet.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn version(&self) -> Result<String, Error> {
        let version: VersionResponse = self.client()?.call("Version", VersionRequest::default())?;
        // Debian's version has Debian's revision behind it.
        let number = version.runtime_version.split(['~', '+', '-']).next().unwrap_or_default();
        Ok(format!("{} {number}", version.runtime_name))
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let child = &mut self.child;
        let ready = || {
            if let Some(status) = child.try_wait().map_err(programs::start("containerd"))? {
                let command = "containerd".to_owned();
                return Err(Error::Failed { command, status, output: String::new() });
            }
            // It listens before its services do.
            let answer = Client::connect(&socket()).and_then(|client| client.call("Status", StatusRequest {}));
            let Ok(StatusResponse { status: Some(status) }) = answer else { return Ok(None) };
            Ok(status.conditions.iter().all(|condition| condition.status).then_some(()))
        };
        wait_for("containerd to be ready", ready, String::new)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        programs::end(&mut self.child);
    }
}

/// Where its log is.
fn log() -> PathBuf {
    file("containerd.log")
}

fn socket() -> PathBuf {
    file("containerd.sock")
}

fn file(name: &str) -> PathBuf {
    Path::new(KEPT).join(name)
}

/// What differs from the defaults: places, the image that holds pods open, and what a machine without AppArmor and
/// without CAP_SYS_RESOURCE cannot do. Snapshotters that would have a module loaded, or are of no use here, are off.
fn configuration() -> String {
    format!(
        r#"version = 2
root = "{KEPT}/root"
state = "{KEPT}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{KEPT}/containerd.sock"
[ttrpc]
  address = "{KEPT}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{CONFLISTS}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        image = image::NAME,
    )
}
