//! conntrack(8), which knows nothing of this crate.

use sandbox::command;

/// Runs `conntrack ARGS` and returns what it prints.
#[track_caller]
pub fn conntrack(args: &str) -> String {
    let output = command("conntrack").args(args.split_whitespace()).output().expect("conntrack is installed");
    assert!(output.status.success(), "conntrack {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The original source ports of all flows of a family, sorted: what tells the flows of a test apart.
pub fn source_ports(family: &str) -> Vec<u16> {
    let listed = conntrack(&format!("-L -f {family}"));
    let port = |line: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("sport="));
        word.expect("a port").parse().unwrap()
    };
    let mut ports: Vec<u16> = listed.lines().map(port).collect();
    ports.sort_unstable();
    ports
}
