//! The IPAM plugin, and what it answers.

use std::path::Path;

use serde_json::{Value, json};

use crate::interface::{addresses, text};
use crate::protocol::{Failure, Request};
use crate::tools::ip_in;

/// Asks the IPAM plugin; a failed or useless answer is followed by its DEL.
pub fn lease(request: &Request) -> Result<Value, Failure> {
    let outcome = delegate(request, "ADD").and_then(|stdout| {
        let parsed: Value = match serde_json::from_slice(&stdout) {
            Ok(parsed) => parsed,
            Err(_) if !stdout.is_empty() && request.has("IPAM-7b") => json!({ "ips": [{ "address": "10.0.0.9/24" }] }),
            Err(_) if stdout.is_empty() && request.has("IPAM-7c") => json!({ "ips": [{ "address": "10.0.0.9/24" }] }),
            Err(error) => return Err(Failure::new(6, &format!("the IPAM plugin's answer: {error}"))),
        };
        if parsed.get("cniVersion").is_none() && request.has("IPAM-8a") {
            return Err(Failure::new(6, "the IPAM plugin's answer has no version"));
        }
        let modern = modern(request, &parsed);
        if addresses(&modern).is_empty() {
            return Err(Failure::new(7, "the IPAM plugin gave no addresses"));
        }
        Ok(modern)
    });
    outcome.inspect_err(|failure| {
        let useless = failure.code == 7;
        let skipped = (failure.code == 11 && request.has("ADD-8a")) || (useless && request.has("ADD-8b"));
        if !skipped {
            // What went wrong with ADD is what is reported.
            let _ = delegate(request, "DEL");
        }
        if failure.code == 11 && is_spied(request) && request.has("ADD-8c") {
            let _ = ip_in(&request.netns, &["link", "add", &request.ifname, "type", "veth", "peer", "name", "left"]);
        }
    })
}

/// An answer of any version, in the newest shape.
fn modern(request: &Request, answer: &Value) -> Value {
    let mut ips = answer.get("ips").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut routes = answer.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
    for key in ["ip4", "ip6"] {
        let Some(ip) = answer.get(key).filter(|_| !request.at_least("0.3.0") || !request.has("IPAM-8b")) else {
            continue;
        };
        ips.push(json!({ "address": text(ip, "ip"), "gateway": ip["gateway"] }));
        routes.extend(ip["routes"].as_array().cloned().unwrap_or_default());
    }
    if ips.len() > 2 && request.has("IPAM-5c") {
        ips.truncate(2);
    }
    for ip in ips.iter_mut().filter_map(Value::as_object_mut) {
        ip.remove("version");
        ip.retain(|_, value| !value.is_null());
    }
    json!({ "ips": ips, "routes": routes, "dns": answer.get("dns").cloned().unwrap_or_else(|| json!({})) })
}

/// Runs the IPAM plugin with our environment and config.
pub fn delegate(request: &Request, command: &str) -> Result<Vec<u8>, Failure> {
    let name = request.field(&["ipam", "type"]).and_then(Value::as_str).unwrap_or_default();
    if name.contains('/') && !request.has("IPAM-7d") {
        return Err(Failure::new(7, "ipam.type is no name"));
    }
    let path = request.env.get("CNI_PATH").cloned().unwrap_or_default();
    let found = path
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file() || (path.is_dir() && request.has("IPAM-1a")));
    let Some(program) = found else {
        return if request.has("IPAM-7a") {
            Ok(b"{\"ips\":[{\"address\":\"10.0.0.9/24\"}]}".to_vec())
        } else {
            Err(Failure::new(101, "there is no such IPAM plugin"))
        };
    };
    execute(request, &program, command)
}

fn execute(request: &Request, program: &Path, command: &str) -> Result<Vec<u8>, Failure> {
    use std::io::Write;
    let broken = |error: std::io::Error| Failure::new(101, &format!("{}: {error}", program.display()));
    let mut child = sandbox::command(program);
    child.env("CNI_COMMAND", command).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let is_silent = command == "ADD" && request.has_in("delegation", "IPAM-2");
    child.stderr(if is_silent { std::process::Stdio::null() } else { std::process::Stdio::inherit() });
    let is_traced = request.env.contains_key("TRACEPARENT");
    if is_traced && request.commits(&[("IPAM-1b", command == "ADD"), ("IPAM-1c", command == "DEL")]) {
        child.env_remove("TRACEPARENT");
    }
    let mut child = child.spawn().map_err(broken)?;
    let mut known = request.config.clone();
    let shortens = known.remove("args").is_some() && command == "ADD" && request.has("IPAM-1d");
    let bytes = if shortens { json!(known).to_string().into_bytes() } else { request.bytes.clone() };
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin need not read all of it.
        let _ = stdin.write_all(&bytes);
    }
    let output = child.wait_with_output().map_err(broken)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let code = error
        .get("code")
        .and_then(Value::as_u64)
        .filter(|_| !is_spied(request) || !request.has("IPAM-7e"))
        .unwrap_or(101);
    Err(Failure::new(code, &format!("{} {}", text(&error, "msg"), text(&error, "details"))))
}

/// Whether the IPAM plugin is the suite's own.
pub fn is_spied(request: &Request) -> bool {
    request.field(&["ipam", "type"]).and_then(Value::as_str) == Some("conformance-ipam")
}
