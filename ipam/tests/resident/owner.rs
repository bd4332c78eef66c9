//! The owner itself: who may ask it, and that its death stops nobody.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{Answer, Owner, Place, attachment, holders, ip, ips, pid_of, stop, until};
use cni_spec::ErrorCode;
use ipam::Ledger;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

fn conf() -> Value {
    json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"], "cooldownSeconds": 0 })
}

fn signal(owner: &Owner, signal: Signal) {
    kill(pid_of(&owner.0), signal).unwrap();
}

/// Waits for its end, and returns its exit code.
pub fn end_of(mut owner: Owner) -> Option<i32> {
    owner.0.wait().unwrap().code()
}

#[test]
fn the_owner_answers_and_holds_the_ledger() {
    let place = Place::new();
    let socket = place.data_dir().join("ipam.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let holder: Value = serde_json::from_slice(&fs::read(place.data_dir().join("lock")).unwrap()).unwrap();
    assert_eq!(holder["purpose"], "ipam serve");
    let plugin = place.json("n", &conf());
    assert_eq!(place.run("ADD", "c1", &plugin).addresses(), [ip("10.1.2.2"), ip("fd00::2")]);
    assert_eq!(ips(&place.ipam("n", &conf()).lease(&place.request("n", "c2")).unwrap()), ["10.1.2.3", "fd00::3"]);
    assert_eq!(holders(&place.leases()).len(), 4);
    assert!(place.run("DEL", "c1", &plugin).success);
    assert_eq!(holders(&place.leases()).len(), 2);
}

#[test]
fn a_killed_owner_stops_nobody_and_loses_nothing() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let mut given = vec![ipam.lease(&place.request("n", "c0")).unwrap()];
    for round in 1..=5 {
        place.undisturbed(|| {
            assert!(place.data_dir().join("ipam.sock").exists(), "killed, it leaves its socket");
            given.push(ipam.lease(&place.request("n", &format!("direct{round}"))).unwrap());
        });
        given.push(ipam.lease(&place.request("n", &format!("owner{round}"))).unwrap());
    }
    let held = holders(&place.leases());
    assert_eq!(held.len(), 22);
    assert!(given.iter().flat_map(|lease| &lease.addresses).all(|leased| held.contains_key(&leased.address.ip())));
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn told_to_stop_it_closes_the_ledger_and_takes_its_socket_away() {
    let place = Place::new();
    place.undisturbed(|| {
        for stop in [Signal::SIGTERM, Signal::SIGINT] {
            let owner = Owner::of(&place.data_dir());
            signal(&owner, stop);
            assert_eq!(end_of(owner), Some(0), "{stop}");
            assert!(!place.data_dir().join("ipam.sock").exists(), "{stop}");
            assert_eq!(fs::read(place.data_dir().join("lock")).unwrap(), b"", "{stop}");
        }
    });
}

/// Stopped, it neither answers nor dies: ADD is refused in time and named whom it waited for, DEL is written down.
#[test]
fn a_stopped_owner_delays_add_and_spools_del() {
    let place = Place::new();
    place.undisturbed(|| {
        let owner = Owner::of(&place.data_dir());
        let mut plugin = place.json("n", &conf());
        place.run("ADD", "c1", &plugin).addresses();
        stop(&owner.0);
        plugin["ipam"]["lockTimeoutSeconds"] = 1.into();
        let refused = place.run("ADD", "c2", &plugin);
        let (code, message) = refused.error();
        let expected = format!("held by pid {} (ipam serve) for ", owner.0.id());
        assert!(code == 11 && message.contains(&expected), "{code} {message}");
        assert!(place.run("DEL", "c1", &plugin).success);
        assert!(place.run("DEL", "c2", &plugin).success, "the runtime's answer to the refused ADD");
        signal(&owner, Signal::SIGCONT);
        // Requests of those who have gone away: nothing is leased, and what was written down is carried out.
        until("the DEL is carried out", || {
            let again = place.run("DEL", "unknown", &plugin);
            assert!(again.success, "{again:?}");
            holders(&place.leases()).is_empty()
        });
        assert_eq!(fs::read_dir(place.data_dir().join("pending-del")).unwrap().count(), 0);
    });
}

#[test]
fn it_waits_for_those_who_work_directly_and_they_find_it_when_it_comes() {
    let place = Place::new();
    place.undisturbed(|| {
        let held = fs::File::create(place.data_dir().join("lock")).unwrap();
        held.lock().unwrap();
        let waiting = place.spawn("ADD", "c1", &place.json("n", &conf()));
        let starting = std::thread::scope(|scope| {
            let owner = scope.spawn(|| Owner::of(&place.data_dir()));
            drop(held);
            owner.join().unwrap()
        });
        assert_eq!(Answer::of(&waiting.wait_with_output().unwrap()).addresses()[0], ip("10.1.2.2"));
        assert_eq!(holders(&place.leases()).len(), 2);
        drop(starting);
    });
}

#[test]
fn nonsense_gets_no_answer() {
    let place = Place::new();
    let socket = place.data_dir().join("ipam.sock");
    let said = |request: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may hang up before it has read all.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for nonsense in [&b"\n"[..], b"{}\n", b"\0\0\0\0\n", &[b'['; 100_000]] {
        if nonsense.ends_with(b"\n") {
            assert_eq!(said(nonsense), "");
        } else {
            drop(UnixStream::connect(&socket).unwrap().write_all(nonsense));
        }
    }
    // Questions of other versions are told so.
    for (version, what) in [(99, "in another version (99)"), (1, "of another release (1)")] {
        let answer: Value = serde_json::from_str(&said(format!("{{\"version\":{version}}}\n").as_bytes())).unwrap();
        assert_eq!(answer["refused"]["code"], 11, "{answer}");
        assert!(answer["refused"]["msg"].as_str().unwrap().ends_with(what), "{answer}");
        assert!(answer["refused"]["details"].as_str().unwrap().contains("systemctl restart podwire-ipam"), "{answer}");
    }
    place.ipam("n", &conf()).lease(&place.request("n", "c1")).unwrap();
    let metrics = said(b"GET /metrics HTTP/1.1\r\nHost: ipam\r\n\r\n");
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let pool = "{network=\"n\",family=\"ipv4\",pool=\"10.1.2.1-10.1.2.254\"}";
    for line in [
        format!("cni_ipam_pool_size{pool} 253"),
        format!("cni_ipam_pool_leased{pool} 1"),
        format!("cni_ipam_pool_cooling{pool} 0"),
        "cni_ipam_leases 1".to_owned(),
        "cni_ipam_changes_total 1".to_owned(),
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    assert!(said(b"GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
}

/// A process of another user, for whom folder and socket were opened by mistake.
#[test]
fn another_user_is_not_answered() {
    const NOBODY: u32 = 65534;
    let place = Place::new();
    let dir = place.data_dir();
    let socket = dir.join("ipam.sock");
    let program = dir.with_file_name("ipam");
    // Not by this process: whoever forks meanwhile would have it open for writing, and what is open so cannot be run.
    let copied = sandbox::command("cp").arg(env!("CARGO_BIN_EXE_ipam")).arg(&program).status().unwrap();
    assert!(copied.success());
    for (path, mode) in [(dir.parent().unwrap(), 0o755), (&dir, 0o755), (&socket, 0o666), (&program, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let look = || {
        let mut process = sandbox::command(&program);
        process.args(["pools", "--timeout", "60", "--conf-dir", "/nowhere", "--dir"]).arg(&dir).stdin(Stdio::null());
        process
    };
    let own = look().output().unwrap();
    assert_eq!(own.status.code(), Some(0), "{own:?}");
    match look().uid(NOBODY).gid(NOBODY).output() {
        Ok(stranger) => {
            let said = String::from_utf8(stranger.stderr).unwrap();
            assert_eq!((stranger.status.code(), said.contains("Permission denied")), (Some(8), true), "{said}");
            let metrics = metrics_at(&socket);
            let counted =
                metrics.lines().find_map(|line| line.strip_prefix("cni_ipam_requests_total{outcome=\"stranger\"} "));
            assert!(counted.unwrap().parse::<u32>().unwrap() > 0, "{metrics}");
        }
        // An ordinary user has one id, in his own user namespace too (user_namespaces(7)): there is no other to ask as.
        Err(error) => assert!(!nix::unistd::geteuid().is_root() || has_one_id(), "{error}"),
    }
}

/// Whether this user namespace maps a single user.
fn has_one_id() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.lines().count() == 1 && map.split_whitespace().nth(2) == Some("1")
}

/// What `GET /metrics` gives, without the head.
fn metrics_at(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ipam\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What does not change from one look to the next, and is not the owner's alone.
fn families(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.contains("read_seconds ") && !line.contains("requests_total")).collect()
}

#[test]
fn its_metrics_are_those_of_the_command() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    for container in ["c1", "c2"] {
        ipam.lease(&place.request("n", container)).unwrap();
    }
    ipam.release(&attachment("n", "c1")).unwrap();
    // Of a network that has had no ADD, the configs alone know.
    let conf_dir = Owner::conf_dir(&place.data_dir());
    fs::create_dir(&conf_dir).unwrap();
    let waits = place.json("waits", &json!({ "podCIDR": "10.7.0.0/24" }));
    fs::write(conf_dir.join("10-waits.conf"), waits.to_string()).unwrap();
    let mut command = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    command.arg("metrics").arg("--conf-dir").arg(conf_dir).arg("--dir").arg(place.data_dir());
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(families(&metrics_at(&place.data_dir().join("ipam.sock"))), families(&printed));
    assert!(printed.contains("cni_ipam_pool_leased{network=\"waits\",family=\"ipv4\""), "{printed}");
    assert!(printed.contains("cni_ipam_pool_leased{network=\"n\",family=\"ipv6\",pool=\"fd00::1-"), "{printed}");
}

/// As systemd does: the socket is there before the owner is.
#[test]
fn it_takes_a_socket_that_was_made_for_it() {
    let place = Place::new();
    place.undisturbed(|| {
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let mut activated = Activated::at(&place);
        // It is there before anybody listens.
        until("somebody listens", || UnixStream::connect(&socket).is_ok());
        assert_eq!(place.run("ADD", "c1", &place.json("n", &conf())).addresses()[0], ip("10.1.2.2"));
        let holder: Value = serde_json::from_slice(&fs::read(place.data_dir().join("lock")).unwrap()).unwrap();
        assert_eq!(holder["purpose"], "ipam serve", "it was started by the request");
        activated.0.kill().unwrap();
        activated.0.wait().unwrap();
    });
}

pub struct Activated(pub Child);

impl Activated {
    fn at(place: &Place) -> Self {
        Self::serving(&place.data_dir().join("ipam.sock"), &place.data_dir())
    }

    /// What the owner says goes to standard error.
    pub fn serving(socket: &Path, dir: &Path) -> Self {
        let mut process = sandbox::command("systemd-socket-activate");
        process.arg("--listen").arg(socket).arg(env!("CARGO_BIN_EXE_ipam")).args(["serve", "--dir"]).arg(dir);
        Self(process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_owner_whose_folder_was_removed_ends() {
    let place = Place::new();
    place.undisturbed(|| {
        let owner = Owner::of(&place.data_dir());
        let mut stream = UnixStream::connect(place.data_dir().join("ipam.sock")).unwrap();
        fs::remove_dir_all(place.data_dir()).unwrap();
        let lease = place.ipam("n", &conf()).lease(&place.request("n", "c1")).unwrap();
        assert_eq!(ips(&lease)[0], "10.1.2.2", "in a new ledger");
        // It notices at the next question, unless it has looked by itself before that and has ended.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        assert_eq!(end_of(owner), Some(1));
        assert_eq!(holders(&place.leases()).len(), 2);
    });
}

#[test]
fn a_second_owner_is_told_who_is_the_first() {
    let place = Place::new();
    let ledger = Ledger::at(place.data_dir()).with_lock_timeout(Duration::ZERO);
    let _ = ledger.release(&attachment("n", "c1")).unwrap();
    let held = fs::read_to_string(place.data_dir().join("lock")).unwrap();
    assert!(held.contains("ipam serve"));
    let mut second = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    second.args(["serve", "--timeout", "0", "--dir"]).arg(place.data_dir());
    let output = second.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("(ipam serve)"), "{said}");
    assert_eq!(ErrorCode::TryAgainLater.number(), 11);
}
