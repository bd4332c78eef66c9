//! Export and import, and taking over from host-local.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{ipam, populated};
use crate::support::{Place, attachment, ip};

fn export(place: &Place) -> PathBuf {
    let path = place.data_dir().join("export.jsonl");
    let printed = place.cli(&["export", "--file", path.to_str().unwrap()]);
    assert_eq!(printed.code, 0, "{printed:?}");
    path
}

#[test]
fn what_was_exported_is_imported_elsewhere_as_it_was() {
    sandbox::private_host(|| {
        let (here, there) = (populated(), Place::new());
        assert_eq!(here.cli(&["reserve", "10.1.2.64/28", "--reason", "lab", "--yes"]).code, 0);
        let path = export(&here);
        let import = ["import", path.to_str().unwrap(), "--yes"];
        let dry = there.document(&["import", path.to_str().unwrap(), "--dry-run"]);
        let actions: Vec<&Value> = dry["items"].as_array().unwrap().iter().map(|item| &item["action"]).collect();
        assert_eq!(actions, ["add"; 4]);
        assert!(crate::RESIDENT || !there.data_dir().exists(), "a dry run makes nothing");
        let imported = there.cli(&import);
        assert_eq!(
            (imported.code, imported.stdout.as_str()),
            (0, "imported 3 leases and 1 reservation, removed 0\n"),
            "{imported:?}"
        );
        assert_eq!(there.leases(), here.leases());
        there.assert_copied("import");
        let body = |place: &Place| {
            let text = place.cli(&["export"]).stdout;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines[1..lines.len() - 1].to_vec()
        };
        assert_eq!(body(&there), body(&here));
        let again = there.cli(&import);
        assert_eq!((again.code, again.stderr.contains("it is all there")), (0, true), "{again:?}");
    });
}

/// The exit code of `ipam import -`, as by `ssh node ipam export | ipam import -`; none if it goes on waiting.
fn imported_from_standard_input(there: &Place, input: &Path) -> Option<i32> {
    let (dir, nothing) = (there.data_dir(), there.data_dir().with_file_name("nothing"));
    let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    process.args(["import", "-", "--yes", "--create", "--timeout", "60"]).arg("--dir").arg(dir);
    process.arg("--conf-dir").arg(nothing).stdin(fs::File::open(input).unwrap());
    let mut process = process.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while process.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    process.wait().unwrap().code()
}

#[test]
fn an_export_is_read_from_standard_input() {
    sandbox::private_host(|| {
        let (here, there) = (populated(), Place::new());
        let garbage = here.data_dir().join("garbage");
        fs::write(&garbage, b"\xff\xfe\n").unwrap();
        assert_eq!(imported_from_standard_input(&there, &garbage), Some(6));
        assert_eq!(imported_from_standard_input(&there, &export(&here)), Some(0));
        assert_eq!(there.leases(), here.leases());
    });
}

#[test]
fn an_import_that_conflicts_changes_nothing() {
    sandbox::private_host(|| {
        let (here, there) = (populated(), Place::new());
        let path = export(&here);
        there.ipam("red", &json!({ "podCIDR": "10.1.2.0/24" })).lease(&there.request("red", "other")).unwrap();
        let before = there.leases();
        let refused = there.cli(&["import", path.to_str().unwrap(), "--yes"]);
        assert_eq!(refused.code, 7);
        assert!(refused.stderr.contains("held by red other eth0"), "{refused:?}");
        assert_eq!(there.leases(), before);
        let replace = ["import", path.to_str().unwrap(), "--yes", "--replace", "--reason", "restore"];
        let living = there.cli(&replace);
        assert_eq!(living.code, 7, "{living:?}");
        assert!(living.stderr.contains("not dead: 10.1.2.2 of container other"), "{living:?}");
        assert!(living.stderr.contains("nothing was imported: 1 pod would lose its lease; --force"), "{living:?}");
        assert_eq!(there.leases(), before);
        fs::remove_file(there.netns("other")).unwrap();
        let replaced = there.cli(&replace);
        assert_eq!(replaced.code, 0, "{replaced:?}");
        assert_eq!(there.leases(), here.leases());
        there.assert_copied("import --replace");
        let deeds = there.document(&["history", "--deeds"]);
        assert_eq!(deeds["items"][0]["reason"], "restore");
    });
}

#[test]
fn a_damaged_export_is_refused_whole() {
    sandbox::private_host(|| {
        let place = populated();
        let path = export(&place);
        let whole = fs::read_to_string(&path).unwrap();
        let there = Place::new();
        for (text, said) in [
            (whole[..whole.len() / 2].to_owned(), "is cut off"),
            (whole.replace("10.1.2.2/24", "10.1.2.9/24"), "was changed"),
            (whole.replace("podwire/v1", "podwire/v9"), "is an export of another version, ipam.podwire/v9"),
            ("hello\n".to_owned(), "is no export"),
            (String::new(), "is no export"),
        ] {
            fs::write(&path, text).unwrap();
            let refused = there.cli(&["import", path.to_str().unwrap(), "--yes"]);
            assert_eq!(refused.code, 6, "{refused:?}");
            assert!(refused.stderr.contains(said) && refused.stderr.contains("nothing was imported"), "{refused:?}");
        }
        assert_eq!(there.cli(&["import", "/nowhere"]).code, 1);
        assert!(there.leases().is_empty());
    });
}

/// host-local's folder of a network, as it leaves it, and a network config that names its pool.
fn host_local(place: &Place) -> (PathBuf, PathBuf) {
    let root = place.data_dir().with_file_name("networks");
    let network = root.join("podnet");
    fs::create_dir_all(&network).unwrap();
    for (name, text) in [
        ("10.1.2.2", "c1\r\neth0"),
        ("fd00::2", "c1\r\neth0"),
        ("10.1.2.3", "c2\r\neth0"),
        ("10.1.2.4", "c3"),
        ("last_reserved_ip.0", "10.1.2.4"),
        ("lock", ""),
    ] {
        fs::write(network.join(name), text).unwrap();
    }
    let conf_dir = place.data_dir().with_file_name("net.d");
    fs::create_dir_all(&conf_dir).unwrap();
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "fd00::/64" }]]);
    let list = json!({ "cniVersion": "1.0.0", "name": "podnet", "plugins": [
        { "type": "bridge", "ipam": { "type": "host-local", "ranges": ranges } },
    ] });
    fs::write(conf_dir.join("10-podnet.conflist"), list.to_string()).unwrap();
    (root, conf_dir)
}

#[test]
fn a_node_that_host_local_served_is_taken_over_without_touching_its_pods() {
    sandbox::private_host(|| {
        let place = Place::new();
        let (root, conf_dir) = host_local(&place);
        let (from, conf_dir) = (format!("host-local:{}", root.display()), conf_dir.display().to_string());
        let cache = place.data_dir().with_file_name("cache");
        fs::create_dir_all(cache.join("results")).unwrap();
        let cached = json!({ "kind": "cniCacheV1", "containerId": "c2", "ifName": "eth0", "networkName": "podnet",
            "config": BASE64.encode(b"{}"), "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "cart"]],
            "result": { "cniVersion": "1.0.0", "ips": [{ "address": "10.1.2.3/24" }] } });
        fs::write(cache.join("results/podnet-c2-eth0"), cached.to_string()).unwrap();
        let import = ["import", &from, "--conf-dir", &conf_dir, "--cache-dir", cache.to_str().unwrap()];
        let dry =
            place.cli(&[&import[..], &["--dry-run", "--columns", "action,address,pod,container,network"]].concat());
        let expected = "ACTION  ADDRESS           POD        CONTAINER  NETWORK\n\
                        add     10.1.2.2,fd00::2  -          c1         podnet\n\
                        add     10.1.2.3          shop/cart  c2         podnet\n\
                        add     10.1.2.4          -          c3         podnet\n";
        assert_eq!((dry.code, dry.stdout.as_str()), (0, expected), "{dry:?}");
        assert!(place.leases().is_empty());
        let imported = place.cli(&[&import[..], &["--yes"]].concat());
        assert_eq!(imported.code, 0, "{imported:?}");
        let shown = place.document(&["show", "10.1.2.2"]);
        let lease = &shown["items"][0]["lease"];
        assert_eq!(lease["origin"], "imported");
        assert_eq!(
            lease["addresses"][0],
            json!({ "address": "10.1.2.2/24", "gateway": "10.1.2.1", "pool": "10.1.2.1-10.1.2.254" })
        );
        // From now on our plugin serves the network: nobody gets what a pod of before has, and DEL ends it.
        let conf = place.json("podnet", &json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"] }));
        assert_eq!(place.run("ADD", "new", &conf).addresses(), [ip("10.1.2.5"), ip("fd00::3")]);
        assert_eq!(
            place.run("ADD", "c1", &conf).addresses(),
            [ip("10.1.2.2"), ip("fd00::2")],
            "an ADD that is sent again"
        );
        assert!(place.run("DEL", "c1", &conf).success);
        assert_eq!(place.leases().len(), 3);
        assert!(root.join("podnet/10.1.2.2").exists(), "host-local's files stay as they are");
    });
}

#[test]
fn garbage_of_host_local_is_named_and_not_passed_over() {
    sandbox::private_host(|| {
        let place = Place::new();
        let (root, conf_dir) = host_local(&place);
        let from = format!("host-local:{}", root.join("podnet").display());
        fs::write(root.join("podnet/10.1.2.7"), "../../etc/passwd\r\neth0").unwrap();
        fs::write(root.join("podnet/10.1.2.8"), "").unwrap();
        let import = ["import", &from, "--conf-dir", conf_dir.to_str().unwrap(), "--yes"];
        let refused = place.cli(&import);
        assert_eq!(refused.code, 6);
        for said in ["10.1.2.7: container id: ", "10.1.2.8: is empty", "nothing was imported", "--skip-garbage"] {
            assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        }
        assert!(place.leases().is_empty());
        assert_eq!(place.cli(&[&import[..], &["--skip-garbage"]].concat()).code, 0);
        assert_eq!(place.leases().len(), 3);
        assert_eq!(ipam(&["import", "host-local:/nowhere", "--yes"]).code, 1);
    });
}

/// Changes an export as somebody would who knows how it is sealed.
fn rewrite(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    let text = text.replace(from, to);
    let (body, _) = text.trim_end().rsplit_once('\n').unwrap();
    let body = format!("{body}\n");
    let sha256 = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(&body));
    let end = json!({ "kind": "End", "lines": body.lines().count(), "sha256": sha256 });
    fs::write(path, format!("{body}{end}\n")).unwrap();
}

/// The ledger's index has room for one holder of an address, once: it would take the second for damage.
#[test]
fn a_lease_that_holds_an_address_twice_is_refused() {
    sandbox::private_host(|| {
        let (here, there) = (populated(), Place::new());
        assert_eq!(here.cli(&["reserve", "10.1.2.64/28", "--reason", "lab", "--yes"]).code, 0);
        let path = export(&here);
        rewrite(&path, "fd00::3/64", "10.1.2.3/24");
        for how in ["--dry-run", "--yes"] {
            let refused = there.cli(&["import", path.to_str().unwrap(), how]);
            assert_eq!(refused.code, 7, "{refused:?}");
            let text = format!("{}{}", refused.stdout, refused.stderr);
            assert!(text.contains("holds 10.1.2.3 twice") && text.contains("nothing was imported: 1 of 4"), "{text}");
        }
        assert_eq!(there.cli(&["list", "--state", "all", "-q"]).stdout, "", "nor is anything of it reserved");
    });
}

#[test]
fn what_was_deleted_since_the_export_is_left_out() {
    sandbox::private_host(|| {
        let place = populated();
        let path = export(&place);
        let plain = attachment("blue", "plain");
        place.ledger().release(&plain).unwrap();
        let import = ["import", path.to_str().unwrap(), "--yes", "--columns", "action,address,why", "--no-headers"];
        let dry = place.cli(&["import", path.to_str().unwrap(), "--dry-run", "--columns", "action,container,why"]);
        assert!(dry.stdout.contains("skip    plain         was deleted since\n"), "{dry:?}");
        let imported = place.cli(&import);
        assert_eq!((imported.code, imported.stderr.contains("it is all there")), (0, true), "{imported:?}");
        assert!(place.leases().iter().all(|lease| lease.attachment != plain));
        let there = Place::new();
        assert_eq!(there.cli(&import).code, 0);
        assert_eq!(there.leases().len(), 3, "another ledger was told of no DEL");
    });
}

#[test]
fn leases_of_another_boot_are_left_out() {
    sandbox::private_host(|| {
        let place = populated();
        let path = export(&place);
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        rewrite(&path, boot_id.trim(), "00000000-0000-0000-0000-000000000000");
        let there = Place::new();
        let plan = there.document(&["import", path.to_str().unwrap(), "--dry-run"]);
        let whys: Vec<&Value> = plan["items"].as_array().unwrap().iter().map(|item| &item["why"]).collect();
        assert_eq!(whys, ["is of another boot: its pod is gone"; 3]);
        assert_eq!(there.cli(&["import", path.to_str().unwrap(), "--yes"]).code, 0);
        assert!(there.leases().is_empty());
        place.ledger().release(&attachment("red", "plain")).unwrap();
    });
}

/// A lease that stands and is in the import stays the one it is, so that whoever knows it by its name finds it.
#[test]
fn what_stands_already_is_not_replaced() {
    sandbox::private_host(|| {
        let place = Place::new();
        let (root, conf_dir) = host_local(&place);
        let from = format!("host-local:{}", root.display());
        let import = ["import", &from, "--conf-dir", conf_dir.to_str().unwrap(), "--yes"];
        assert_eq!(place.cli(&import).code, 0);
        let before = place.leases();
        assert_eq!(before.len(), 3);
        let again = place.cli(&[&import[..], &["--replace"]].concat());
        assert_eq!((again.code, again.stderr.contains("it is all there")), (0, true), "{again:?}");
        assert_eq!(place.leases(), before);
    });
}

/// Reservations that somebody made while the plan was looked at are heeded, and then nothing at all is imported.
#[test]
fn a_reservation_that_was_made_meanwhile_is_not_overlapped() {
    sandbox::private_host(|| {
        let (here, there) = (populated(), Place::new());
        assert_eq!(here.cli(&["reserve", "10.1.2.64/28", "--reason", "lab", "--yes"]).code, 0);
        let path = export(&here);
        let mut process = sandbox::command("script");
        // A terminal, which the command asks on.
        let line = format!(
            "{} import {} --create --dir {} --conf-dir /nowhere",
            env!("CARGO_BIN_EXE_ipam"),
            path.display(),
            there.data_dir().display()
        );
        process.args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::piped());
        let mut child = process.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut asked = String::new();
        let mut stdout = child.stdout.take().unwrap();
        while !asked.contains("[y/N]") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
            asked.push(char::from(byte[0]));
        }
        assert_eq!(there.cli(&["reserve", "10.1.2.72/29", "--reason", "meanwhile", "--yes"]).code, 0);
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"y\n").unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7), "{said}");
        assert!(said.contains("nothing was imported: 10.1.2.72/29 was reserved meanwhile: meanwhile"), "{said}");
        assert!(there.leases().is_empty());
        assert_eq!(there.cli(&["list", "--state", "reserved", "-q"]).stdout, "10.1.2.72/29\n");
    });
}
