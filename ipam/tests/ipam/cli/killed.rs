//! Commands that change something, killed at the first, the second, the third... of each system call that changes a
//! file. What they were to change is then changed whole or not at all, and the same command finishes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use ipam::Record;

use crate::cli::populated;
use crate::support::Place;

/// The calls by which what is in files changes.
const CALLS: [&str; 6] = ["write", "pwrite64", "rename", "unlink", "ftruncate", "fsync"];

/// Runs the command under strace(1), which kills it at the `nth` such call of a thread. False if there were fewer.
fn killed_at(place: &Place, arguments: &[&str], call: &str, nth: usize) -> bool {
    let mut strace = sandbox::command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]);
    strace.arg(env!("CARGO_BIN_EXE_ipam")).args(arguments);
    strace.arg("--dir").arg(place.data_dir()).args(["--timeout", "60", "--conf-dir", "/nowhere"]);
    let output = strace.stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
    let killed = output.status.code().is_none_or(|code| code == 128 + 9);
    assert!(killed || output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    killed
}

/// What leases and reservations are left.
fn state(place: &Place) -> (Vec<Record>, BTreeSet<String>) {
    let reserved = place.cli(&["list", "--state", "reserved", "-q"]);
    assert_eq!(reserved.code, 0, "{reserved:?}");
    (place.leases(), reserved.stdout.lines().map(str::to_owned).collect())
}

fn assert_sound(place: &Place, context: &str) {
    let check = place.document(&["check"]);
    let errors: Vec<_> = check["items"].as_array().unwrap().iter().filter(|it| it["severity"] == "error").collect();
    assert!(errors.is_empty(), "{context}: {errors:#?}");
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<PathBuf>::new(), "{context}");
}

/// Kills the command at every call; `again` makes everything as it was before it. `may_be` judges what a killed one
/// leaves, and each is then finished by the same command.
fn survive(place: &Place, arguments: &[&str], again: impl Fn(), may_be: impl Fn(&[Record], &BTreeSet<String>) -> bool) {
    let mut kills = 0;
    for call in CALLS {
        for nth in 1.. {
            again();
            let killed = killed_at(place, arguments, call, nth);
            let context = format!("{arguments:?} at {call} {nth}");
            let (leases, reserved) = state(place);
            assert!(may_be(&leases, &reserved), "{context}: {leases:#?} {reserved:?}");
            assert_sound(place, &context);
            if !killed {
                break;
            }
            kills += 1;
            let finished = place.cli(arguments);
            assert!([0, 3].contains(&finished.code), "{context}: {finished:?}");
        }
    }
    assert!(kills > 10, "{arguments:?}: only {kills} kills");
}

#[test]
fn an_import_that_replaces_is_there_whole_or_not_at_all() {
    sandbox::private_host(|| {
        let (before, after) = (populated(), Place::new());
        let conf = serde_json::json!({ "podCIDR": "10.1.2.0/24" });
        for container in ["other", "third"] {
            after.ipam("red", &conf).lease(&after.request("red", container)).unwrap();
        }
        assert_eq!(after.cli(&["reserve", "10.1.2.64/28", "--reason", "lab", "--yes"]).code, 0);
        assert_eq!(before.cli(&["reserve", "10.1.2.32/28", "--reason", "as before", "--yes"]).code, 0);
        let export = |place: &Place, name: &str| {
            let path = before.data_dir().join(name);
            assert_eq!(place.cli(&["export", "--file", path.to_str().unwrap()]).code, 0);
            path
        };
        let (old, new) = (export(&before, "old.jsonl"), export(&after, "new.jsonl"));
        let (had, gets) = (before.leases(), after.leases());
        let import =
            |path: &PathBuf| ["import", "--replace", "--force", "--yes", path.to_str().unwrap()].map(str::to_owned);
        let restore = import(&old);
        let restore: Vec<&str> = restore.iter().map(String::as_str).collect();
        let arguments = import(&new);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let again = || {
            let restored = before.cli(&restore);
            assert_eq!(restored.code, 0, "{restored:?}");
        };
        survive(&before, &arguments, again, |leases, reserved| {
            // Reservations come before the leases and go after them: none that counts is missing.
            (leases == had && reserved.contains("10.1.2.32/28"))
                || (leases == gets && reserved.contains("10.1.2.64/28"))
        });
        assert_eq!(state(&before), (gets, BTreeSet::from(["10.1.2.64/28".to_owned()])));
    });
}

#[test]
fn gc_ends_whole_leases_and_no_living_one() {
    sandbox::private_host(|| {
        let place = populated();
        let export = place.data_dir().join("all.jsonl");
        assert_eq!(place.cli(&["export", "--file", export.to_str().unwrap()]).code, 0);
        for dead in ["0a1b2c3d4e5f60718293", "1b2c3d4e"] {
            fs::remove_file(place.netns(dead)).unwrap();
        }
        let all = place.leases();
        let again = || {
            let restored = place.cli(&["import", export.to_str().unwrap(), "--yes"]);
            assert_eq!(restored.code, 0, "{restored:?}");
        };
        // `release` ends leases as `gc` does.
        survive(&place, &["gc", "--min-age", "0s", "--apply", "--yes"], again, |leases, _| {
            let is_one = |lease: &Record| all.contains(lease);
            let lives = |lease: &Record| lease.attachment.container_id.as_str() == "plain";
            leases.iter().all(is_one) && leases.iter().any(lives)
        });
        assert_eq!(place.leases().len(), 1);
    });
}

#[test]
fn a_reservation_is_made_whole_and_is_written_down() {
    sandbox::private_host(|| {
        let place = Place::new();
        let again = || {
            let given_back = place.cli(&["unreserve", "10.1.2.9", "--yes"]);
            assert!([0, 3].contains(&given_back.code), "{given_back:?}");
            let _ = fs::remove_file(place.data_dir().join("history.jsonl"));
        };
        assert_eq!(place.cli(&["reserve", "10.1.2.9", "--reason", "x", "--yes"]).code, 0);
        let arguments = ["reserve", "10.1.2.9", "--reason", "x", "--yes"];
        let mut kills = 0;
        for call in CALLS {
            for nth in 1.. {
                again();
                let killed = killed_at(&place, &arguments, call, nth);
                let context = format!("{call} {nth}");
                let (_, reserved) = state(&place);
                let deeds = place.document(&["history", "--deeds"]);
                let outcomes: Vec<_> = deeds["items"].as_array().unwrap().iter().map(|it| &it["outcome"]).collect();
                if !reserved.is_empty() {
                    assert_eq!(outcomes.len(), 1, "{context}: nobody has done it");
                    assert!(killed || outcomes == ["done"], "{context}: {outcomes:?}");
                }
                if !killed {
                    break;
                }
                assert!(outcomes.iter().all(|outcome| **outcome == "begun" || **outcome == "done"), "{context}");
                kills += 1;
            }
        }
        assert!(kills > 5, "only {kills} kills");
    });
}
