//! The owner, killed at the first, the second, the third... of each system call that changes something: whoever asks
//! goes on without it, and what it had answered stands.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Place, holders};

/// An owner under strace(1), which kills it at the `nth` such call of a thread. Returns when it serves, or is dead.
fn serving(place: &Place, call: &str, nth: usize) -> Child {
    let mut strace = sandbox::command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]);
    strace.arg(env!("CARGO_BIN_EXE_ipam")).args(["serve", "--timeout", "60", "--dir"]).arg(place.data_dir());
    let mut child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    child
}

/// Tells the owner to stop, if it lives, and tells whether it was killed.
fn ended(place: &Place, mut strace: Child) -> bool {
    let lock = fs::read(place.data_dir().join("lock")).unwrap();
    let owner = serde_json::from_slice::<Value>(&lock).ok().filter(|held| held["purpose"] == "ipam serve");
    if let Some(pid) = owner.and_then(|held| held["pid"].as_i64()) {
        // It may have died of the injected signal before this one.
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM);
    }
    strace.wait().unwrap().code() != Some(0)
}

fn survive(call: &str) {
    let place = Place::new();
    place.undisturbed(|| {
        let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 }));
        let mut held: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut kills = 0;
        for nth in 1.. {
            let context = format!("{call} {nth}");
            let owner = serving(&place, call, nth);
            let (container, before) = (format!("c{nth}"), format!("c{}", nth - 1));
            let added = place.run("ADD", &container, &conf).addresses();
            assert_eq!(held.insert(added[0], container), None, "{context}: lent twice");
            assert!(place.run("DEL", &before, &conf).success, "{context}");
            held.retain(|_, holder| *holder != before);
            assert_eq!(holders(&place.leases()), held, "{context}");
            let killed = ended(&place, owner);
            assert_eq!(holders(&place.leases()), held, "{context}: after its end");
            place.assert_copied(&context);
            if !killed {
                break;
            }
            kills += 1;
        }
        assert!(kills > 0, "{call}: nobody was killed");
        assert_eq!(place.ledger().quarantined().unwrap(), Vec::<PathBuf>::new(), "{call}");
    });
}

#[test]
fn at_every_change_of_a_file() {
    ["write", "pwrite64", "ftruncate", "fsync"].into_iter().for_each(survive);
}

#[test]
fn at_every_change_of_a_folder_and_of_its_socket() {
    ["rename", "unlink", "bind", "chmod", "accept4", "sendto"].into_iter().for_each(survive);
}
