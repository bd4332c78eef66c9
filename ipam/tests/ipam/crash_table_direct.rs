//! Those windows of [`crate::crash_table`] that only whoever opens the database by himself can meet. With a resident owner
//!
//! - the plugin writes nothing that it could be killed at or that could fail (rows 1, 5, 19): the owner does, and
//!   the stress tests kill it and fill its disk;
//! - nobody waits for the lock (rows 11, 14): requests are carried out in the order in which the owner hears them;
//! - the owner's clock counts, and not that of the plugin's time namespace (row 20);
//! - there is a ledger already, which the owner has made or could not open (row 23, things that are no ledger).

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cni_spec::{CniError, ErrorCode};
use ipam::{Ledger, Origin};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::crash_table::{conf, containers, no_quarantine};
use crate::strace::killed_at;
use crate::support::{Answer, Place, database, ip, ips, until};

#[test]
fn row_01_killed_before_commit_nothing_is_stored() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "first", &plugin).addresses();
    assert!(killed_at(&place, "ADD", "c", &plugin, "flock", 1));
    assert_eq!(containers(&place), ["first"]);
    assert_eq!(place.run("ADD", "c", &plugin).addresses(), [ip("10.1.2.3")]);
}

#[test]
fn row_05_killed_while_writing_nothing_is_torn() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let mut kills = 0;
    while killed_at(&place, "ADD", "c", &plugin, "pwrite64", kills + 1) {
        kills += 1;
        assert!(place.run("DEL", "c", &plugin).success);
        assert_eq!(containers(&place), ["stays"], "killed at pwrite64 {kills}");
    }
    assert!(kills > 0, "nobody was killed while writing");
    no_quarantine(&place);
}

#[test]
fn row_11_a_del_before_its_add_leaves_nothing_to_leak() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let lock = fs::File::open(place.data_dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let orphan = place.spawn("ADD", "c", &plugin);
    // It has read its request, and waits: its thread is in flock(2), or about to be.
    let waits = || fs::read_to_string(format!("/proc/{}/status", orphan.id())).unwrap().contains("Threads:\t2");
    until("the ADD waits", waits);
    let mut impatient = plugin.clone();
    impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
    assert!(place.run("DEL", "c", &impatient).success, "it is written down");
    drop(lock);
    assert_eq!(Answer::of(&orphan.wait_with_output().unwrap()).error().0, 104);
    assert_eq!(containers(&place), ["stays"]);
}

/// Both wait, and it is the ADD's turn first; then it is others' turn for longer than the DEL can wait. The release that
/// it writes down is younger than the ADD, though older than the lease.
#[test]
fn row_11_a_del_that_waits_behind_its_add_ends_the_lease() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let lock = || fs::File::open(place.data_dir().join("lock")).unwrap();
    let first = lock();
    first.lock().unwrap();
    let add = place.spawn("ADD", "c", &plugin);
    until("1 wait", || waiting_for(&first) >= 1);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let others = lock();
            others.lock().unwrap();
            others
        });
        until("2 wait", || waiting_for(&first) >= 2);
        let mut impatient = plugin.clone();
        impatient["ipam"]["lockTimeoutSeconds"] = 5.into();
        let del = place.spawn("DEL", "c", &impatient);
        until("3 wait", || waiting_for(&first) >= 3);
        drop(first);
        assert_eq!(Answer::of(&add.wait_with_output().unwrap()).addresses(), [ip("10.1.2.3")]);
        let others = others.join().unwrap();
        assert!(Answer::of(&del.wait_with_output().unwrap()).success, "it is written down");
        assert_eq!(fs::read_dir(place.data_dir().join("pending-del")).unwrap().count(), 1);
        drop(others);
    });
    assert!(place.run("DEL", "unknown", &plugin).success);
    assert_eq!(containers(&place), ["stays"]);
}

/// How many processes wait in flock(2) for the file's lock (proc_locks(5)). The list comes a page at a time, and what is
/// locked between two of them may show one twice.
pub fn waiting_for(file: &fs::File) -> usize {
    let place = format!(":{} ", file.metadata().unwrap().ino());
    let (mut list, mut locks, mut page) = (fs::File::open("/proc/locks").unwrap(), Vec::new(), [0; 1 << 16]);
    while let count @ 1.. = list.read(&mut page).unwrap() {
        locks.extend_from_slice(&page[..count]);
    }
    let locks = String::from_utf8_lossy(&locks);
    let waiting = locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&place));
    waiting.filter_map(|line| line.split_whitespace().nth(5)).collect::<std::collections::BTreeSet<_>>().len()
}

/// Both wait, and it is the ADD's turn first: the list that GC brings is older than the lease, and cannot name it.
#[test]
fn row_14_gc_ends_no_lease_that_is_younger_than_itself() {
    let place = Place::new();
    let (red, blue) = (place.ipam("red", &conf()), place.ipam("blue", &conf()));
    red.lease(&place.request("red", "old")).unwrap();
    blue.lease(&place.request("blue", "other")).unwrap();
    let mut plugin = place.json("red", &conf());
    let lock = fs::File::open(place.data_dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let young = place.spawn("ADD", "young", &plugin);
    until("1 wait", || waiting_for(&lock) >= 1);
    plugin["cni.dev/valid-attachments"] = json!([]);
    let gc = place.spawn("GC", "", &plugin);
    until("2 wait", || waiting_for(&lock) >= 2);
    drop(lock);
    assert!(Answer::of(&young.wait_with_output().unwrap()).success);
    assert!(Answer::of(&gc.wait_with_output().unwrap()).success);
    assert_eq!(containers(&place), ["other", "young"]);
    assert!(place.run("GC", "", &plugin).success);
    assert_eq!(containers(&place), ["other"], "a list that is younger than the lease could have named it");
}

/// The plugin under strace(1), where a system call fails.
fn failing(place: &Place, command: &str, container: &str, conf: &Value, call: &str, errno: &str) -> Answer {
    let child = crate::strace::spawn_under_strace(
        place,
        command,
        container,
        conf,
        &format!("inject={call}:error={errno}"),
        call,
    );
    Answer::of(&child.wait_with_output().unwrap())
}

#[test]
fn row_19_what_cannot_be_written_is_not_answered() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let mut refused = 0;
    for (call, errno) in [("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("sync_file_range", "EIO"), ("rename", "EROFS")]
    {
        let context = format!("{errno} at {call}");
        let answer = failing(&place, "ADD", "c", &plugin, call, errno);
        if answer.success {
            // The call was not needed: the lease must stand.
            assert_eq!(containers(&place), ["c", "stays"], "{context}");
        } else {
            refused += 1;
            assert!([5, 11, 103].contains(&answer.error().0), "{context}: {answer:?}");
        }
        // Under the same fault; without names in folders, not even the wish can be written down.
        let deleted = if call == "rename" {
            place.run("DEL", "c", &plugin)
        } else {
            failing(&place, "DEL", "c", &plugin, call, errno)
        };
        assert!(deleted.success, "{context}: {deleted:?}");
        assert_eq!(containers(&place), ["stays"], "{context}");
    }
    assert!(refused > 1, "{refused} were refused");
}

#[test]
fn row_19_a_read_only_file_system_is_named() {
    sandbox::private_host(|| {
        let place = Place::new();
        let dir = Path::new("/run/disk");
        fs::create_dir(dir).unwrap();
        let nothing: Option<&str> = None;
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        let mut plugin = place.json("n", &conf());
        plugin["ipam"]["dataDir"] = json!(dir.join("ipam"));
        plugin["ipam"]["lockTimeoutSeconds"] = 2.into();
        place.run("ADD", "stays", &plugin).addresses();
        mount(nothing, dir, nothing, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, nothing).unwrap();
        let refused = place.run("ADD", "c", &plugin);
        assert_eq!(refused.error(), (5, "cannot lock the ledger with /run/disk/ipam/lock"));
        assert!(refused.json["details"].as_str().unwrap().contains("Read-only file system"), "{refused:?}");
        let status = place.run("STATUS", "", &plugin);
        assert!(status.error().0 == 50 && status.json.to_string().contains("Read-only file system"), "{status:?}");
    });
}

/// A disk as the kernel leaves it that has found an error on it: a release is written down where there is another.
#[test]
fn row_19_a_read_only_file_system_keeps_no_del_from_its_end() {
    sandbox::private_host(|| {
        let place = Place::new();
        let dir = Path::new("/run/disk");
        fs::create_dir(dir).unwrap();
        let nothing: Option<&str> = None;
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        let mut plugin = place.json("n", &json!({ "podCIDR": "10.1.2.0/30", "cooldownSeconds": 0 }));
        plugin["ipam"]["dataDir"] = json!(dir.join("ipam"));
        plugin["ipam"]["lockTimeoutSeconds"] = 2.into();
        assert_eq!(place.run("ADD", "c1", &plugin).addresses(), [ip("10.1.2.2")]);
        let read_only = |path: &str, is_so: bool| {
            let flags = if is_so { MsFlags::MS_RDONLY } else { MsFlags::empty() };
            mount(nothing, path, nothing, MsFlags::MS_REMOUNT | flags, nothing).unwrap();
        };
        read_only("/run/disk", true);
        // Nor is there anything else to write to.
        read_only("/run", true);
        let refused = place.run("DEL", "c1", &plugin);
        let (code, message) = refused.error();
        assert!(code == 11 && message.contains("/run/disk/ipam/pending-del/"), "{refused:?}");
        assert!(message.contains("nor in /run/podwire/pending-del: Read-only file system"), "{refused:?}");
        read_only("/run", false);
        // Of an attachment that nobody knows, too.
        for container in ["c1", "c1", "unknown"] {
            assert!(place.run("DEL", container, &plugin).success, "{container}");
        }
        assert!(Ledger::at(dir.join("ipam")).leases("test").is_err(), "its lock cannot be had");
        let told = |command: &str| crate::cli::ipam(&[command, "--dir", "/run/disk/ipam", "--conf-dir", "/nowhere"]);
        let status = told("status");
        assert!(status.stdout.starts_with("Status:  not ready"), "{status:?}");
        for waiting in ["n c1 eth0", "n unknown eth0"] {
            let text = format!("the release of {waiting} is still to be carried out");
            assert!(status.stdout.contains(&text), "{status:?}");
        }
        let listed = told("list");
        assert_eq!((listed.code, listed.stdout.contains("10.1.2.2")), (0, false), "as good as released: {listed:?}");
        read_only("/run/disk", false);
        let check = told("check");
        assert!(check.code == 4 && check.stdout.contains("pending-release"), "{check:?}");
        // By another way to the same ledger.
        std::os::unix::fs::symlink(dir, "/run/link").unwrap();
        plugin["ipam"]["dataDir"] = json!("/run/link/ipam");
        assert_eq!(place.run("ADD", "c2", &plugin).addresses(), [ip("10.1.2.2")], "the only one there is");
        let history = fs::read_to_string(dir.join("ipam/history.jsonl")).unwrap();
        assert_eq!(history.lines().count(), 3, "c1 was released once: {history}");
        assert_eq!(told("check").code, 0);
    });
}

/// A time namespace moves the clock that counts; the wall clock cannot be moved for one process, and is not looked at.
#[test]
fn row_20_cooling_goes_by_the_clock_that_does_not_jump() {
    sandbox::private_host(|| {
        let place = Place::new();
        let plugin = place.json("n", &json!({ "podCIDR": "10.1.2.0/30", "cooldownSeconds": 1000, "strict": true }));
        place.run("ADD", "c1", &plugin).addresses();
        assert!(place.run("DEL", "c1", &plugin).success);
        assert_eq!(place.run("ADD", "c2", &plugin).error().0, 100);
        let later = |seconds: u32| {
            let mut process = sandbox::command("unshare");
            process.args(["--time", "--boottime", &seconds.to_string(), "--fork", env!("CARGO_BIN_EXE_podwire-ipam")]);
            Answer::of(&place.feed(process, "ADD", "c2", &plugin).wait_with_output().unwrap())
        };
        assert_eq!(later(500).error().0, 100);
        assert_eq!(later(1500).addresses(), [ip("10.1.2.2")]);
    });
}

#[test]
fn row_23_a_newer_ledger_is_left_alone() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    {
        let db = database(&place.data_dir().join("ledger"));
        db.insert(b"mschema", &99_u32.to_be_bytes()).unwrap();
        db.flush().unwrap();
    }
    let refused = place.run("ADD", "c", &plugin);
    assert_eq!(refused.error().0, 11);
    let details = refused.json["details"].as_str().unwrap();
    assert!(details.contains("schema version 99, this program knows 1"), "{details}");
    assert!(details.contains("install that version again"), "{details}");
    assert!(place.run("DEL", "stays", &plugin).success, "it is written down");
    no_quarantine(&place);
    {
        let db = database(&place.data_dir().join("ledger"));
        db.insert(b"mschema", &1_u32.to_be_bytes()).unwrap();
        db.flush().unwrap();
    }
    assert_eq!(containers(&place), Vec::<String>::new(), "nothing was lost, and the release is due");
}

/// The error tells a crowd from one who is slow.
#[test]
fn row_24_whoever_waits_in_vain_learns_how_many_others_wait() {
    let place = Place::new();
    let mut plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let lock = fs::File::open(place.data_dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let patient: Vec<std::process::Child> =
        (0..7).map(|number| place.spawn("ADD", &format!("c{number}"), &plugin)).collect();
    until("7 wait", || waiting_for(&lock) >= 7);
    plugin["ipam"]["lockTimeoutSeconds"] = 1.into();
    let answer = place.run("ADD", "impatient", &plugin);
    assert!(answer.error().1.ends_with("; waited 1.0 s, as do 7 others"), "{answer:?}");
    drop(lock);
    patient.into_iter().for_each(|child| assert!(Answer::of(&child.wait_with_output().unwrap()).success));
}

/// Somebody else's database, and things that are no database at all.
#[test]
fn what_is_no_ledger_is_put_aside() {
    type Foreign = fn(&Path);
    let foreign: [Foreign; 3] = [
        |ledger| drop(sled::open(ledger).unwrap().insert("somebody's", "data").unwrap()),
        |ledger| fs::create_dir(ledger).unwrap(),
        |ledger| {
            fs::create_dir(ledger).unwrap();
            fs::write(ledger.join("db"), "#!/bin/sh\n").unwrap();
            fs::write(ledger.join("conf"), "nonsense").unwrap();
        },
    ];
    for (number, make) in foreign.into_iter().enumerate() {
        let place = Place::new();
        fs::create_dir(place.data_dir()).unwrap();
        make(&place.data_dir().join("ledger"));
        let lease = place.ipam("n", &conf()).lease(&place.request("n", "c")).unwrap();
        assert_eq!(ips(&lease), ["10.1.2.2"], "{number}");
        assert_eq!(place.leases()[0].origin, Origin::Add);
        assert_eq!(place.ledger().quarantined().unwrap().len(), 1, "{number}");
    }
}

#[test]
fn a_file_in_the_ledgers_place_is_named() {
    let place = Place::new();
    fs::write(place.data_dir(), "a file").unwrap();
    let plugin = place.json("n", &conf());
    let refused = place.run("ADD", "c", &plugin);
    let text = format!("cannot make the ledger's folder {}", place.data_dir().display());
    assert_eq!(refused.error(), (5, text.as_str()));
    assert_eq!(place.run("STATUS", "", &plugin).error().0, 50);
    let mut below = plugin.clone();
    below["ipam"]["dataDir"] = json!(place.data_dir().join("below/it"));
    assert_eq!([place.run("ADD", "c", &below).error().0, place.run("STATUS", "", &below).error().0], [5, 50]);
    assert!(place.run("DEL", "c", &plugin).success);
    assert!(place.run("DEL", "c", &below).success);
    assert_eq!(
        CniError::from(place.ipam("n", &conf()).lease(&place.request("n", "c")).unwrap_err()).code,
        ErrorCode::Io
    );
}

/// Nobody can tell whether there is a lease in what cannot be looked at: DEL does not say that there is none. Root may look
/// everywhere, so this asks as another user: one who is nobody's, in a user namespace within this one.
#[test]
fn a_ledger_that_may_not_be_read_is_not_taken_for_none() {
    sandbox::private_host(|| {
        let place = Place::new();
        let plugin = place.json("n", &conf());
        place.run("ADD", "stays", &plugin).addresses();
        let unprivileged = |command: &str| {
            let mut process = sandbox::command("unshare");
            process.args(["--user", "--map-user=1000", "--map-group=1000", "setpriv", "--bounding-set=-all"]);
            process.args(["--inh-caps=-all", "--ambient-caps=-all", env!("CARGO_BIN_EXE_podwire-ipam")]);
            Answer::of(&place.feed(process, command, "stays", &plugin).wait_with_output().unwrap())
        };
        let folder = place.data_dir();
        let mode = |path: &Path, mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // The folder above it cannot be passed: is there a ledger?
        mode(folder.parent().unwrap(), 0o000);
        let answers = ["ADD", "DEL", "STATUS"].map(unprivileged);
        mode(folder.parent().unwrap(), 0o700);
        for (answer, code) in answers.iter().zip([5, 11, 50]) {
            assert_eq!(answer.error().0, code, "{answer:?}");
            assert!(answer.json.to_string().contains("Permission denied"), "{answer:?}");
        }
        // The database cannot be read: it is not put aside for that.
        mode(&folder.join("ledger"), 0o000);
        let answers = ["ADD", "STATUS"].map(unprivileged);
        let deleted = unprivileged("DEL");
        mode(&folder.join("ledger"), 0o700);
        for (answer, code) in answers.iter().zip([5, 50]) {
            assert_eq!(answer.error().0, code, "{answer:?}");
            assert!(answer.json.to_string().contains("Permission denied"), "{answer:?}");
        }
        no_quarantine(&place);
        assert!(deleted.success, "it is written down: {deleted:?}");
        assert_eq!(containers(&place), Vec::<String>::new());
    });
}
