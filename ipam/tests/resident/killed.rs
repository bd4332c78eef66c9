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

use crate::support::{Answer, Place, holders};

/// An owner under strace(1), which kills it at the `nth` such call of a thread. Returns when it serves, or is dead.
fn serving(place: &Place, call: &str, nth: usize) -> Child {
    let mut strace = sandbox::command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]);
    strace
        .arg(env!("CARGO_BIN_EXE_ipam"))
        .args(["serve", "--create", "--timeout", "60", "--dir"])
        .arg(place.data_dir());
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
            // Two at a time: whoever waits behind the other loses the owner, too.
            let both = ["c", "d"].map(|name| {
                let container = format!("{name}{nth}");
                (place.spawn("ADD", &container, &conf), container)
            });
            for (adding, container) in both {
                let added = Answer::of(&adding.wait_with_output().unwrap()).addresses();
                assert_eq!(held.insert(added[0], container), None, "{context}: lent twice");
            }
            let before = ["c", "d"].map(|name| format!("{name}{}", nth - 1));
            let deleting = before.each_ref().map(|container| place.spawn("DEL", container, &conf));
            for deleted in deleting {
                assert!(Answer::of(&deleted.wait_with_output().unwrap()).success, "{context}");
            }
            held.retain(|_, holder| !before.contains(holder));
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
