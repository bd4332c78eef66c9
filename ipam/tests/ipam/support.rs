//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cni_spec::{Attachment, CniArgs, NetConf};
use ipam::{Ipam, LeaseRequest, Ledger, Netns, Record};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder for a ledger, and files that stand for network namespaces: only device and inode count.
pub struct Place {
    // Before the folder: it ends first.
    owner: Mutex<Option<Owner>>,
    dir: TempDir,
}

/// A resident owner; killed when it is dropped.
pub struct Owner(pub Child);

impl Owner {
    /// Returns when the owner serves.
    pub fn of(data_dir: &Path) -> Self {
        let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
        process.args(["serve", "--create", "--dir"]).arg(data_dir).arg("--conf-dir").arg(Self::conf_dir(data_dir));
        process.stdin(Stdio::null());
        Self::started(process)
    }

    /// Where it looks for network configs, and nobody else does.
    pub fn conf_dir(data_dir: &Path) -> PathBuf {
        data_dir.with_file_name("owners-net.d")
    }

    /// Returns when the owner serves that a process is to become.
    pub fn started(mut process: Command) -> Self {
        let mut child = process.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving the ledger in "), "{line}");
        Self(child)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), owner: Mutex::default() };
        std::fs::create_dir(place.dir.path().join("netns")).unwrap();
        if crate::RESIDENT {
            *place.owner.lock().unwrap() = Some(Owner::of(&place.data_dir()));
        }
        place
    }

    /// Runs something on the ledger's files that nobody has open meanwhile.
    pub fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut owner = self.owner.lock().unwrap();
        let had_one = owner.take().is_some();
        let result = work();
        if had_one {
            *owner = Some(Owner::of(&self.data_dir()));
        }
        result
    }

    /// Runs something while nobody else gets at the ledger: its lock is held, or its owner stands still. `work` is told by
    /// which process.
    pub fn while_held<T>(&self, work: impl FnOnce(u32) -> T) -> T {
        use nix::sys::signal::{Signal, kill};
        let owner = self.owner.lock().unwrap();
        let Some(Owner(process)) = owner.as_ref() else {
            let lock = std::fs::File::open(self.data_dir().join("lock")).unwrap();
            lock.lock().unwrap();
            return work(std::process::id());
        };
        stop(process);
        let result = work(process.id());
        kill(pid_of(process), Signal::SIGCONT).unwrap();
        result
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("ledger-dir")
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::at(self.data_dir())
    }

    pub fn leases(&self) -> Vec<Record> {
        self.ledger().leases("test").unwrap().unwrap_or_default()
    }

    /// The leases as their copies tell, by file name.
    pub fn copies(&self) -> BTreeMap<PathBuf, Record> {
        let Ok(entries) = std::fs::read_dir(self.data_dir().join("leases")) else { return BTreeMap::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let copies = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        copies.map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())).collect()
    }

    /// Fails unless copies and leases are the same.
    pub fn assert_copied(&self, after: &str) {
        let by_name = |mut leases: Vec<Record>| {
            leases.sort_by_key(|lease| lease.attachment.to_string());
            leases
        };
        assert_eq!(by_name(self.copies().into_values().collect()), by_name(self.leases()), "{after}");
    }

    /// A path that is there from now on, and stays the same file.
    pub fn netns(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("netns").join(name);
        if !path.exists() {
            std::fs::write(&path, "").unwrap();
        }
        path
    }

    /// A network config; the waiting time is for machines that are busy with other tests.
    pub fn conf(&self, network: &str, ipam: &Value) -> NetConf {
        net_conf(&self.json(network, ipam))
    }

    pub fn json(&self, network: &str, ipam: &Value) -> Value {
        let mut conf = json!({ "cniVersion": "1.1.0", "name": network, "type": "podwire", "ipam": {
            "type": "podwire-ipam", "dataDir": self.data_dir(), "lockTimeoutSeconds": 120,
        } });
        let keys = conf["ipam"].as_object_mut().unwrap();
        keys.extend(ipam.as_object().unwrap().clone());
        conf
    }

    pub fn ipam(&self, network: &str, ipam: &Value) -> Ipam {
        Ipam::from_config(&self.conf(network, ipam)).unwrap()
    }

    pub fn request(&self, network: &str, container: &str) -> LeaseRequest {
        let attachment = attachment(network, container);
        LeaseRequest { attachment, netns: Netns::at(&self.netns(container)), args: CniArgs::default() }
    }

    /// The plugin's process, with its request on standard input.
    pub fn spawn(&self, command: &str, container: &str, conf: &Value) -> Child {
        self.feed(sandbox::command(env!("CARGO_BIN_EXE_podwire-ipam")), command, container, conf)
    }

    /// Starts whatever starts the plugin, with a request on standard input.
    pub fn feed(&self, mut process: Command, command: &str, container: &str, conf: &Value) -> Child {
        process.envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]);
        process.env("CNI_NETNS", self.netns(container));
        self.send(process, conf)
    }

    /// Starts something with a config on standard input.
    pub fn send(&self, mut process: Command, conf: &Value) -> Child {
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // It may be killed before it has read all.
        let _ = child.stdin.take().unwrap().write_all(conf.to_string().as_bytes());
        child
    }

    pub fn run(&self, command: &str, container: &str, conf: &Value) -> Answer {
        Answer::of(&self.spawn(command, container, conf).wait_with_output().unwrap())
    }
}

/// What a plugin's process answered.
#[derive(Debug)]
pub struct Answer {
    pub success: bool,
    /// Null if standard output is empty.
    pub json: Value,
}

impl Answer {
    /// Of a plugin that has nothing to remark, as ours never has.
    pub fn of(output: &Output) -> Self {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let json = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
        Self { success: output.status.success(), json }
    }

    /// The addresses of a result, without prefix lengths.
    pub fn addresses(&self) -> Vec<IpAddr> {
        assert!(self.success, "{self:?}");
        let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        self.json["ips"].as_array().unwrap().iter().map(address).collect()
    }

    /// Code and message of an error.
    pub fn error(&self) -> (u64, &str) {
        assert!(!self.success, "{self:?}");
        (self.json["code"].as_u64().unwrap(), self.json["msg"].as_str().unwrap())
    }
}

pub fn pid_of(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Returns when every thread of the process stands still, or has ended: whoever is in a system call goes on to its end.
pub fn stop(child: &Child) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    nix::sys::signal::kill(pid_of(child), nix::sys::signal::Signal::SIGSTOP).unwrap();
    // Its end is for others to hear of.
    let stands = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid_of(child)), stands).unwrap();
}

/// Returns when it is so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn net_conf(json: &Value) -> NetConf {
    NetConf::from_bytes(json.to_string().into_bytes()).unwrap()
}

pub fn attachment(network: &str, container: &str) -> Attachment {
    Attachment {
        network: network.parse().unwrap(),
        container_id: container.parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn ips(lease: &ipam::Lease) -> Vec<String> {
    lease.addresses.iter().map(|leased| leased.address.ip().to_string()).collect()
}

/// Who holds what. Fails if an address stands in two leases.
pub fn holders(leases: &[Record]) -> BTreeMap<IpAddr, String> {
    let mut holders = BTreeMap::new();
    for lease in leases {
        for address in lease.ips() {
            let container = lease.attachment.container_id.to_string();
            let other = holders.insert(address, container.clone());
            assert_eq!(other, None, "{address} is held by {container} too");
        }
    }
    holders
}

/// Opens a ledger's database beside everybody; it has segments of this size. Whoever had it open is rid of it a moment
/// later: the engine's threads end by themselves, and a process that another test has just started has the file open, too.
pub fn database(ledger: &Path) -> sled::Db {
    let mut opened = None;
    until("nobody has the database open", || {
        opened = sled::Config::new().path(ledger).segment_size(128 << 10).open().ok();
        opened.is_some()
    });
    opened.unwrap()
}

/// Overwrites the beginning of every file of the database, as a failing disk might.
pub fn damage(data_dir: &Path) {
    for entry in std::fs::read_dir(data_dir.join("ledger")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut bytes = std::fs::read(&path).unwrap();
            let length = bytes.len().min(4096);
            bytes[..length].fill(0x5a);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

/// Makes a container's lease a minute older: no ADD takes so long. Nobody has the ledger open meanwhile.
pub fn age(dir: &Path, container: &str) {
    for entry in std::fs::read_dir(dir.join("leases")).unwrap() {
        let path = entry.unwrap().path();
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if record["attachment"]["containerId"] == container {
            record["createdBoottimeMs"] = 1.into();
            std::fs::write(&path, record.to_string()).unwrap();
        }
    }
    std::fs::remove_dir_all(dir.join("ledger")).unwrap();
}
