//! Addresses that two lease: two ledgers, or this one and host-local before it.

use std::fs;
use std::path::PathBuf;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::support::{Place, attachment};

/// A folder with a config of each network.
fn conf_dir(place: &Place, confs: &[(&str, Value)]) -> PathBuf {
    let dir = place.data_dir().with_file_name("net.d");
    fs::create_dir_all(&dir).unwrap();
    for (network, ipam) in confs {
        fs::write(dir.join(format!("{network}.conf")), place.json(network, ipam).to_string()).unwrap();
    }
    dir
}

fn found(place: &Place, command: &str, options: &[&str]) -> Vec<String> {
    let document = place.document(&[&[command], options].concat());
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let items = document["items"].as_array().unwrap().iter();
    items.map(|item| format!("{} {} {}", text(&item["kind"]), text(&item["address"]), text(&item["subject"]))).collect()
}

#[test]
fn pools_of_two_ledgers_that_overlap_are_found() {
    sandbox::private_host(|| {
        let place = Place::new();
        let elsewhere = place.data_dir().with_file_name("elsewhere");
        let red = json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"] });
        let dir = conf_dir(
            &place,
            &[
                ("red", red),
                ("blue", json!({ "subnet": "10.1.2.128/25", "dataDir": elsewhere })),
                ("green", json!({ "subnet": "10.1.2.0/24" })),
                ("grey", json!({ "subnet": "10.7.0.0/24", "dataDir": elsewhere })),
            ],
        );
        let options = ["--conf-dir", dir.to_str().unwrap()];
        let expected = ["overlap 10.1.2.130 network blue", "overlap 10.1.2.130 network blue"];
        assert_eq!(found(&place, "check", &options), expected, "red and green share a ledger");
        let status = place.cli(&["status", options[0], options[1]]);
        assert_eq!((status.code, status.stdout.contains("their ledgers, in ")), (4, true), "{status:?}");
    });
}

/// host-local went on leasing between the import and the change of the config.
#[test]
fn what_host_local_leased_after_the_import_is_found() {
    sandbox::private_host(|| {
        let place = Place::new();
        let folder = std::path::Path::new("/var/lib/cni/networks/podnet");
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("10.1.2.2"), "before\r\neth0").unwrap();
        fs::write(folder.join("lock"), "").unwrap();
        assert_eq!(place.cli(&["import", "host-local:", "--yes"]).code, 0);
        fs::write(folder.join("10.1.2.3"), "meanwhile\r\neth0").unwrap();
        let dir = conf_dir(&place, &[("podnet", json!({ "subnet": "10.1.2.0/24" }))]);
        let cache = place.data_dir().with_file_name("results");
        fs::create_dir_all(&cache).unwrap();
        let cached = json!({ "kind": "cniCacheV1", "containerId": "meanwhile", "ifName": "eth0", "networkName": "podnet",
            "config": BASE64.encode(b"{\"ipam\":{\"type\":\"host-local\"}}"),
            "result": { "cniVersion": "1.0.0", "ips": [{ "address": "10.1.2.3/24" }] } });
        fs::write(cache.join("podnet-meanwhile-eth0"), cached.to_string()).unwrap();
        let options = ["--conf-dir", dir.to_str().unwrap()];
        assert_eq!(found(&place, "check", &options), ["held-by-host-local 10.1.2.3 podnet meanwhile eth0"]);
        let verify = [&options[..], &["--cache-dir", cache.to_str().unwrap()]].concat();
        let expected = ["unknown-to-ledger 10.1.2.3 podnet meanwhile eth0"];
        assert!(found(&place, "verify", &verify).contains(&expected[0].to_owned()));
        // As the finding says.
        assert_eq!(place.cli(&["import", "host-local:", "--yes"]).code, 0);
        assert_eq!(found(&place, "check", &options), [""; 0]);
        // What our DEL has ended leaves host-local's file behind, which means nothing any more.
        place.ledger().release(&attachment("podnet", "meanwhile")).unwrap();
        assert_eq!(found(&place, "check", &options), [""; 0]);
    });
}

#[test]
fn host_local_s_own_lock_is_waited_for() {
    sandbox::private_host(|| {
        let place = Place::new();
        let folder = place.data_dir().with_file_name("podnet");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("10.1.2.2"), "c1\r\neth0").unwrap();
        let lock = fs::File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let from = format!("host-local:{}", folder.display());
        let dir = place.data_dir();
        let import = ["import", &from, "--yes", "--create", "--dir", dir.to_str().unwrap(), "--timeout"];
        let busy = super::ipam(&[&import[..], &["0"]].concat());
        assert_eq!((busy.code, busy.stderr.contains("host-local is at work")), (5, true), "{busy:?}");
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| super::ipam(&[&import[..], &["60"]].concat()));
            drop(lock);
            waiting.join().unwrap()
        });
        assert_eq!(waiting.code, 0, "{waiting:?}");
        assert_eq!(place.leases().len(), 1);
    });
}
