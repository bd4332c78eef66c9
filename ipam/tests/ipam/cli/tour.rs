//! The README's tour of `ipam` is what it prints. `UPDATE_GOLDEN=1` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cni_spec::CniArgs;
use data_encoding::HEXLOWER;
use ipam::{Ipam, LeaseRequest, Ledger, Netns};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cli::verify::link;
use crate::support::{attachment, net_conf};

/// Where the tour begins.
const HEADING: &str = "### Ask the ledger\n";

const PODS: [&str; 8] = [
    "kube-system/coredns",
    "shop/cart",
    "shop/cart-db",
    "shop/mail",
    "shop/web-1",
    "shop/web-2",
    "shop/web-3",
    "monitoring/node-exporter",
];
/// Deleted in the course of the tour.
const DELETED: &str = "shop/web-2";
/// Its namespace and its link are lost, and nobody says so.
const LOST: &str = "shop/web-3";

/// An id like a runtime's, the same every time.
fn container(pod: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(pod)[..12])
}

/// What a moment and an age look like: they are others every time.
fn timeless(word: &str) -> &str {
    let is_age = |word: &str| {
        word.starts_with(|it: char| it.is_ascii_digit())
            && word.ends_with(['s', 'm', 'h', 'd'])
            && word.chars().all(|it| it.is_ascii_digit() || "smhd".contains(it))
    };
    match word.trim_end_matches(':') {
        moment if moment.parse::<Timestamp>().is_ok() => "MOMENT",
        age if is_age(age) => "AGE",
        _ => word,
    }
}

/// Lines of words, without the widths that follow from ages.
fn normal(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().map(timeless).collect::<Vec<_>>().join(" ")).collect()
}

struct Node {
    ipam: Ipam,
}

impl Node {
    fn new() -> Self {
        let conf = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire", "ipam": {
            "type": "podwire-ipam", "podCIDR": ["10.244.1.0/24", "fd00:10:244:1::/64"],
        } });
        let node = Self { ipam: Ipam::from_config(&net_conf(&conf)).unwrap() };
        PODS.iter().enumerate().for_each(|(number, pod)| node.add(number, pod));
        node
    }

    fn add(&self, number: usize, pod: &str) {
        let (namespace, name) = pod.split_once('/').unwrap();
        fs::write(Self::netns(pod), "").unwrap();
        let args: CniArgs = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}").parse().unwrap();
        let attachment = attachment("podnet", &container(pod));
        let lease = self.ipam.lease(&LeaseRequest { attachment, netns: Netns::at(&Self::netns(pod)), args }).unwrap();
        let routes: Vec<String> = lease
            .addresses
            .iter()
            .map(|it| format!("{}/{}", it.address.ip(), if it.address.is_ipv4() { 32 } else { 128 }))
            .collect();
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        link(&format!("pw{number}"), "podnet", &container(pod), &routes);
        if pod == LOST {
            Self::grow_old(&container(pod));
        }
    }

    /// Makes a container's lease an hour older, as it is to be when `gc` may end it. The database is made anew from the
    /// copies of the leases; the next ADD names the pools in it.
    fn grow_old(container: &str) {
        let dir = Path::new(Ledger::DEFAULT_DIR);
        for entry in fs::read_dir(dir.join("leases")).unwrap() {
            let path = entry.unwrap().path();
            let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            if record["attachment"]["containerId"] == container {
                let hour = jiff::SignedDuration::from_hours(1);
                record["created"] = json!(Timestamp::now().checked_sub(hour).unwrap());
                fs::write(&path, record.to_string()).unwrap();
            }
        }
        fs::remove_dir_all(dir.join("ledger")).unwrap();
    }

    fn netns(pod: &str) -> PathBuf {
        Path::new("/run/netns").join(pod.replace('/', "-"))
    }

    /// What happens after the first look; returns a moment at which the deleted pod had its address.
    fn go_on(&self) -> String {
        // To the second, as people write it: one that begins after the lease did.
        let (second, deadline) = (|| Timestamp::now().as_second(), Instant::now() + Duration::from_secs(60));
        let began = second();
        while second() == began {
            assert!(Instant::now() < deadline);
        }
        let moment = Timestamp::from_second(second()).unwrap().to_string();
        self.ipam.release(&attachment("podnet", &container(DELETED))).unwrap();
        for pod in [DELETED, LOST] {
            let number = PODS.iter().position(|other| *other == pod).unwrap();
            let deleted = sandbox::command("ip").args(["link", "del", &format!("pw{number}")]).status().unwrap();
            assert!(deleted.success());
            fs::remove_file(Self::netns(pod)).unwrap();
        }
        moment
    }
}

/// What a terminal would show.
fn run(line: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_ipam")).parent().unwrap();
    let mut shell = sandbox::command("bash");
    shell.args(["-c", &format!("PATH={}:$PATH\nexec 2>&1\n{line}", folder.display())]);
    String::from_utf8(shell.output().unwrap().stdout).unwrap()
}

#[test]
fn the_readme_s_tour_is_what_it_prints() {
    sandbox::private_host(|| {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md");
        let text = fs::read_to_string(&readme).unwrap();
        let (before, rest) = text.split_at(text.find(HEADING).unwrap());
        let (introduction, rest) = rest.split_once("```\n").unwrap();
        let (tour, after) = rest.split_once("```\n").unwrap();
        let node = Node::new();
        let mut moment: Option<String> = None;
        let mut printed = Vec::new();
        for line in tour.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let words = line.split(' ').map(|word| match moment.as_deref() {
                Some(moment) if word.parse::<Timestamp>().is_ok() => moment,
                _ => word,
            });
            let line = words.collect::<Vec<_>>().join(" ");
            printed.push(format!("$ {line}\n{}", run(&line)));
            moment.get_or_insert_with(|| node.go_on());
        }
        let printed = printed.join("\n");
        #[expect(clippy::disallowed_methods, reason = "how golden files are rewritten")]
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        if update {
            fs::write(&readme, format!("{before}{introduction}```\n{printed}```\n{after}")).unwrap();
            return;
        }
        assert_eq!(normal(tour), normal(&printed), "UPDATE_GOLDEN=1 writes it anew");
        assert!(Ledger::at(Ledger::DEFAULT_DIR).leases("test").unwrap().is_some_and(|leases| leases.len() == 6));
    });
}
