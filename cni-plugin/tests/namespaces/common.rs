//! A private node with pods on it: the plugin's executable, namespaces, and what the kernel shows.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kernel::netns::{self, NetNs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::{Value, json};

/// Long enough for a busy machine; nothing waits for it when all is well.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The network of these tests: both families, masqueraded but for the cluster's own.
pub fn dual_stack() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "podnet", "type": "podwire",
        "ipMasq": true, "nonMasqueradeCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"],
        "ipam": { "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00:10:244:1::/64"] }
    })
}

/// The same config with some keys replaced.
pub fn with(mut config: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The node needs an address of its own: pods reach it there, and it reaches pods from there.
pub fn node_addresses() -> [IpAddr; 2] {
    text("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "wire"]);
    for arguments in [
        &["address", "add", "192.168.50.1/24", "dev", "uplink"][..],
        &["address", "add", "fd50::1/64", "dev", "uplink", "nodad"],
        // Their link-local addresses would come when they like, amid what tests compare.
        &["link", "set", "uplink", "addrgenmode", "none"],
        &["link", "set", "wire", "addrgenmode", "none"],
        &["link", "set", "uplink", "up"],
        &["link", "set", "wire", "up"],
    ] {
        text("ip", arguments);
    }
    for link in ["uplink", "wire"] {
        until_up(link);
    }
    until_usable("fd50::1");
    ["192.168.50.1".parse().unwrap(), "fd50::1".parse().unwrap()]
}

/// A kernel that is busy tells a link's state some time after its carrier; what tests compare should have settled.
pub fn until_up(link: &str) {
    let shown = || text("ip", &["-o", "link", "show", "dev", link]);
    until(|| shown().contains("state UP"), shown);
}

/// Without detection of duplicates, too, the kernel puts an IPv6 address into force in a work queue (`addrconf_dad_work`,
/// net/ipv6/addrconf.c), with its local route last: packets to it are lost until then.
pub fn until_usable(address: &str) {
    let shown = || text("ip", &["-6", "route", "show", "table", "local"]);
    until(|| shown().contains(&format!("local {address} dev")), shown);
}

/// What a plugin process did.
#[derive(Debug)]
pub struct Answer {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// The one JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert!(self.success, "the plugin failed: {self:?}");
        self
    }

    /// Code and message of a failure.
    pub fn error(&self) -> (u64, String) {
        assert!(!self.success, "the plugin succeeded: {self:?}");
        let error = self.json();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

/// One pod's namespace and name.
pub struct TestPod {
    pub id: String,
    pub path: PathBuf,
    pub netns: NetNs,
}

impl TestPod {
    pub fn new(id: &str) -> Self {
        let path = PathBuf::from(format!("/run/netns/{id}"));
        let netns = netns::create_named(&path).unwrap();
        Self { id: id.to_owned(), path, netns }
    }

    pub fn env(&self, command: &str) -> Vec<(&'static str, String)> {
        vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.id.clone()),
            ("CNI_NETNS", self.path.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/usr/lib/cni".to_owned()),
        ]
    }

    pub fn add(&self, config: &Value) -> Answer {
        run(&self.env("ADD"), config)
    }

    pub fn del(&self, config: &Value) -> Answer {
        run(&self.env("DEL"), config)
    }

    pub fn check(&self, config: &Value, prev_result: &Value) -> Answer {
        run(&self.env("CHECK"), &with(config.clone(), &json!({ "prevResult": prev_result })))
    }
}

/// Runs a GC of the test's network with this list of valid attachments.
pub fn gc(valid: &Value) -> Answer {
    let config = with(dual_stack(), &json!({ "cni.dev/valid-attachments": valid }));
    run(&[("CNI_COMMAND", "GC".to_owned()), ("CNI_PATH", "/usr/lib/cni".to_owned())], &config)
}

/// Runs the plugin with this environment and config.
pub fn run(env: &[(&str, String)], config: &Value) -> Answer {
    run_bytes(env, config.to_string().as_bytes())
}

/// Runs the plugin with these bytes on standard input.
pub fn run_bytes(env: &[(&str, String)], stdin: &[u8]) -> Answer {
    let mut plugin = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
    plugin.env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    finish(plugin, stdin)
}

/// Starts the command, feeds it, and waits for its end.
pub fn finish(mut command: std::process::Command, stdin: &[u8]) -> Answer {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A plugin that refuses early may not read its input; that is its right.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Answer {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a tool prints, as JSON: `ip -j ...`, `nft -j ...`.
pub fn shown(program: &str, arguments: &[&str]) -> Value {
    let output = text(program, arguments);
    if output.trim().is_empty() { json!([]) } else { serde_json::from_str(&output).unwrap() }
}

/// What a tool prints.
pub fn text(program: &str, arguments: &[&str]) -> String {
    let output = sandbox::command(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The addresses of a result, without prefix length.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
    result["ips"].as_array().unwrap().iter().map(address).collect()
}

/// Listens in `server`, connects from `client`, and returns the peer address that the server saw. A first packet
/// that got lost would cost a second; one that never arrives ends at the deadline.
pub fn exchange(server: &NetNs, client: &NetNs, to: IpAddr) -> std::io::Result<SocketAddr> {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let listener = server.run(|| TcpListener::bind((any, 0))).unwrap()?;
    let port = listener.local_addr()?.port();
    let mut stream = client.run(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), DEADLINE)).unwrap()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let (mut accepted, peer) = listener.accept()?;
    accepted.write_all(b"hello")?;
    drop(accepted);
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    assert_eq!(heard, "hello");
    Ok(peer)
}

/// Everything that an attachment can leave on the node: links, addresses, routes, neighbours, rules and leases, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Fails with what came and what went since then.
    pub fn unchanged(&self, context: impl std::fmt::Display) {
        self.compare(context, |_| true);
    }

    /// As [`Traces::unchanged`], but for files that the ledger wrote down for its next opener.
    pub fn unchanged_but_the_ledger(&self, context: impl std::fmt::Display) {
        self.compare(context, |line| !line.starts_with("file: /run/podwire/ipam/"));
    }

    fn compare(&self, context: impl std::fmt::Display, counts: impl Fn(&str) -> bool) {
        let now = traces();
        let came: Vec<_> = now.0.difference(&self.0).filter(|line| counts(line)).collect();
        let went: Vec<_> = self.0.difference(&now.0).filter(|line| counts(line)).collect();
        assert!(came.is_empty() && went.is_empty(), "{context}: left behind {came:#?}, gone {went:#?}");
    }
}

/// What there is now. Settings of the whole node are not taken back, and with IPv6 forwarding come routes of the kernel's
/// own; link-local addresses become usable a second after their link.
pub fn traces() -> Traces {
    let mut lines = BTreeSet::new();
    for (kind, arguments) in [
        ("link", &["-o", "-d", "link", "show"][..]),
        ("address", &["-o", "address", "show"]),
        ("route", &["route", "show", "table", "all"]),
        ("route6", &["-6", "route", "show", "table", "all"]),
        ("neighbour", &["neighbour", "show", "nud", "permanent"]),
    ] {
        let shown = text("ip", arguments);
        let settled = shown.lines().filter(|line| !line.contains("proto kernel"));
        lines.extend(settled.map(|line| format!("{kind}: {}", line.replace(" tentative", ""))));
    }
    lines.extend(text("nft", &["-s", "list", "ruleset"]).lines().map(|line| format!("nft: {line}")));
    lines.extend(leases().into_iter().map(|lease| format!("lease: {lease}")));
    for folder in ["/run", "/var/lib"] {
        files_below(Path::new(folder), &mut lines);
    }
    Traces(lines)
}

/// Files that plugins may leave; those of the ledger itself and locks stay, and those of namespaces are the runtime's.
fn files_below(folder: &Path, lines: &mut BTreeSet<String>) {
    // The reference IPAM plugins keep files there.
    const NOT_OURS: [&str; 4] = ["/run/netns", "/run/strace", "/run/xtables.lock", "/var/lib/cni"];
    const KEPT: [&str; 7] = [
        "/run/podwire/iptables.lock",
        "/run/podwire/ipam/ballast",
        "/run/podwire/ipam/ledger",
        "/run/podwire/ipam/lock",
        "/run/podwire/ipam/generation",
        "/run/podwire/ipam/unsettled",
        "/var/lib/podwire/",
    ];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        // What host-local keeps for the next allocation.
        let kept = name.starts_with("/var/lib/cni/networks/") && (name.ends_with("/lock") || name.contains("/last_"));
        if kept || NOT_OURS.iter().chain(&KEPT).any(|start| name.starts_with(start)) {
            continue;
        }
        if path.is_dir() {
            files_below(&path, lines);
        } else {
            lines.insert(format!("file: {name}"));
        }
    }
}

/// How many links carry the mark of the test's network.
pub fn own_links() -> usize {
    text("ip", &["-d", "link"]).matches("podwire podnet").count()
}

/// Becomes the reaper of orphans: processes that a plugin leaves behind become children of this one.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Whether any child lives; those that have ended are reaped.
pub fn has_children() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) => {}
            Err(nix::errno::Errno::ECHILD) => return false,
            Err(errno) => panic!("waitpid: {errno}"),
        }
    }
}

/// Polls until it holds, and fails at the deadline.
pub fn until(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + 6 * DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The leases in the node's ledger.
pub fn leases() -> Vec<String> {
    let ledger = ipam::Ledger::at(ipam::Ledger::DEFAULT_DIR);
    let records = ledger.leases("a test").unwrap().unwrap_or_default();
    records.into_iter().map(|record| format!("{record:?}")).collect()
}
