//! Every window in which a process, a machine or a person can spoil a ledger, by number, and what must come of it. Some
//! of them are looked at from more sides in the other files.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Child;

use cni_spec::{CniError, CniResult, ValidAttachment, ValidAttachments};
use ipam::{Ipam, Ledger, Released, code};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use crate::strace::killed_at;
use crate::support::{Answer, Place, attachment, holders, ip, ips, net_conf};

pub fn conf() -> Value {
    json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 })
}

pub fn containers(place: &Place) -> Vec<String> {
    let mut all: Vec<String> = holders(&place.leases()).into_values().collect();
    all.sort();
    all
}

pub fn no_quarantine(place: &Place) {
    assert_eq!(place.ledger().quarantined().unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn row_02_killed_between_commit_and_print_the_lease_goes_with_del_or_gc() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let mut met = 0;
    for nth in 1.. {
        if !killed_at(&place, "ADD", "c", &plugin, "write", nth) {
            break;
        }
        if containers(&place) == ["c", "stays"] {
            met += 1;
            if met % 2 == 0 {
                assert!(place.run("DEL", "c", &plugin).success);
            } else {
                let stays = ValidAttachment { container_id: "stays".parse().unwrap(), ifname: "eth0".parse().unwrap() };
                place.ledger().gc(&"n".parse().unwrap(), &ValidAttachments([stays].into())).unwrap();
            }
        }
        assert_eq!(containers(&place), ["stays"], "killed at write {nth}");
    }
    assert!(met > 0, "nobody was killed between commit and print");
}

#[test]
fn row_03_a_main_plugin_that_fails_afterwards_gives_back_what_it_got() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let lease = ipam.lease(&place.request("n", "c")).unwrap();
    ipam.undo(&lease).unwrap();
    assert_eq!(containers(&place), Vec::<String>::new());
    // Killed before it could: the runtime's DEL does it, without a namespace.
    ipam.lease(&place.request("n", "c")).unwrap();
    fs::remove_file(place.netns("c")).unwrap();
    assert!(place.run("DEL", "c", &place.json("n", &conf())).success);
    assert_eq!(containers(&place), Vec::<String>::new());
}

#[test]
fn row_04_killed_while_opening_leaves_no_brick() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    for name in ["snap.0000000000000001.generating", "snap.FFFFFFFFFFFFFFFF.generating"] {
        place.undisturbed(|| fs::write(place.data_dir().join("ledger").join(name), "half a snapshot").unwrap());
        assert!(place.run("ADD", "c", &plugin).success);
        assert!(place.run("DEL", "c", &plugin).success);
        assert_eq!(containers(&place), ["stays"]);
    }
    no_quarantine(&place);
}

/// What a loss of power leaves of a ledger on a disk: files that are shorter, empty, or full of zeroes.
#[test]
fn row_06_after_a_loss_of_power_no_address_is_given_twice() {
    type Loss = fn(&Path);
    let losses: [Loss; 4] = [
        |ledger| OpenOptions::new().write(true).open(ledger.join("db")).unwrap().set_len(0).unwrap(),
        |ledger| OpenOptions::new().write(true).open(ledger.join("conf")).unwrap().set_len(0).unwrap(),
        |ledger| {
            let db = fs::read(ledger.join("db")).unwrap();
            let half = db.len() / 2;
            fs::write(ledger.join("db"), [&db[..half], &vec![0; db.len() - half]].concat()).unwrap();
        },
        |ledger| {
            for entry in fs::read_dir(ledger).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().starts_with("snap.") {
                    fs::write(entry.path(), "").unwrap();
                }
            }
        },
    ];
    for (number, loss) in losses.into_iter().enumerate() {
        let place = Place::new();
        let ipam = place.ipam("n", &conf());
        let first = ipam.lease(&place.request("n", "c1")).unwrap();
        ipam.lease(&place.request("n", "c2")).unwrap();
        ipam.release(&attachment("n", "c2")).unwrap();
        place.undisturbed(|| loss(&place.data_dir().join("ledger")));
        ipam.lease(&place.request("n", "c3")).unwrap();
        assert_eq!(containers(&place), ["c1", "c3"], "loss {number}");
        assert_eq!(ipam.lease(&place.request("n", "c1")).unwrap().lease_id, first.lease_id, "loss {number}");
        assert!(matches!(ipam.release(&attachment("n", "c3")).unwrap(), Released::Lease(_)), "loss {number}");
    }
}

/// Another boot, as far as anybody can tell.
fn reboot(number: u8) {
    let boot_id = format!("/run/boot_id.{number}");
    fs::write(&boot_id, format!("00000000-0000-0000-0000-00000000000{number}\n")).unwrap();
    let nothing: Option<&str> = None;
    mount(Some(boot_id.as_str()), "/proc/sys/kernel/random/boot_id", nothing, MsFlags::MS_BIND, nothing).unwrap();
}

#[test]
fn row_07_a_boot_voids_the_leases_of_a_ledger_on_disk() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ipam = place.ipam("n", &json!({ "podCIDR": "10.1.2.0/30", "cooldownSeconds": 3600, "sticky": true }));
        let mut request = place.request("n", "before");
        request.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0".parse().unwrap();
        let before = ipam.lease(&request).unwrap();
        place.undisturbed(|| reboot(1));
        assert_eq!(place.leases(), [], "looking is enough to see it");
        ipam.status().unwrap();
        let mut request = ipam::LeaseRequest { args: request.args, ..place.request("n", "after") };
        assert_eq!(ips(&ipam.lease(&request).unwrap()), ips(&before), "a sticky pod has its address again");
        place.undisturbed(|| reboot(2));
        request.args = cni_spec::CniArgs::default();
        assert_eq!(ips(&ipam.lease(&request).unwrap()), ips(&before), "and so has anybody, if it is the only one");
        place.assert_copied("the boot");
        let history = fs::read_to_string(place.data_dir().join("history.jsonl")).unwrap();
        assert_eq!(history.matches("\"event\":\"voided\"").count(), 2);
    });
}

#[test]
fn row_08_a_del_from_before_the_boot_frees_no_new_owners_address() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ipam = place.ipam("n", &conf());
        let before = ipam.lease(&place.request("n", "before")).unwrap();
        place.undisturbed(|| reboot(1));
        let after = ipam.lease(&place.request("n", "after")).unwrap();
        assert_eq!(ips(&after), ips(&before));
        assert!(place.run("DEL", "before", &place.json("n", &conf())).success);
        ipam.undo(&before).unwrap();
        assert_eq!(containers(&place), ["after"]);
    });
}

#[test]
fn row_09_add_again_gives_the_same_and_another_namespace_something_new() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    let first = place.run("ADD", "c", &plugin);
    assert_eq!(place.run("ADD", "c", &plugin).json, first.json);
    fs::remove_file(place.netns("c")).unwrap();
    place.run("ADD", "other", &plugin).addresses();
    place.run("ADD", "c", &plugin).addresses();
    assert_eq!(containers(&place), ["c", "other"], "the old lease has ended");
}

#[test]
fn row_10_del_again_succeeds_and_leaves_no_trace() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "c", &plugin).addresses();
    for _ in 0..3 {
        assert!(place.run("DEL", "c", &plugin).success);
    }
    let history = fs::read_to_string(place.data_dir().join("history.jsonl")).unwrap();
    assert_eq!(history.lines().count(), 2, "{history}");
}

#[test]
fn row_12_add_and_del_at_once_leave_a_whole_lease_or_none() {
    let place = Place::new();
    let plugin = place.json("n", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"], "cooldownSeconds": 0 }));
    for round in 0..8 {
        let verbs = if round % 2 == 0 { ["ADD", "DEL"] } else { ["DEL", "ADD"] };
        let both: Vec<Child> = verbs.iter().map(|verb| place.spawn(verb, "c", &plugin)).collect();
        for child in both {
            let answer = Answer::of(&child.wait_with_output().unwrap());
            assert!(answer.success || answer.error().0 == 104, "{answer:?}");
        }
        assert!([0, 2].contains(&holders(&place.leases()).len()));
        place.assert_copied("both");
        assert!(place.run("DEL", "c", &plugin).success);
        assert_eq!(place.leases(), []);
    }
}

#[test]
fn row_13_a_ledger_that_cannot_be_had_keeps_no_del_from_its_end() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "c", &plugin).addresses();
    let mut impatient = plugin.clone();
    impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
    place.while_held(|_| assert!(place.run("DEL", "c", &impatient).success));
    assert_eq!(containers(&place), Vec::<String>::new());
    let leased = place.run("ADD", "c", &plugin);
    assert!(leased.success, "{leased:?}");
    assert_eq!(fs::read_dir(place.data_dir().join("pending-del")).unwrap().count(), 0);
}

/// Where not even a file can be written beside it, as on a disk that has become read-only: the lock cannot be had there,
/// and an owner that has the database open cannot change it.
#[test]
fn row_13_a_ledger_where_nothing_can_be_written_keeps_no_del_from_its_end() {
    sandbox::private_host(|| {
        let place = Place::new();
        let plugin = place.json("n", &conf());
        place.run("ADD", "stays", &plugin).addresses();
        let mut impatient = plugin.clone();
        impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
        let (dir, nothing): (_, Option<&str>) = (place.data_dir(), None);
        let released_there = |conf: &Value| {
            mount(Some(&dir), &dir, nothing, MsFlags::MS_BIND, nothing).unwrap();
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(nothing, &dir, nothing, read_only, nothing).unwrap();
            assert!(place.run("DEL", "c", conf).success);
            assert!(!dir.join("pending-del").exists());
            umount(&dir).unwrap();
        };
        for is_held in [false, true] {
            place.run("ADD", "c", &plugin).addresses();
            if is_held {
                place.while_held(|_| released_there(&impatient));
            } else {
                released_there(&plugin);
            }
            assert_eq!(containers(&place), ["stays"], "it is as good as released");
            let check = place.cli(&["check", "--columns", "kind,problem", "--no-headers"]).stdout;
            assert_eq!(check, "pending-release  the release of n c eth0 is still to be carried out\n");
        }
        place.run("ADD", "c", &plugin).addresses();
        assert_eq!(containers(&place), ["c", "stays"]);
        assert_eq!(place.cli(&["check"]).code, 0, "nothing waits any more");
    });
}

#[test]
fn row_15_gc_tells_a_missing_list_from_an_empty_one() {
    let place = Place::new();
    let mut plugin = place.json("n", &conf());
    let collected = |plugin: &Value| place.run("GC", "", plugin);
    place.run("ADD", "c", &plugin).addresses();
    let (code, message) = {
        let answer = collected(&plugin);
        (answer.error().0, answer.error().1.to_owned())
    };
    assert_eq!((code, message.contains("cni.dev/valid-attachments is missing")), (7, true), "{message}");
    assert_eq!(containers(&place), ["c"]);
    plugin["cni.dev/valid-attachments"] = json!([{ "containerID": "c", "ifname": "eth0" }]);
    assert!(collected(&plugin).success);
    assert_eq!(containers(&place), ["c"]);
    plugin["cni.dev/valid-attachments"] = json!([{ "containerID": 7 }]);
    assert_eq!(collected(&plugin).error().0, 7, "an entry that cannot be read may be a living pod");
    assert_eq!(containers(&place), ["c"]);
    // An empty list, as JSON writers of Go spell it, too.
    for empty in [json!([]), Value::Null] {
        plugin["cni.dev/valid-attachments"] = empty;
        assert!(collected(&plugin).success);
        assert_eq!(containers(&place), Vec::<String>::new());
        let mut add = plugin.clone();
        add.as_object_mut().unwrap().remove("cni.dev/valid-attachments");
        place.run("ADD", "c", &add).addresses();
    }
}

#[test]
fn row_16_a_family_that_fails_leaves_nothing_of_the_other() {
    let place = Place::new();
    let ipam = place.ipam("n", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::4/128"] }));
    ipam.lease(&place.request("n", "c1")).unwrap();
    let before = place.leases();
    assert_eq!(ipam.lease(&place.request("n", "c2")).unwrap_err().code(), code::EXHAUSTED);
    assert_eq!(place.leases(), before);
    place.assert_copied("the failure");
}

#[test]
fn row_17_del_does_not_look_at_the_pools() {
    let place = Place::new();
    let mut plugin = place.json("n", &conf());
    place.run("ADD", "c", &plugin).addresses();
    for ipam in [json!("10.9.0.0/24"), json!("nonsense"), json!(7)] {
        plugin["ipam"]["podCIDR"] = ipam;
        assert!(place.run("DEL", "c", &plugin).success);
        assert_eq!(containers(&place), Vec::<String>::new());
        place.run("ADD", "c", &place.json("n", &conf())).addresses();
    }
}

#[test]
fn row_18_leases_outside_the_pools_stand_and_new_ones_come_from_the_pools() {
    let place = Place::new();
    let old = place.ipam("n", &conf()).lease(&place.request("n", "old")).unwrap();
    let ipam = place.ipam("n", &json!({ "podCIDR": "10.9.0.0/24" }));
    assert_eq!(ips(&ipam.lease(&place.request("n", "new")).unwrap()), ["10.9.0.2"]);
    ipam.check(&old.attachment, &CniResult::from(&old)).unwrap();
    ipam.status().unwrap();
    assert_eq!(containers(&place), ["new", "old"]);
}

#[test]
fn row_21_networks_that_share_a_range_share_no_address() {
    let place = Place::new();
    let (red, blue) = (place.ipam("red", &conf()), place.ipam("blue", &conf()));
    for container in ["c1", "c2", "c3"] {
        red.lease(&place.request("red", container)).unwrap();
        blue.lease(&place.request("blue", container)).unwrap();
    }
    assert_eq!(holders(&place.leases()).len(), 6);
}

#[test]
fn row_22_another_folder_is_another_ledger_and_says_which() {
    let (one, other) = (Place::new(), Place::new());
    one.ipam("n", &conf()).lease(&one.request("n", "c")).unwrap();
    assert_eq!(other.leases(), []);
    let mut plugin = other.json("n", &conf());
    plugin["ipam"]["dataDir"] = json!("relative/path");
    let error = CniError::from(Ipam::from_config(&net_conf(&plugin)).unwrap_err());
    assert_eq!(error.msg, "invalid network config: ipam.dataDir=\"relative/path\" is not an absolute path");
}

#[test]
fn row_24_whoever_waits_in_vain_learns_for_whom() {
    let place = Place::new();
    let mut plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    plugin["ipam"]["lockTimeoutSeconds"] = 1.into();
    place.while_held(|holder| {
        let children: Vec<Child> = (0..20).map(|number| place.spawn("ADD", &format!("c{number}"), &plugin)).collect();
        for child in children {
            let answer = Answer::of(&child.wait_with_output().unwrap());
            let (code, message) = answer.error();
            assert!(code == 11 && message.contains(&format!("held by pid {holder} (")), "{code} {message}");
        }
    });
    assert_eq!(containers(&place), ["stays"]);
}

#[test]
fn a_ledger_behind_a_symbolic_link_is_that_ledger() {
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    let lease = ipam.lease(&place.request("n", "c")).unwrap();
    let link = place.data_dir().with_file_name("link");
    std::os::unix::fs::symlink(place.data_dir(), &link).unwrap();
    assert_eq!(Ledger::at(&link).leases("test").unwrap().unwrap()[0].lease_id, lease.lease_id);
    let mut plugin = place.json("n", &conf());
    plugin["ipam"]["dataDir"] = json!(link);
    assert_eq!(place.run("ADD", "d", &plugin).addresses(), [ip("10.1.2.3")]);
    // A link to nowhere: an error that names it, and nothing is made behind it.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/nonexistent/ledger", &link).unwrap();
    let refused = place.run("ADD", "e", &plugin);
    assert_eq!(refused.error(), (5, format!("cannot make the ledger's folder {}", link.display()).as_str()));
    assert!(place.run("DEL", "e", &plugin).success);
}

/// A path may be any bytes; what is stored is text.
#[test]
fn a_namespace_whose_path_is_no_text_is_refused_and_no_damage() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let ipam = place.ipam("n", &conf());
    ipam.lease(&place.request("n", "stays")).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/run/netns/\xff"));
    let request = ipam::LeaseRequest { netns: ipam::Netns::at(path), ..place.request("n", "c") };
    let refused = ipam.lease(&request).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        (
            cni_spec::ErrorCode::InvalidEnvironment,
            "CNI_NETNS=\"/run/netns/\\xFF\" is not UTF-8, as the ledger's text must be"
        )
    );
    assert_eq!(containers(&place), ["stays"]);
    no_quarantine(&place);
}

/// Names that are none are refused before anything is looked at; names of any length and look leave nothing behind.
#[test]
fn hostile_container_ids_do_no_harm() {
    let place = Place::new();
    let plugin = place.json("n", &conf());
    place.run("ADD", "stays", &plugin).addresses();
    let run = |verb: &str, container: &str, conf: &Value| {
        let mut process = sandbox::command(env!("CARGO_BIN_EXE_podwire-ipam"));
        process.envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")]);
        process.env("CNI_PATH", "/opt/cni/bin").env("CNI_NETNS", place.netns("any"));
        Answer::of(&place.send(process, conf).wait_with_output().unwrap())
    };
    for container in ["", "../../etc/passwd", "a b", "a\nb", "-x", ".hidden", "\u{e9}", "a/b", "a\u{1b}[31m"] {
        for verb in ["ADD", "DEL"] {
            let answer = run(verb, container, &plugin);
            assert_eq!(answer.error().0, 4, "{verb} {container:?}: {answer:?}");
        }
    }
    let long = "x".repeat(4000);
    for container in [long.as_str(), "a..", "a.json", "0", "ledger.new"] {
        assert!(run("ADD", container, &plugin).success, "{container}");
        let mut impatient = plugin.clone();
        impatient["ipam"]["lockTimeoutSeconds"] = 0.into();
        place.while_held(|_| assert!(run("DEL", container, &impatient).success, "{container}"));
        assert!(place.run("DEL", "unknown", &plugin).success);
        assert_eq!(containers(&place), ["stays"], "{container}");
    }
    place.assert_copied("all of them");
}
