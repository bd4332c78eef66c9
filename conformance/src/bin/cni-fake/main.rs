//! A plugin to test the suite with: it obeys the spec, except for the one sentence that its own name ends with.
//!
//! `cni-fake-main` makes interfaces, `cni-fake-ipam` gives out addresses, `cni-fake-chained` maps ports and shapes
//! traffic. `cni-fake-main+DEL-2a` does what case DEL-2a asks about wrong, and everything else right. It is written to be
//! short, not to be fast: everything is done by ip(8), nft(8), tc(8) and conntrack(8).

mod chained;
mod check;
mod company;
mod fault;
mod interface;
mod ipam;
mod kernel;
mod lease;
mod protocol;
mod result;
mod store;
mod tools;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use fault::Fault;
use protocol::{Failure, Request};

/// What an operation prints, if anything.
pub type Answer = Result<Option<Value>, Failure>;

/// What it is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes interfaces.
    Main,
    /// Gives out addresses.
    Ipam,
    /// Maps ports, shapes traffic.
    Chained,
}

fn main() -> ExitCode {
    let path = std::env::args().next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let (role, fault) = name.split_once('+').unwrap_or((name, ""));
    let role = match role {
        "cni-fake-ipam" => Role::Ipam,
        "cni-fake-chained" => Role::Chained,
        _ => Role::Main,
    };
    let request = Request::new(role, Fault::new(fault, Path::new(&path)));
    request.misbehave_at_once();
    let mut stdin = Vec::new();
    let read = match request.reads_stdin() {
        true => read_all(&request, &mut stdin),
        false => Ok(0),
    };
    if read.is_err() {
        return ExitCode::from(5);
    }
    let answer = protocol::serve(request.clone(), &stdin);
    // Nobody may be reading; then the exit code is all there is to say.
    match std::io::stdout().write_all(answer.1.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::from(answer.0),
        Err(_) => {
            if request.has("ROB-9") {
                let _ = tools::nft("add table ip fake-unread\n");
            }
            ExitCode::from(5)
        }
    }
}

/// Reads until the end; or takes what one read(2) gives for everything.
fn read_all(request: &Request, stdin: &mut Vec<u8>) -> std::io::Result<usize> {
    // Zeroed by the kernel, page by page as they are used: a debug build would write a million zeros one by one.
    *stdin = vec![0; 1 << 20];
    let count = std::io::stdin().read(stdin)?;
    stdin.truncate(count);
    let more = std::io::stdin().read_to_end(stdin)?;
    if more > 0 && request.has("ROB-2") {
        stdin.truncate(count);
    }
    Ok(stdin.len())
}
