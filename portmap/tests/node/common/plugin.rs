//! The executable, run as a runtime runs it.

use std::io::Write;
use std::process::{Output, Stdio};

use cni_spec::NetConf;
use portmap::config::Config;
use serde_json::{Value, json};

use super::net::Host;

/// One attachment's requests.
pub struct Attachment {
    pub container: String,
    pub ifname: String,
    pub netns: String,
    /// The network config of ADD.
    pub config: Value,
    /// `CNI_ARGS`.
    pub args: String,
}

/// How a request ended.
#[derive(Debug)]
pub enum Answer {
    /// Exit code 0: what was printed on standard output; null if nothing was.
    Ok { result: Value, stderr: String },
    /// Another one: the error object.
    Failed { code: u64, msg: String, details: String },
}

/// The error code of a host port that is somebody else's.
pub const HELD: u64 = 120;
/// The error code of CHECK's differences.
pub const DIFFERS: u64 = 110;

impl Attachment {
    /// A pod's `eth0` in network "podnet", with these `portMappings`.
    pub fn new(pod: &Host, mappings: &Value) -> Self {
        let netns = format!("/run/netns/{}", pod.name);
        let mut prev_result = prev_result(&netns, &[&format!("{}/32", pod.v4), &format!("{}/128", pod.v6)]);
        prev_result["interfaces"][0]["name"] = json!(pod.link);
        Self::with_prev_result(&pod.name, &prev_result, mappings)
    }

    /// An attachment whose pod exists on paper only.
    pub fn on_paper(container: &str, addresses: &[&str], mappings: &Value) -> Self {
        Self::with_prev_result(container, &prev_result(&format!("/run/netns/{container}"), addresses), mappings)
    }

    fn with_prev_result(container: &str, prev_result: &Value, mappings: &Value) -> Self {
        let config = json!({
            "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap",
            "prevResult": prev_result, "runtimeConfig": { "portMappings": mappings },
        });
        let netns = format!("/run/netns/{container}");
        Self { container: container.to_owned(), ifname: "eth0".to_owned(), netns, config, args: String::new() }
    }

    /// The same with one key of the config set.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// What the plugin makes of the config of ADD.
    pub fn checked(&self) -> Config {
        let conf = NetConf::from_bytes(self.config.to_string().into_bytes()).unwrap();
        let attachment = cni_spec::Attachment {
            network: conf.name.clone(),
            container_id: self.container.parse().unwrap(),
            ifname: self.ifname.parse().unwrap(),
        };
        Config::new(&attachment, &conf, conf.prev_result.as_ref().unwrap()).unwrap().unwrap()
    }

    pub fn add(&self) -> Answer {
        self.request("ADD", &self.config)
    }

    pub fn check(&self) -> Answer {
        self.request("CHECK", &self.config)
    }

    /// As a runtime that has lost its cache does: no namespace, no `prevResult`, no mappings.
    pub fn del(&self) -> Answer {
        let config = json!({ "cniVersion": "1.1.0", "name": self.config["name"], "type": "podwire-portmap" });
        self.call("DEL", &config, "")
    }

    fn request(&self, command: &str, config: &Value) -> Answer {
        self.call(command, config, &self.netns)
    }

    fn call(&self, command: &str, config: &Value, netns: &str) -> Answer {
        let container =
            [("CNI_CONTAINERID", self.container.as_str()), ("CNI_IFNAME", &self.ifname), ("CNI_NETNS", netns)];
        let container = [&container[..], &[("CNI_ARGS", &self.args)]].concat();
        call(command, &container, &config.to_string())
    }
}

/// GC of a network: only these attachments are valid.
pub fn gc(network: &str, valid: &[(&str, &str)]) -> Answer {
    let valid: Vec<Value> = valid.iter().map(|(id, ifname)| json!({ "containerID": id, "ifname": ifname })).collect();
    let config = json!({
        "cniVersion": "1.1.0", "name": network, "type": "podwire-portmap", "cni.dev/valid-attachments": valid,
    });
    call("GC", &[], &config.to_string())
}

/// Runs the executable.
pub fn call(command: &str, container: &[(&str, &str)], stdin: &str) -> Answer {
    let output = run(sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap")), command, container, stdin);
    Answer::of(&output)
}

/// Runs the executable as a person does: its exit code, standard output and standard error.
pub fn by_hand(args: &str) -> (i32, String, String) {
    let mut command = sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap"));
    let output = command.args(args.split_whitespace()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a program with the environment and the standard input of a request.
pub fn run(mut program: std::process::Command, command: &str, container: &[(&str, &str)], stdin: &str) -> Output {
    program.env("CNI_COMMAND", command).env("CNI_PATH", "/opt/cni/bin").env("CNI_ARGS", "");
    for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
        program.env(name, "");
    }
    program.envs(container.iter().copied());
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A plugin that fails early may not read what it is sent.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

impl Answer {
    pub fn of(output: &Output) -> Self {
        let stdout = std::str::from_utf8(&output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = if stdout.is_empty() { Value::Null } else { serde_json::from_str(stdout).expect(stdout) };
        if output.status.success() {
            return Self::Ok { result: json, stderr };
        }
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        Self::Failed { code: json["code"].as_u64().expect(stdout), msg: text("msg"), details: text("details") }
    }

    /// The result of a request that must succeed.
    #[track_caller]
    pub fn ok(self) -> Value {
        match self {
            Self::Ok { result, .. } => result,
            failed @ Self::Failed { .. } => panic!("{failed:?}"),
        }
    }

    /// Standard error of a request that must succeed.
    #[track_caller]
    pub fn remarks(self) -> String {
        match self {
            Self::Ok { stderr, .. } => stderr,
            failed @ Self::Failed { .. } => panic!("{failed:?}"),
        }
    }

    /// Code, message and details of a request that must fail.
    #[track_caller]
    pub fn failed(self) -> (u64, String, String) {
        match self {
            Self::Failed { code, msg, details } => (code, msg, details),
            ok @ Self::Ok { .. } => panic!("{ok:?}"),
        }
    }
}

/// Runs a program that reads `text`.
#[track_caller]
pub fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut command = sandbox::command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// Everything that the firewall of this namespace holds, as nft(8) lists it.
pub fn ruleset() -> String {
    nft(&["list", "ruleset"])
}

/// Runs nft(8), which knows nothing of this plugin.
#[track_caller]
pub fn nft(arguments: &[&str]) -> String {
    let output = sandbox::command("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn prev_result(netns: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "address": address, "interface": 1 })).collect();
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "host-end" }, { "name": "eth0", "sandbox": netns }],
        "ips": ips,
    })
}
