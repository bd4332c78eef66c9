//! The command where there is no owner: no ledger, or one that somebody works with who has locked it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::verify::link;
use crate::cli::{documents, ipam, populated};
use crate::crash_table_direct::waiting_for;
use crate::support::{self, damage};

/// Where plugins would make the ledger, and have made none yet.
#[test]
fn looking_makes_nothing() {
    sandbox::private_host(|| {
        let place = |arguments: &[&str]| ipam(&[arguments, &["--conf-dir", "/nowhere"]].concat());
        let listed = place(&["list"]);
        assert_eq!((listed.code, listed.stdout.trim_end()), (0, "ADDRESS  POD  CONTAINER  IF  NETWORK  AGE"));
        assert_eq!(listed.stderr, "no leases in /run/podwire/ipam\n");
        let document: Value = serde_json::from_str(&place(&["list", "-o", "json"]).stdout).unwrap();
        documents::assert_fits(&document);
        assert_eq!(document["items"], json!([]));
        let check = place(&["check"]).stderr;
        assert_eq!(check, "no ledger of this boot in /run/podwire/ipam, and nothing wrong beside it\n");
        for (arguments, code) in [
            (vec!["show", "x"], 3),
            (vec!["pools"], 0),
            (vec!["stats"], 0),
            (vec!["metrics"], 0),
            (vec!["status"], 0),
            (vec!["check"], 0),
            (vec!["verify"], 0),
            (vec!["gc"], 0),
            (vec!["history"], 0),
            (vec!["history", "10.1.2.3"], 3),
            (vec!["map"], 3),
            (vec!["map", "10.1.2.0/24"], 0),
            (vec!["export"], 0),
            (vec!["repair", "--yes"], 0),
            (vec!["unreserve", "10.1.2.3", "--yes"], 3),
            (vec!["reserve", "10.1.2.3", "--reason", "x", "--dry-run"], 0),
            (vec!["watch", "--for", "0s"], 0),
            (vec!["release", "10.1.2.3", "--yes"], 3),
        ] {
            let printed = place(&arguments);
            assert_eq!(printed.code, code, "{arguments:?}: {printed:?}");
        }
        for folder in ["/run/podwire", "/var/lib/podwire"] {
            assert!(!Path::new(folder).exists(), "{folder}");
        }
    });
}

#[test]
fn exit_codes_are_as_documented() {
    let place = populated();
    assert_eq!(place.cli(&["release", "--yes"]).code, 2, "of everything there is?");
    assert_eq!(place.cli(&["list", "-4", "-6"]).code, 2);
    assert_eq!(ipam(&["--version"]).code, 0);
    assert_eq!(ipam(&[]).code, 2);
    let endless = ipam(&["list", "--state", "cooling", "--timeout", "18446744073709551615"]);
    assert_eq!((endless.code, endless.stderr.contains("is not in 0..=86400")), (2, true), "{endless:?}");
    let held = fs::File::open(place.data_dir().join("lock")).unwrap();
    held.lock().unwrap();
    let dir = place.data_dir();
    assert_eq!(place.cli(&["list"]).code, 0, "a list waits for nobody");
    let busy = ipam(&["pools", "--dir", dir.to_str().unwrap(), "--timeout", "0"]);
    assert_eq!(busy.code, 5);
    assert!(busy.stderr.starts_with("ipam: the ledger is busy: "), "{busy:?}");
    drop(held);
    damage(&place.data_dir());
    let damaged = place.cli(&["pools"]);
    assert_eq!(damaged.code, 6);
    assert!(damaged.stderr.contains("the next ADD or DEL puts it aside"), "{damaged:?}");
}

#[test]
fn a_busy_ledger_names_its_holder() {
    sandbox::private_host(|| {
        let place = populated();
        let held = fs::File::open(place.data_dir().join("lock")).unwrap();
        held.lock().unwrap();
        let dir = place.data_dir();
        let status = ipam(&["status", "-o", "json", "--timeout", "0", "--dir", dir.to_str().unwrap()]);
        assert_eq!(status.code, 5);
        let state: Value = serde_json::from_str(&status.stdout).unwrap();
        documents::assert_fits(&state);
        let holder = state["items"][0]["busy"].as_str().unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        assert_eq!(state["items"][0].get("leases"), None, "nobody has counted them: {state}");
        for command in ["list", "history"] {
            assert_eq!(place.cli(&[command]).code, 0, "{command} waits for nobody");
        }
    });
}

#[test]
fn repair_makes_a_damaged_ledger_anew() {
    sandbox::private_host(|| {
        let place = populated();
        let before = place.leases();
        damage(&place.data_dir());
        for command in ["pools", "stats", "check", "verify", "export", "gc"] {
            let refused = place.cli(&[command]);
            assert_eq!(refused.code, 6, "{command}: {refused:?}");
            assert!(refused.stderr.contains("ipam repair"), "{command}: {refused:?}");
        }
        assert_eq!(place.cli(&["list", "-q"]).code, 0, "the copies can be read");
        let status = place.cli(&["status"]);
        assert_eq!((status.code, status.stdout.starts_with("Status:  not ready")), (6, true), "{status:?}");
        assert!(status.stdout.contains(" (cannot be looked into now)\n"), "{status:?}");
        assert!(!status.stdout.contains("Leases:"), "{status:?}");
        let dry = place.cli(&["repair", "--dry-run"]);
        assert_eq!((dry.code, dry.stdout.starts_with("would put the damaged ledger aside")), (4, true), "{dry:?}");
        assert_eq!(place.cli(&["pools"]).code, 6, "a dry run mends nothing");
        let mended = place.cli(&["repair", "--yes"]);
        assert_eq!(mended.code, 0, "{mended:?}");
        assert!(mended.stdout.starts_with("rebuilt the ledger with 3 leases; the old one is "), "{mended:?}");
        assert_eq!(place.leases(), before);
        let check = place.document(&["check"]);
        assert_eq!(check["items"][0]["kind"], "quarantined");
        let status = place.document(&["status"]);
        assert_eq!(
            (&status["items"][0]["ready"], status["items"][0]["reasons"].as_array().unwrap().len()),
            (&json!(true), 1)
        );
    });
}

/// Makes a database what it must not be.
type Spoil<'a> = &'a dyn Fn(&Path);

/// What the command says of each kind of ledger that it cannot use, and that it leaves it as it is.
#[test]
fn a_ledger_that_cannot_be_used_is_told_with_the_next_step() {
    sandbox::private_host(|| {
        let newer = |database: &Path| {
            let db = support::database(database);
            db.insert("mschema", &99_u32.to_be_bytes()).unwrap();
            db.flush().unwrap();
        };
        let somebodys = |database: &Path| {
            fs::remove_dir_all(database).unwrap();
            drop(sled::open(database).unwrap().insert("somebody's", "data").unwrap());
        };
        let cut_off = |database: &Path| {
            let file = fs::File::options().write(true).open(database.join("db")).unwrap();
            file.set_len(1000).unwrap();
        };
        let a_loop = |database: &Path| {
            fs::remove_dir_all(database).unwrap();
            std::os::unix::fs::symlink(database, database).unwrap();
        };
        let cases: [(Spoil<'_>, i32, &str); 4] = [
            (&newer, 1, "a newer podwire wrote the ledger: install that version again"),
            (&somebodys, 6, "or do it now with: ipam repair"),
            (&cut_off, 6, "or do it now with: ipam repair"),
            (&a_loop, 1, "cannot look into "),
        ];
        for (number, (spoil, code, next)) in cases.into_iter().enumerate() {
            let place = populated();
            let database = place.data_dir().join("ledger");
            spoil(&database);
            for command in [
                &["pools"][..],
                &["check"],
                &["export"],
                &["gc", "--apply", "--yes"],
                &["release", "10.1.2.2", "--yes"],
            ] {
                let told = place.cli(command);
                assert_eq!(told.code, code, "{number} {command:?}: {told:?}");
                assert!(told.stderr.contains(next), "{number} {command:?}: {told:?}");
            }
            assert!(fs::symlink_metadata(&database).is_ok(), "{number}: looking puts nothing aside");
            assert_eq!(place.ledger().quarantined().unwrap().len(), 0, "{number}");
        }
    });
}

/// Who may not look is not told that there is nothing.
#[test]
fn a_ledger_that_one_may_not_read_is_not_taken_for_none() {
    let place = populated();
    let program = place.data_dir().with_file_name("ipam");
    // Not by this process: whoever forks meanwhile would have it open for writing, and what is open so cannot be run.
    let copied = sandbox::command("cp").arg(env!("CARGO_BIN_EXE_ipam")).arg(&program).status().unwrap();
    assert!(copied.success());
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(program.parent().unwrap(), 0o755);
    mode(&program, 0o755);
    // Root may read everything, so root asks as somebody else; an ordinary user takes his own right away.
    let is_root = nix::unistd::geteuid().is_root();
    mode(&place.data_dir(), if is_root { 0o700 } else { 0 });
    let mut process = sandbox::command(&program);
    process.args(["pools", "--conf-dir", "/nowhere", "--dir"]).arg(place.data_dir());
    if is_root {
        process.uid(65534).gid(65534);
    }
    let told = process.output();
    mode(&place.data_dir(), 0o700);
    let told = told.unwrap();
    let said = String::from_utf8(told.stderr).unwrap();
    assert_eq!((told.status.code(), said.contains("run it as root")), (Some(8), true), "{said}");
    assert_eq!(place.leases().len(), 3);
}

/// What every command that changes something has.
#[test]
fn whatever_changes_something_can_be_tried_and_explained() {
    for command in ["gc", "release", "reserve", "unreserve", "import", "repair"] {
        let help = ipam(&[command, "--help"]).stdout;
        for option in ["--dry-run", "--yes", "--reason"] {
            assert!(help.contains(option), "{command} {option}");
        }
    }
}

/// Plugins at work make link and lease at the same time, and take them away again: what is wrong is wrong at the second
/// look, too. The second look waits for the lock here, and before it gets it the link is gone.
#[test]
fn verify_looks_twice_before_it_finds_something_wrong() {
    sandbox::private_host(|| {
        let place = populated();
        link("pw9", "red", "under-way", &["10.1.2.77/32"]);
        let open = || fs::File::open(place.data_dir().join("lock")).unwrap();
        let (first, second) = (open(), open());
        first.lock().unwrap();
        std::thread::scope(|scope| {
            let verify = scope.spawn(|| place.cli(&["verify"]));
            let until = |what: &str, done: &dyn Fn() -> bool| {
                let deadline = Instant::now() + Duration::from_secs(60);
                while !done() {
                    assert!(Instant::now() < deadline, "{what}");
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            until("it waits to look", &|| waiting_for(&first) == 1);
            let between = scope.spawn(|| second.lock().unwrap());
            until("it is followed", &|| waiting_for(&first) == 2);
            first.unlock().unwrap();
            between.join().unwrap();
            until("it waits to look again", &|| waiting_for(&second) == 1);
            assert!(sandbox::command("ip").args(["link", "del", "pw9"]).status().unwrap().success());
            second.unlock().unwrap();
            let told = verify.join().unwrap();
            assert_eq!((told.code, told.stdout.as_str()), (0, ""), "{told:?}");
        });
        link("pw9", "red", "forgotten", &["10.1.2.77/32"]);
        assert_eq!(place.cli(&["verify"]).code, 4, "wrong both times");
    });
}
