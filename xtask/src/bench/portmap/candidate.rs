//! Who is measured: both backends of ours and of the reference plugin.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host::{Host, POD, POD_PORT};
use super::{FIRST, rules};
use crate::error::Error;
use crate::program::{command, output};
use crate::say;

/// Debian's.
const REFERENCE: &str = "/usr/lib/cni/portmap";
/// Ports of one pod of ours, so that thousands of mappings are made by a few ADDs.
const PORTS_OF_A_POD: usize = 100;
/// The first port of what is added when everything is there.
const ONE_MORE: usize = 19_000;

/// A plugin with one backend.
pub struct Candidate {
    /// For people.
    pub name: String,
    backend: &'static str,
    /// `None` where rules are written as it would write them, because it cannot be installed.
    program: Option<PathBuf>,
    fill: Fill,
}

/// How mappings come to be there.
enum Fill {
    /// By ADDs.
    Adds,
    /// By the text that its ADDs would have made, one pod for each port: ADDs would take hours.
    Text { load: &'static str, text: fn(usize) -> String },
}

/// All four. A reference plugin that does not know nftables stands for itself only by its rules.
pub fn all(ours: &Path, host: &Host) -> Result<Vec<Candidate>, Error> {
    let reference = Path::new(REFERENCE).to_owned();
    let new = |name: &str, backend, program: Option<PathBuf>, fill| Candidate {
        name: name.to_owned(),
        backend,
        program,
        fill,
    };
    let iptables = Fill::Text { load: "iptables-restore", text: rules::iptables };
    let nftables = Fill::Text { load: "nft", text: rules::nftables };
    let mut candidates = vec![
        new("podwire-portmap, nftables", "nftables", Some(ours.to_owned()), Fill::Adds),
        new("podwire-portmap, iptables", "iptables", Some(ours.to_owned()), Fill::Adds),
        new("portmap, iptables", "iptables", Some(reference.clone()), iptables),
    ];
    let knows = new("portmap, nftables", "nftables", Some(reference), nftables);
    host.clean()?;
    let added = knows.add(ONE_MORE, "probe", &[(ONE_MORE, POD_PORT)]);
    let listed = output(command("nft").args(["list", "tables"]))?;
    if added.is_ok() && listed.contains("cni_hostport") {
        candidates.push(knows);
    } else {
        say(
            "the installed portmap has no nftables backend: its rules are written as newer ones write them, and its ADD is not measured",
        );
        candidates.push(Candidate { program: None, ..knows });
    }
    Ok(candidates)
}

impl Candidate {
    /// Maps so many ports; the first and the last lead to the pod that answers.
    pub fn fill(&self, _: &Host, mapped: usize) -> Result<(), Error> {
        let Fill::Text { load, text } = self.fill else {
            let last = FIRST + mapped - 1;
            self.add(FIRST, "first", &[(FIRST, POD_PORT)])?;
            let between: Vec<(usize, u16)> = (FIRST + 1..last).map(|port| (port, POD_PORT)).collect();
            for (number, ports) in between.chunks(PORTS_OF_A_POD).enumerate() {
                self.add(number, &format!("between{number}"), ports)?;
            }
            if last > FIRST {
                self.add(last, "last", &[(last, POD_PORT)])?;
            }
            return Ok(());
        };
        let mut program = command(load);
        if load == "nft" {
            program.args(["-f", "-"]);
        }
        let start = |source| Error::Start { program: load.to_owned(), source };
        let mut child = program.stdin(Stdio::piped()).spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text(mapped).as_bytes()).map_err(start)?;
        }
        let status = child.wait().map_err(start)?;
        if status.success() { Ok(()) } else { Err(Error::Failed { command: load.to_owned(), status }) }
    }

    /// How long it takes to add one more pod with one port; `None` if that cannot be measured.
    pub fn add_one(&self, number: usize) -> Result<Option<Duration>, Error> {
        self.call_for_one("ADD", number)
    }

    /// How long it takes to delete it again; `None` if that cannot be measured.
    pub fn delete_one(&self, number: usize) -> Result<Option<Duration>, Error> {
        self.call_for_one("DEL", number)
    }

    fn call_for_one(&self, command: &str, number: usize) -> Result<Option<Duration>, Error> {
        if self.program.is_none() {
            return Ok(None);
        }
        let port = ONE_MORE + number;
        let start = Instant::now();
        self.call(command, port, &format!("more{number}"), &[(port, POD_PORT)])?;
        Ok(Some(start.elapsed()))
    }

    fn add(&self, number: usize, container: &str, ports: &[(usize, u16)]) -> Result<(), Error> {
        self.call("ADD", number, container, ports)
    }

    /// ADD or DEL of a pod. `number` makes an address for those that are not connected to.
    fn call(&self, command_name: &str, number: usize, container: &str, ports: &[(usize, u16)]) -> Result<(), Error> {
        let Some(program) = &self.program else { return Ok(()) };
        let mappings: Vec<Value> = ports
            .iter()
            .map(|(host, pod)| json!({ "hostPort": host, "containerPort": pod, "protocol": "tcp" }))
            .collect();
        // An address that another pod had makes an ADD wait until the kernel has forgotten that one.
        let address = match container {
            "first" | "last" | "probe" => POD.to_string(),
            _ => format!("10.88.{}.{}", number / 250, number % 250 + 2),
        };
        let conf = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "portmap", "backend": self.backend,
            "runtimeConfig": { "portMappings": mappings },
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "p0" }, { "name": "eth0", "sandbox": "/run/netns/pod" }],
                "ips": [{ "interface": 1, "address": format!("{address}/32"), "gateway": "10.88.0.1" }],
            },
        });
        let mut process = command(program);
        process.envs([
            ("CNI_COMMAND", command_name),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/pod"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source| Error::Start { program: program.display().to_string(), source };
        let mut child = process.spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(conf.to_string().as_bytes()).map_err(start)?;
        }
        let ended = child.wait_with_output().map_err(start)?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        Err(Error::Failed { command: format!("{} {command_name}: {said}", program.display()), status: ended.status })
    }
}
