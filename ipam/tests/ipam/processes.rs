//! The executable: many at once, killed at any moment, kept waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Answer, Place, holders, ip, pid_of, stop};
use cni_spec::SpecVersion;
use serde_json::{Value, json};

#[test]
fn every_spec_version_is_served() {
    for version in SpecVersion::ALL {
        let place = Place::new();
        let mut conf = place.json("n", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"] }));
        conf["cniVersion"] = version.as_str().into();
        let added = place.run("ADD", "c1", &conf);
        assert_eq!(added.json["cniVersion"], version.as_str(), "{added:?}");
        if version < SpecVersion::V0_3_0 {
            assert_eq!(added.json["ip4"]["ip"], "10.1.2.2/24");
            assert_eq!(added.json["ip6"]["gateway"], "fd00::1");
        } else {
            assert_eq!(added.addresses(), [ip("10.1.2.2"), ip("fd00::2")]);
        }
        if version >= SpecVersion::V0_4_0 {
            conf["prevResult"] = added.json.clone();
            let checked = place.run("CHECK", "c1", &conf);
            assert!(checked.success && checked.json.is_null(), "{checked:?}");
        }
        if version >= SpecVersion::V1_1_0 {
            assert!(place.run("STATUS", "", &conf).success);
            conf["cni.dev/valid-attachments"] = json!([]);
            let collected = place.run("GC", "", &conf);
            assert!(collected.success && collected.json.is_null(), "{collected:?}");
            assert_eq!(place.leases(), []);
        }
        for _ in 0..2 {
            let deleted = place.run("DEL", "c1", &conf);
            assert!(deleted.success && deleted.json.is_null(), "{deleted:?}");
        }
        assert_eq!(place.leases(), []);
    }
}

/// A missing list frees nothing; an empty one, which Go also writes as null, says that nothing is valid.
#[test]
fn gc_tells_a_missing_list_from_an_empty_one() {
    for (list, left) in [
        (None, 2),
        (Some(json!([{ "containerID": "c1", "ifname": "eth0" }])), 1),
        (Some(json!([])), 0),
        (Some(Value::Null), 0),
    ] {
        let place = Place::new();
        let mut conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
        for container in ["c1", "c2"] {
            place.run("ADD", container, &conf).addresses();
        }
        if let Some(list) = &list {
            conf["cni.dev/valid-attachments"] = list.clone();
        }
        let collected = place.run("GC", "", &conf);
        if list.is_some() {
            assert!(collected.success, "{list:?}: {collected:?}");
        } else {
            assert_eq!(collected.error().0, 7, "{collected:?}");
        }
        assert_eq!(place.leases().len(), left, "{list:?}");
    }
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": ["10.1.2.0/26", "fd00::/64"] }));
    let children: Vec<Child> = (0..50).map(|i| place.spawn("ADD", &format!("c{i}"), &conf)).collect();
    let answers: Vec<Answer> =
        children.into_iter().map(|child| Answer::of(&child.wait_with_output().unwrap())).collect();
    let given: BTreeSet<IpAddr> = answers.iter().flat_map(Answer::addresses).collect();
    assert_eq!(given.len(), 100);
    assert_eq!(holders(&place.leases()).into_keys().collect::<BTreeSet<_>>(), given);
    let children: Vec<Child> = (0..50).map(|i| place.spawn("DEL", &format!("c{i}"), &conf)).collect();
    for child in children {
        assert!(Answer::of(&child.wait_with_output().unwrap()).success);
    }
    assert_eq!(place.leases(), []);
}

/// Another process that holds the ledger's lock until it is told to end.
struct Holder(Child);

impl Holder {
    fn of(place: &Place) -> Self {
        let mut process = sandbox::command("flock");
        process.arg(place.data_dir().join("lock")).args(["cat", "-"]);
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // What comes back through cat proves that the lock is held.
        use std::io::Write;
        child.stdin.as_mut().unwrap().write_all(b"held\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn a_held_lock_delays_add_and_spools_del() {
    let place = Place::new();
    let mut conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
    place.run("ADD", "c1", &conf).addresses();
    let holder = Holder::of(&place);
    conf["ipam"]["lockTimeoutSeconds"] = 1.into();

    let (code, message) = {
        let refused = place.run("ADD", "c2", &conf);
        let (code, message) = refused.error();
        (code, message.to_owned())
    };
    assert_eq!(code, 11);
    let lock = place.data_dir().join("lock");
    let start = format!("the ledger is busy: {} held by pid {} (flock)", lock.display(), holder.0.id());
    assert_eq!(message, format!("{start}; waited 1.0 s"));

    let (code, _) = {
        let status = place.run("STATUS", "", &conf);
        let (code, message) = status.error();
        assert_eq!(message, "no new pod can be given an address now; those of running pods stay as they are");
        assert!(status.json["details"].as_str().unwrap().starts_with(&start), "{status:?}");
        (code, ())
    };
    assert_eq!(code, 50);
    assert!(place.run("DEL", "c1", &conf).success, "a DEL is never kept from its end");
    let pending = std::fs::read_dir(place.data_dir().join("pending-del")).unwrap().count();
    assert_eq!(pending, 1);

    let waiting = place.spawn("ADD", "c3", &place.json("n", &json!({ "podCIDR": "10.1.2.0/24" })));
    holder.end();
    assert_eq!(Answer::of(&waiting.wait_with_output().unwrap()).addresses(), [ip("10.1.2.3")]);
    assert_eq!(holders(&place.leases()).into_values().collect::<Vec<_>>(), ["c3"], "the DEL was carried out first");
}

#[test]
fn a_holder_of_ours_is_named_with_what_it_does() {
    let place = Place::new();
    let mut conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
    place.run("ADD", "c1", &conf).addresses();
    // Stopped in the middle of a release, as a machine without memory might stop it.
    let stopped = stop_in_session(&place, &conf);
    conf["ipam"]["lockTimeoutSeconds"] = 1.into();
    let refused = place.run("ADD", "c2", &conf);
    let (code, message) = refused.error();
    assert_eq!(code, 11);
    let expected = format!("held by pid {} (DEL n c1 eth0) for ", stopped.id());
    assert!(message.contains(&expected), "{message}");
    go_on(&stopped);
    assert!(Answer::of(&stopped.wait_with_output().unwrap()).success);
    assert_eq!(place.leases(), []);
}

fn go_on(child: &Child) {
    nix::sys::signal::kill(pid_of(child), nix::sys::signal::Signal::SIGCONT).unwrap();
}

/// A DEL that was stopped while it held the lock. It is fast: whoever gets through is added and tried again.
fn stop_in_session(place: &Place, conf: &Value) -> Child {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let mut child = place.spawn("DEL", "c1", conf);
        while child.try_wait().unwrap().is_none() {
            stop(&child);
            let lock = std::fs::read_to_string(place.data_dir().join("lock")).unwrap();
            if lock.contains(&format!("\"pid\":{}", child.id())) {
                return child;
            }
            go_on(&child);
            thread::yield_now();
        }
        place.run("ADD", "c1", conf).addresses();
    }
    panic!("no DEL could be stopped in time");
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What is known of a container after its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Leased(Vec<IpAddr>),
    Gone,
    /// The request was killed: both is right.
    Unknown,
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_is_doubled() {
    const CONTAINERS: u64 = 12;
    let place = Place::new();
    let conf = place.json("n", &json!({ "podCIDR": ["10.1.2.0/27", "fd00::/64"], "cooldownSeconds": 0 }));
    // In microseconds, to begin with: it follows the machine's speed, so that about every other one is killed.
    let mut longest = 50_000;
    let (mut killed, mut finished) = (0, 0);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for _ in 0..120 {
        let container = format!("c{}", dice.below(CONTAINERS));
        let command = if dice.below(2) == 0 { "ADD" } else { "DEL" };
        let mut child = place.spawn(command, &container, &conf);
        // Not to wait for something, but to strike at some moment.
        thread::sleep(Duration::from_micros(dice.below(longest)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_none() {
            killed += 1;
            longest += longest / 4 + 1;
            known.insert(container, Known::Unknown);
            continue;
        }
        finished += 1;
        longest -= longest / 4;
        let answer = Answer::of(&output);
        assert!(answer.success, "{answer:?}");
        known.insert(container, if command == "ADD" { Known::Leased(answer.addresses()) } else { Known::Gone });
    }
    let leases = place.leases();
    holders(&leases);
    for (container, state) in &known {
        let lease = leases.iter().find(|lease| lease.attachment.container_id.as_str() == container);
        let held: Option<Vec<IpAddr>> = lease.map(|lease| lease.ips().collect());
        match state {
            Known::Leased(addresses) => assert_eq!(held.as_ref(), Some(addresses), "{container} lost its lease"),
            Known::Gone => assert_eq!(held, None, "{container} was released"),
            Known::Unknown => assert!(held.is_none_or(|held| held.len() == 2), "{container} has half a lease"),
        }
    }
    assert!(killed > 0 && finished > 0, "{killed} were killed, {finished} were not");
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<std::path::PathBuf>::new(), "the ledger was damaged");
}
