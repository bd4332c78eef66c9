//! The system's tools.

use std::io::Write;
use std::process::Stdio;

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

/// The same in a namespace.
pub fn ip_json_in(netns: &str, args: &[&str]) -> Result<Value, Failure> {
    let output = run("nsenter", &[&[&format!("--net={netns}"), "ip", "-j"], args].concat(), "")?;
    Ok(serde_json::from_slice(&output).unwrap_or_default())
}

/// `ip` in a namespace.
pub fn ip_in(netns: &str, args: &[&str]) -> Result<(), Failure> {
    run("nsenter", &[&[&format!("--net={netns}"), "ip"], args].concat(), "").map(drop)
}

/// `ip -batch`, on the host or in a namespace.
pub fn ip_batch(netns: Option<&str>, lines: &[String]) -> Result<(), Failure> {
    let text = lines.join("\n") + "\n";
    match netns {
        Some(path) => run("nsenter", &[&format!("--net={path}"), "ip", "-batch", "-"], &text).map(drop),
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
