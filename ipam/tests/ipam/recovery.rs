//! A lost ledger, on a host with live pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use ipam::marks::ROUTE_PROTOCOL;
use ipam::{Ledger, Origin};
use ipnetwork::IpNetwork;
use kernel::netns;
use kernel::rtnl::{Route, Rtnl, VethPair};
use macaddr::MacAddr6;
use serde_json::{Value, json};

use crate::cli::ipam;
use crate::support::{Place, age, damage, holders, ip, until};

/// What podwire makes for a pod, as far as it matters here.
fn pod(number: u8, alias: &str, addresses: &[&str]) {
    let netns = netns::create_named(format!("/run/netns/{number}")).unwrap();
    let mac = |end| MacAddr6::new(2, 0, 0, 0, end, number);
    let host = format!("pwtest{number}");
    let pair = VethPair {
        host: &host,
        host_mac: mac(0),
        peer: "eth0",
        peer_mac: mac(1),
        peer_netns: netns.as_fd(),
        mtu: None,
        arp: true,
        alias,
    };
    let rtnl = Rtnl::open().unwrap();
    let host_end = rtnl.create_veth(&pair).unwrap().host;
    for address in addresses {
        let address: IpNetwork = address.parse().unwrap();
        rtnl.replace_route(&Route::new(address, host_end, ROUTE_PROTOCOL)).unwrap();
    }
}

fn conf() -> Value {
    json!({ "cniVersion": "1.1.0", "name": "n", "type": "podwire", "ipam": {
        "type": "podwire-ipam", "podCIDR": ["10.1.2.0/24", "fd00::/64"],
    } })
}

fn recovered(ledger: &Ledger) -> Vec<String> {
    let leases = ledger.leases("test").unwrap().unwrap_or_default();
    let recovered = leases.iter().filter(|lease| lease.origin == Origin::Recovered);
    recovered
        .map(|lease| {
            let addresses: Vec<String> = lease.ips().map(|ip| ip.to_string()).collect();
            format!("{}: {}", lease.attachment, addresses.join(" "))
        })
        .collect()
}

#[test]
fn a_new_ledger_knows_the_pods_that_are_alive() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ledger = Ledger::at(Ledger::DEFAULT_DIR);
        pod(1, "podwire n c1 eth0", &["10.1.2.2/32", "fd00::2/128"]);
        pod(2, "podwire other c2 eth0", &["10.1.2.3/32"]);
        pod(3, "somebody else's", &["10.9.9.9/32"]);
        pod(4, "podwire n unrouted eth0", &[]);

        let added = place.run("ADD", "c3", &conf());
        assert_eq!(added.addresses(), [ip("10.1.2.4"), ip("fd00::3")]);
        assert_eq!(recovered(&ledger), ["n c1 eth0: 10.1.2.2 fd00::2", "other c2 eth0: 10.1.2.3"]);

        let repeated = place.run("ADD", "c1", &conf());
        assert_eq!(repeated.json["ips"][0], json!({ "address": "10.1.2.2/24", "gateway": "10.1.2.1" }));
        assert!(place.run("DEL", "c1", &conf()).success);
        assert_eq!(recovered(&ledger), ["other c2 eth0: 10.1.2.3"]);
    });
}

fn remove(number: u8) {
    let rtnl = Rtnl::open().unwrap();
    let link = rtnl.link(&format!("pwtest{number}")).unwrap().unwrap();
    assert!(rtnl.delete_link(link.index).unwrap());
}

#[test]
fn leases_read_off_the_kernel_go_with_their_links() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ledger = Ledger::at(Ledger::DEFAULT_DIR);
        let mut conf = conf();
        conf["ipam"]["podCIDR"] = json!("10.1.2.0/29");
        for number in 1..=4 {
            pod(number, &format!("podwire n c{number} eth0"), &[&format!("10.1.2.{}/32", number + 1)]);
        }
        assert_eq!(place.run("ADD", "new", &conf).addresses(), [ip("10.1.2.6")]);
        assert_eq!(place.run("ADD", "too-many", &conf).error().0, 100);

        // Deleted through another ledger, which does not tell this one.
        remove(1);
        let all = ["n c1 eth0: 10.1.2.2", "n c2 eth0: 10.1.2.3", "n c3 eth0: 10.1.2.4", "n c4 eth0: 10.1.2.5"];
        assert_eq!(recovered(&ledger), all, "looking ends nothing");
        let elsewhere = ipam(&["release", "--container", "c4", "--yes", "--force"]);
        assert_eq!(elsewhere.code, 0, "{elsewhere:?}");
        assert_eq!(recovered(&ledger), all[..3], "nor does a person who ends another lease");
        assert_eq!(place.run("ADD", "newer", &conf).addresses(), [ip("10.1.2.5")]);
        assert_eq!(recovered(&ledger), all[..3], "nor does who gets an address without that");
        let status = place.run("STATUS", "", &conf);
        assert!(status.success, "{status:?}");
        assert_eq!(recovered(&ledger), all[1..3]);
        assert_eq!(place.run("ADD", "newest", &conf).addresses(), [ip("10.1.2.2")]);

        // An ADD that is sent again takes the lease over, link or not.
        assert_eq!(place.run("ADD", "c2", &conf).addresses(), [ip("10.1.2.3")]);
        remove(2);
        [3, 4].into_iter().for_each(remove);
        let mut wish = conf.clone();
        wish["runtimeConfig"]["ips"] = json!(["10.1.2.4"]);
        assert_eq!(place.run("ADD", "wished", &wish).addresses(), [ip("10.1.2.4")]);
        let held = |ledger: &Ledger| {
            let mut held: Vec<String> = holders(&ledger.leases("test").unwrap().unwrap()).into_values().collect();
            held.sort();
            held
        };
        assert_eq!(held(&ledger), ["c2", "new", "newer", "newest", "wished"]);
        damage(Path::new(Ledger::DEFAULT_DIR));
        assert!(place.run("DEL", "c2", &conf).success);
        assert_eq!(held(&ledger), ["new", "newer", "newest", "wished"]);
    });
}

/// A DEL takes the link away before it ends the lease, so the pod may have had the address a moment ago.
#[test]
fn an_address_whose_link_has_just_gone_rests() {
    sandbox::private_host(|| {
        let (place, mut conf) = (Place::new(), conf());
        conf["ipam"] = json!({ "type": "podwire-ipam", "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.2",
            "rangeEnd": "10.1.2.4", "cooldownSeconds": 3600, "strict": true });
        pod(1, "podwire n c1 eth0", &["10.1.2.2/32"]);
        pod(2, "podwire n c2 eth0", &["10.1.2.3/32"]);
        assert_eq!(place.run("ADD", "new", &conf).addresses(), [ip("10.1.2.4")]);
        remove(1);
        let answer = place.run("ADD", "next", &conf);
        let (code, message) = answer.error();
        assert_eq!((code, message.contains("of 3, 2 are leased, 1 cooling down, ")), (100, true), "{message}");
        remove(2);
        conf["runtimeConfig"]["ips"] = json!(["10.1.2.3"]);
        let answer = place.run("ADD", "wished", &conf);
        let (code, message) = answer.error();
        assert_eq!(
            (code, message.contains("10.1.2.3 was asked for, but rests for another 3")),
            (11, true),
            "{message}"
        );
    });
}

/// Whether the plugin asks the kernel about links and routes.
fn asks_the_kernel(place: &Place, command: &str, container: &str, conf: &Value) -> bool {
    let calls = place.data_dir().with_file_name("calls");
    let mut strace = sandbox::command("strace");
    strace.args(["-f", "-qq", "-e", "trace=socket", "-o"]).arg(&calls).arg(env!("CARGO_BIN_EXE_podwire-ipam"));
    let output = place.feed(strace, command, container, conf).wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
    std::fs::read_to_string(calls).unwrap().contains("AF_NETLINK")
}

/// A node has thousands of links, and STATUS is asked every few seconds: nobody looks at all of them without need.
#[test]
fn all_links_are_looked_at_only_for_another_ledger_s_leases() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ledger = Ledger::at(Ledger::DEFAULT_DIR);
        let asks = |command: &str, container: &str, conf: &Value| asks_the_kernel(&place, command, container, conf);
        let named = |network: &str, subnet: &str| {
            let mut conf = conf();
            conf["name"] = json!(network);
            conf["ipam"]["podCIDR"] = json!(subnet);
            conf["cni.dev/valid-attachments"] = json!([]);
            conf
        };
        let (own, known) = (named("n", "10.1.2.0/24"), named("known", "10.1.3.0/24"));
        pod(1, "podwire n c1 eth0", &["10.1.2.2/32"]);
        pod(2, "podwire known c2 eth0", &["10.1.3.2/32"]);
        pod(3, "podwire elsewhere c3 eth0", &["10.1.4.2/32"]);
        assert!(asks("ADD", "new", &own), "the ledger is made");
        assert_eq!(place.run("ADD", "new", &known).addresses(), [ip("10.1.3.3")]);
        let all = ["elsewhere c3 eth0: 10.1.4.2", "known c2 eth0: 10.1.3.2", "n c1 eth0: 10.1.2.2"];
        assert_eq!(recovered(&ledger), all);

        remove(3);
        let mut check = own.clone();
        check["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.2.3/24" }] });
        for (command, container, conf) in [("STATUS", "", &own), ("DEL", "unknown", &own), ("CHECK", "new", &check)] {
            assert!(!asks(command, container, conf), "{command}");
        }
        assert_eq!(recovered(&ledger), all);
        assert!(asks("ADD", "newer", &own), "nobody else would find out that it is gone");
        assert_eq!(recovered(&ledger), all[1..]);
        assert!(!asks("ADD", "newest", &own), "each lease that is left has its DEL");
        [1, 2].into_iter().for_each(remove);
        assert!(asks("GC", "", &named("third", "10.1.5.0/24")), "it tidies up");
        assert_eq!(recovered(&ledger), Vec::<String>::new());
        assert!(!asks("GC", "", &named("third", "10.1.5.0/24")), "there is none left");
    });
}

#[test]
fn a_damaged_ledger_is_rebuilt_from_the_kernel() {
    sandbox::private_host(|| {
        let place = Place::new();
        let dir = Path::new(Ledger::DEFAULT_DIR);
        let ledger = Ledger::at(dir);
        let first = place.run("ADD", "c1", &conf()).addresses();
        pod(1, "podwire n c1 eth0", &[&format!("{}/32", first[0]), &format!("{}/128", first[1])]);
        damage(dir);
        let second = place.run("ADD", "c2", &conf()).addresses();
        let holders = holders(&ledger.leases("test").unwrap().unwrap());
        assert_eq!(
            first.iter().chain(&second).map(|ip| holders[ip].as_str()).collect::<Vec<_>>(),
            ["c1", "c1", "c2", "c2"]
        );
        let listed = ipam(&["list"]);
        let aside = ledger.quarantined().unwrap().pop().unwrap();
        let note = "note: the ledger was damaged and has been rebuilt; the old one is";
        assert_eq!(listed.stderr, format!("{note} {}\n", aside.display()));
        damage(dir);
        assert!(place.run("DEL", "c2", &conf()).success);
        assert_eq!(recovered(&ledger), Vec::<String>::new(), "the ledger's own copy tells more than the kernel");
        let left = ledger.leases("test").unwrap().unwrap();
        assert_eq!(left.iter().flat_map(ipam::Record::ips).collect::<Vec<_>>(), first);
        std::fs::remove_dir_all(dir.join("leases")).unwrap();
        damage(dir);
        assert!(place.run("DEL", "c2", &conf()).success);
        assert_eq!(recovered(&ledger), [format!("n c1 eth0: {} {}", first[0], first[1])]);
    });
}

#[test]
fn release_respects_the_living() {
    sandbox::private_host(|| {
        let place = Place::new();
        place.run("ADD", "c1", &conf()).addresses();
        pod(1, "podwire n c1 eth0", &["10.1.2.2/32"]);
        std::fs::remove_file(place.netns("c1")).unwrap();
        let refused = ipam(&["release", "10.1.2.2", "--yes"]);
        assert_eq!(refused.code, 7, "{refused:?}");
        assert!(refused.stderr.contains("c1, interface eth0, network n: its link is there"), "{refused:?}");
        assert_eq!(refused.stdout, "");
        let shown = ipam(&["show", "10.1.2.2"]);
        assert!(shown.stdout.contains("eth0 (host link exists)"), "{shown:?}");
        let forced = ipam(&["release", "10.1.2.2", "--yes", "--force"]);
        let text = "released 10.1.2.2 and fd00::2 of container c1, interface eth0, network n\n";
        assert_eq!((forced.code, forced.stdout.as_str()), (0, text));
        assert_eq!(Ledger::at(Ledger::DEFAULT_DIR).leases("test").unwrap().unwrap(), []);
    });
}

/// Fills a file system up.
fn fill(hog: &Path) {
    let filled = std::fs::write(hog, vec![0; 16 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

/// Pods that go are what makes space: DEL and GC succeed where ADD does not, without anybody's help.
#[test]
fn on_a_full_file_system_leases_end_and_none_begin() {
    sandbox::private_host(|| {
        let place = Place::new();
        let dir = Path::new("/run/small");
        std::fs::create_dir(dir).unwrap();
        let size = Some("size=4m");
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), size).unwrap();
        let mut conf = conf();
        conf["ipam"]["dataDir"] = json!(dir.join("ipam"));
        let ledger = Ledger::at(dir.join("ipam"));
        let mut living: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for number in 0..60 {
            let container = format!("c{number}");
            living.insert(container.clone(), place.run("ADD", &container, &conf).addresses());
        }
        let (hog, ballast) = (dir.join("hog"), dir.join("ipam/ballast"));
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1 << 20);
        fill(&hog);
        let mut refused = 0;
        for number in 60..90 {
            let container = format!("c{number}");
            let answer = place.run("ADD", &container, &conf);
            if answer.success {
                living.insert(container, answer.addresses());
            } else {
                let (code, message) = answer.error();
                assert_eq!(code, 5, "{message}");
                refused += 1;
            }
        }
        assert!(refused > 0, "there was space after all");
        assert!(ballast.exists(), "it is not for those who want more");
        let status = place.run("STATUS", "", &conf);
        for container in living.keys().skip(10) {
            let deleted = place.run("DEL", container, &conf);
            assert!(deleted.success, "{container}: {deleted:?}");
        }
        assert!(!ballast.exists(), "it was full when the first one went");
        assert!(status.success || status.error().0 == 50, "{status:?}");
        let mut collecting = conf.clone();
        collecting["cni.dev/valid-attachments"] = json!([{ "containerID": "c0", "ifname": "eth0" }]);
        let collected = place.run("GC", "", &collecting);
        assert!(collected.success, "{collected:?}");
        std::fs::remove_file(&hog).unwrap();
        let held = holders(&ledger.leases("test").unwrap().unwrap());
        let expected: Vec<IpAddr> = living["c0"].clone();
        assert_eq!(held.keys().copied().collect::<Vec<_>>(), expected, "no more, no less");
        place.run("ADD", "last", &conf).addresses();
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1 << 20);
        assert_eq!(ledger.quarantined().unwrap(), Vec::<std::path::PathBuf>::new());
        nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

/// Nothing is made where there is no space for what would end it.
#[test]
fn a_file_system_without_space_for_releases_leases_nothing() {
    sandbox::private_host(|| {
        let place = Place::new();
        let dir = Path::new("/run/small");
        std::fs::create_dir(dir).unwrap();
        let size = Some("size=1m");
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), size).unwrap();
        let mut conf = conf();
        conf["ipam"]["dataDir"] = json!(dir.join("ipam"));
        let refused = place.run("ADD", "c", &conf);
        let text = "cannot keep a megabyte in /run/small/ipam/ballast for releases, and leases nothing without";
        assert_eq!(refused.error(), (5, text));
        let details = refused.json["details"].as_str().unwrap();
        assert!(details.contains("No space left") && details.contains("make space on that file system"), "{details}");
        let status = place.run("STATUS", "", &conf);
        assert_eq!(status.error().0, 50);
        assert!(place.run("DEL", "c", &conf).success);
        assert_eq!(Ledger::at(dir.join("ipam")).leases("test").unwrap().unwrap(), []);
        nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

/// A pool of one address.
fn narrow() -> Value {
    let mut conf = conf();
    conf["ipam"]["podCIDR"] = json!("10.1.2.0/30");
    conf
}

#[test]
fn a_pod_that_is_provably_gone_yields_its_address_when_there_is_no_other() {
    sandbox::private_host(|| {
        let (place, conf, dir) = (Place::new(), narrow(), Path::new(Ledger::DEFAULT_DIR));
        let address = place.run("ADD", "c1", &conf).addresses();
        let refused = |suffix: &str| {
            let answer = place.run("ADD", "c2", &conf);
            let (code, message) = answer.error();
            let expected = format!("no free address in 10.1.2.0/30: all 1 are leased{suffix}");
            assert_eq!((code, message), (100, expected.as_str()));
            let status = place.run("STATUS", "", &conf);
            assert_eq!(status.error().0, 50);
            answer.json["details"].as_str().unwrap().to_owned()
        };
        age(dir, "c1");
        assert_eq!(refused(""), "see who holds what with: ipam list", "its namespace is there");
        std::fs::remove_file(place.netns("c1")).unwrap();
        pod(1, "podwire n c1 eth0", &["10.1.2.2/32"]);
        let suspect = "; 1 leased ones look dead: their namespace is gone";
        assert!(refused(suspect).starts_with("see which leases are of pods that are gone"), "its link is there");
        remove(1);
        assert!(place.run("STATUS", "", &conf).success);
        assert_eq!(place.run("ADD", "c2", &conf).addresses(), address);
        std::fs::remove_file(place.netns("c2")).unwrap();
        let answer = place.run("ADD", "c3", &conf);
        assert_eq!(answer.error().0, 100, "it may be under way still: {answer:?}");
        let history = std::fs::read_to_string(Path::new(Ledger::DEFAULT_STATE_DIR).join("history.jsonl")).unwrap();
        let events: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let named: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(named, ["leased", "reclaimed", "leased"]);
        assert_eq!(events[1]["lease"]["attachment"]["containerId"], "c1");
    });
}

#[test]
fn a_namespace_that_a_process_lives_in_is_not_gone() {
    sandbox::private_host(|| {
        let (place, conf, dir) = (Place::new(), narrow(), Path::new(Ledger::DEFAULT_DIR));
        let mut process = sandbox::command("unshare");
        process.args(["--net", "sh", "-c", "echo there; exec cat"]);
        process.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut living = process.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(living.stdout.as_mut().unwrap()), &mut line).unwrap();
        let path = place.netns("c1");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(format!("/proc/{}/ns/net", living.id()), &path).unwrap();
        let address = place.run("ADD", "c1", &conf).addresses();
        age(dir, "c1");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(place.run("ADD", "c2", &conf).error().0, 100);
        drop(living.stdin.take());
        living.wait().unwrap();
        // The kernel gives the namespace's number to the next one, which may be another test's for a while.
        let mut added = None;
        until("it is gone", || {
            added = Some(place.run("ADD", "c2", &conf)).filter(|answer| answer.success);
            added.is_some()
        });
        assert_eq!(added.unwrap().addresses(), address);
    });
}
