//! The system's tools.

use std::io::Write;
use std::process::Stdio;

use cni_conformance::host::net::inside;
use serde_json::Value;

use crate::protocol::Failure;

/// Runs a tool with input; its error text is the failure's.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<Vec<u8>, Failure> {
    let broken = |error: String| Failure::new(101, &format!("{program} {}: {error}", args.join(" ")));
    let mut command = sandbox::command(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| broken(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|error| broken(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| broken(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(broken(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// `ip -j`.
pub fn ip_json(args: &[&str]) -> Result<Value, Failure> {
    let output = run("ip", &[&["-j"], args].concat(), "")?;
    Ok(serde_json::from_slice(&output).unwrap_or_default())
}

/// Runs a tool in a namespace, from a thread that goes there: nsenter(1) would be one more program for each.
pub fn run_in(netns: &str, program: &str, args: &[&str], input: &str) -> Result<Vec<u8>, Failure> {
    inside(Some(netns), || Ok(run(program, args, input)))
        .unwrap_or_else(|finding| Err(Failure::new(101, &format!("{netns}: {finding:?}"))))
}

/// The same in a namespace.
pub fn ip_json_in(netns: &str, args: &[&str]) -> Result<Value, Failure> {
    let output = run_in(netns, "ip", &[&["-j"], args].concat(), "")?;
    Ok(serde_json::from_slice(&output).unwrap_or_default())
}

/// Names of a namespace's interfaces, or of the host's (proc_pid_net(5)), without a program.
pub fn link_names(netns: Option<&str>) -> Result<Vec<String>, Failure> {
    const PATH: &str = "/proc/thread-self/net/dev";
    let text = inside(netns, || Ok(std::fs::read_to_string(PATH)));
    let text = text.map_err(|finding| Failure::new(101, &format!("{netns:?}: {finding:?}")))?;
    let text = text.map_err(|error| Failure::new(101, &format!("{PATH}: {error}")))?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}

/// `ip` in a namespace.
pub fn ip_in(netns: &str, args: &[&str]) -> Result<(), Failure> {
    run_in(netns, "ip", args, "").map(drop)
}

/// `ip -batch`, on the host or in a namespace.
pub fn ip_batch(netns: Option<&str>, lines: &[String]) -> Result<(), Failure> {
    let text = lines.join("\n") + "\n";
    match netns {
        Some(path) => run_in(path, "ip", &["-batch", "-"], &text).map(drop),
        None => run("ip", &["-batch", "-"], &text).map(drop),
    }
}

/// `nft -f`, one transaction.
pub fn nft(text: &str) -> Result<(), Failure> {
    run("nft", &["-f", "-"], text).map(drop)
}

/// A short name for an attachment: FNV-1a, in hexadecimal digits.
pub fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
