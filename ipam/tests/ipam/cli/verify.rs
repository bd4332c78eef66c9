//! The ledger against the node.

use std::fs;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::populated;
use crate::support::{Place, ip};

fn run(words: &str) {
    let mut words = words.split_whitespace();
    let output = sandbox::command(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A host link as podwire makes it, for an attachment of container and network, with a route to each address.
pub fn link(name: &str, network: &str, container: &str, addresses: &[&str]) {
    run(&format!("ip link add {name} type veth peer name {name}p"));
    let alias = format!("podwire {network} {container} eth0");
    let output = sandbox::command("ip").args(["link", "set", name, "alias", &alias, "up"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    run(&format!("ip link set {name}p up"));
    for address in addresses {
        run(&format!("ip route replace {address} dev {name} proto 112"));
    }
}

/// What `verify` finds, as "kind address".
fn verify(place: &Place, cache: Option<&std::path::Path>) -> Vec<String> {
    // The private host has none by default.
    let option = cache.map_or(vec![], |cache| vec!["--cache-dir", cache.to_str().unwrap()]);
    let found = place.document(&[&["verify"][..], &option].concat());
    let items = found["items"].as_array().unwrap();
    for item in items {
        assert!(!item["fix"].as_str().unwrap().is_empty() && !item["problem"].as_str().unwrap().is_empty(), "{item:#}");
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    items.iter().map(|item| format!("{} {}", text(&item["kind"]), text(&item["address"]))).collect()
}

const CART: &str = "0a1b2c3d4e5f60718293";

/// All three pods have their links and routes.
fn live() -> Place {
    let place = populated();
    link("pw0", "red", CART, &["10.1.2.2/32", "fd00::2/128"]);
    link("pw1", "red", "1b2c3d4e", &["10.1.2.3/32", "fd00::3/128"]);
    link("pw2", "blue", "plain", &["10.9.0.2/32"]);
    place
}

#[test]
fn a_ledger_and_a_node_that_agree_are_sound() {
    sandbox::private_host(|| {
        let place = live();
        assert_eq!(verify(&place, None), [""; 0]);
        let said = place.cli(&["verify"]);
        assert_eq!((said.code, said.stdout.as_str()), (0, ""));
        assert!(said.stderr.contains("ledger and node agree: 3 leases, 3 links"), "{said:?}");
    });
}

#[test]
fn links_and_routes_that_differ_are_found() {
    sandbox::private_host(|| {
        let place = live();
        run("ip route del 10.1.2.3 dev pw1");
        run("ip route replace 10.9.0.2 dev pw0 proto 112");
        assert_eq!(verify(&place, None), ["wrong-route 10.9.0.2", "missing-route 10.1.2.3"]);
        run("ip route replace 10.1.2.3 dev pw1 proto 112");
        run("ip route replace 10.9.0.2 dev pw2 proto 112");
        link("pw3", "red", "stranger", &["10.1.2.77/32"]);
        run("ip route add 10.1.2.2 dev pw3 proto 112 metric 7");
        assert_eq!(verify(&place, None), ["duplicate 10.1.2.2", "unknown-to-ledger 10.1.2.77"]);
        let dry = place.cli(&["repair", "--from-kernel", "--dry-run"]);
        assert_eq!(dry.code, 4, "{dry:?}");
        assert!(dry.stdout.contains("would lease 10.1.2.77 of container stranger"), "{dry:?}");
        assert_eq!(place.cli(&["repair", "--from-kernel", "--yes"]).code, 0);
        assert_eq!(verify(&place, None), ["duplicate 10.1.2.2"]);
        assert_eq!(place.cli(&["show", "10.1.2.77"]).code, 0);
    });
}

#[test]
fn a_link_without_addresses_needs_no_lease() {
    sandbox::private_host(|| {
        let place = live();
        link("pw3", "wire", "stranger", &[]);
        assert_eq!(verify(&place, None), [""; 0]);
        run("ip route add 10.1.2.77 dev pw3 proto 112");
        assert_eq!(verify(&place, None), ["unknown-to-ledger 10.1.2.77"]);
    });
}

/// A plugin before or behind it in the chain may have given one.
#[test]
fn an_address_that_another_plugin_gave_to_a_link_needs_no_lease() {
    sandbox::private_host(|| {
        let place = live();
        let cache = place.data_dir().with_file_name("results");
        fs::create_dir_all(&cache).unwrap();
        link("pw3", "wire", "stranger", &[]);
        for (main, expected) in [
            (json!({ "type": "podwire" }), &[][..]),
            (json!({ "type": "podwire", "ipam": { "type": "podwire-ipam" } }), &["unknown-to-ledger 10.9.0.1"]),
        ] {
            let config = json!({ "plugins": [main, { "type": "of-another" }] }).to_string();
            let kept = json!({ "kind": "cniCacheV1", "containerId": "stranger", "ifName": "eth0", "networkName": "wire",
                "config": BASE64.encode(config.as_bytes()),
                "result": { "cniVersion": "1.0.0", "ips": [{ "address": "10.9.0.1/24", "interface": 1 }] } });
            fs::write(cache.join("wire-stranger-eth0"), kept.to_string()).unwrap();
            let found = verify(&place, Some(&cache));
            let of_stranger: Vec<&str> =
                found.iter().map(String::as_str).filter(|it| it.starts_with("unknown-to-ledger")).collect();
            assert_eq!(of_stranger, expected, "{found:?}");
        }
        // Two views show it; it is one pod, and is told once.
        run("ip route add 10.9.0.1 dev pw3 proto 112");
        let found = place.document(&["verify", "--cache-dir", cache.to_str().unwrap()]);
        let of_stranger = found["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["kind"] == "unknown-to-ledger")
            .collect::<Vec<_>>();
        assert_eq!(of_stranger.len(), 1, "{found:#}");
        assert_eq!((&of_stranger[0]["address"], &of_stranger[0]["runtime"]), (&json!("10.9.0.1"), &json!("10.9.0.1")));
        assert_eq!(of_stranger[0]["fix"], "ipam repair --from-kernel");
    });
}

/// A pod from before a move from host-local, whose link has lost its routes.
#[test]
fn an_unleased_pod_is_told_by_its_result_where_its_link_says_nothing() {
    sandbox::private_host(|| {
        let place = live();
        let [cache, conf_dir] = ["results", "net.d"].map(|name| place.data_dir().with_file_name(name));
        for dir in [&cache, &conf_dir] {
            fs::create_dir_all(dir).unwrap();
        }
        let conf = place.json("moved", &json!({ "podCIDR": "10.9.1.0/24" }));
        fs::write(conf_dir.join("10-moved.conf"), conf.to_string()).unwrap();
        link("pw3", "moved", "stranger", &[]);
        let before = json!({ "type": "podwire", "ipam": { "type": "host-local" } }).to_string();
        let kept = json!({ "kind": "cniCacheV1", "containerId": "stranger", "ifName": "eth0", "networkName": "moved",
            "config": BASE64.encode(before.as_bytes()),
            "result": { "cniVersion": "1.0.0", "ips": [{ "address": "10.9.1.5/24" }] } });
        fs::write(cache.join("moved-stranger-eth0"), kept.to_string()).unwrap();
        let options = ["verify", "--cache-dir", cache.to_str().unwrap(), "--conf-dir", conf_dir.to_str().unwrap()];
        let fixes = || {
            let found = place.document(&options);
            let items = found["items"].as_array().unwrap();
            let unknown = items.iter().filter(|it| it["kind"] == "unknown-to-ledger" && it["address"] == "10.9.1.5");
            unknown.map(|it| it["fix"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let by_result = fixes();
        assert_eq!(by_result.len(), 1, "{by_result:?}");
        assert!(by_result[0].starts_with("if the pod runs: ipam import host-local:, once more; "), "{by_result:?}");
        run("ip route add 10.9.1.5 dev pw3 proto 112");
        assert_eq!(fixes(), ["ipam repair --from-kernel"]);
    });
}

/// A slip would look like a runtime that has no pods.
#[test]
fn a_cache_folder_that_is_not_there_is_an_error() {
    sandbox::private_host(|| {
        let place = live();
        let dir = place.data_dir().with_file_name("cache");
        fs::create_dir_all(&dir).unwrap();
        // As one that has the results itself, under another name.
        fs::write(dir.join("red-lost-eth0"), "{}").unwrap();
        let host_local = format!("host-local:{}", place.data_dir().with_file_name("podnet").display());
        for command in [vec!["verify"], vec!["import", &host_local, "--dry-run"]] {
            let told = place.cli(&[&command[..], &["--cache-dir", dir.to_str().unwrap()]].concat());
            assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{command:?}: {told:?}");
            let start =
                format!("ipam: --cache-dir {}: there is no folder {}/results, in which ", dir.display(), dir.display());
            let end = "; without --cache-dir it is /var/lib/cni, /var/lib/cni/cache, /var/lib/cni/multus\n";
            assert!(told.stderr.starts_with(&start) && told.stderr.ends_with(end), "{command:?}: {told:?}");
        }
        assert_eq!(place.cli(&["verify", "--cache-dir", "/var/lib/cni"]).code, 0, "no runtime has run yet");
        fs::create_dir(dir.join("results")).unwrap();
        assert_eq!(place.cli(&["verify", "--cache-dir", dir.to_str().unwrap()]).code, 0);
    });
}

#[test]
fn leases_of_dead_pods_are_found_and_collected() {
    sandbox::private_host(|| {
        let place = live();
        fs::remove_file(place.netns("plain")).unwrap();
        assert_eq!(verify(&place, None), ["dead-netns 10.9.0.2"], "its link speaks for it");
        assert_eq!(place.cli(&["gc", "--min-age", "0s"]).code, 0);
        run("ip link del pw2");
        run("ip link del pw1");
        assert_eq!(verify(&place, None), ["leaked 10.9.0.2"], "mail's namespace speaks for it");
        let young = place.cli(&["gc"]);
        assert_eq!((young.code, young.stdout.as_str()), (0, ""), "its ADD may be under way: {young:?}");
        let said = "note: 1 lease younger than 5m0s, without a pod: the ADD may be under way; if not: --min-age 0s\n\
                    no pod of the other 2 leases is gone\n";
        assert_eq!(young.stderr, said);
        let (note, _) = said.split_once('\n').unwrap();
        let alone = place.cli(&["gc", "--container", "plain"]);
        assert_eq!(alone.stderr.trim_end(), note, "of the leases that were not asked for nobody has looked at any");
        let living = place.cli(&["gc", "--min-age", "0s", "--cidr", "fd00::/64"]);
        assert_eq!((living.code, living.stderr.as_str()), (0, "no pod of the 2 leases is gone\n"));
        let one = place.cli(&["gc", "--min-age", "0s", "--cidr", "10.1.2.2/32"]);
        assert_eq!((one.code, one.stderr.as_str()), (0, "no pod of the lease is gone\n"));
        let shown = place.document(&["gc", "--min-age", "0s"]);
        assert_eq!(shown["items"][0]["signs"], json!(["its network namespace is gone", "no process lives in it"]));
        assert_eq!(shown["items"].as_array().unwrap().len(), 1);
        let dry = place.cli(&["gc", "--min-age", "0s"]);
        assert_eq!((dry.code, place.leases().len()), (4, 3));
        assert!(dry.stderr.contains("--apply"), "{dry:?}");
        assert_eq!(place.cli(&["gc", "--min-age", "0s", "--apply"]).code, 7, "nobody is there to be asked");
        let done = place.cli(&["gc", "--min-age", "0s", "--apply", "--yes"]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.starts_with("released 10.9.0.2 of container plain"), "{done:?}");
        assert_eq!(place.leases().len(), 2);
        assert_eq!(verify(&place, None), [""; 0]);
    });
}

#[test]
fn the_runtime_s_cache_is_a_witness() {
    sandbox::private_host(|| {
        let place = live();
        let cache = place.data_dir().with_file_name("results");
        fs::create_dir_all(&cache).unwrap();
        let entry = |network: &str, container: &str, ips: &[&str]| {
            let config = json!({ "plugins": [{ "type": "podwire", "ipam": { "type": "podwire-ipam" } }] }).to_string();
            let ips: Vec<Value> = ips.iter().map(|ip| json!({ "address": ip })).collect();
            let json = json!({ "kind": "cniCacheV1", "containerId": container, "ifName": "eth0", "networkName": network,
                "config": BASE64.encode(config.as_bytes()), "result": { "cniVersion": "1.0.0", "ips": ips } });
            fs::write(cache.join(format!("{network}-{container}-eth0")), json.to_string()).unwrap();
        };
        entry("red", CART, &["10.1.2.2/24", "fd00::2/64"]);
        entry("red", "1b2c3d4e", &["10.1.2.99/24", "fd00::3/64"]);
        entry("red", "lost", &["10.1.2.50/24"]);
        fs::write(cache.join("red-torn-eth0"), "{\"kind\":").unwrap();
        let found = verify(&place, Some(&cache));
        let expected =
            ["unknown-to-ledger 10.1.2.50", "runtime-differs 10.1.2.3", "unknown-to-runtime 10.9.0.2", "garbage -"];
        assert_eq!(found, expected);
    });
}

#[test]
fn leases_outside_of_the_configured_pools_are_found() {
    sandbox::private_host(|| {
        let place = live();
        let conf_dir = place.data_dir().with_file_name("net.d");
        fs::create_dir_all(&conf_dir).unwrap();
        let ipam = json!({ "type": "podwire-ipam", "podCIDR": ["10.77.0.0/24", "fd00::/64"] });
        let conf = json!({ "cniVersion": "1.0.0", "name": "red", "plugins": [{ "type": "podwire", "ipam": ipam }] });
        fs::write(conf_dir.join("10-red.conflist"), conf.to_string()).unwrap();
        fs::write(conf_dir.join("20-torn.conf"), "{").unwrap();
        let conf_dir = conf_dir.to_str().unwrap();
        let found = place.document(&["verify", "--conf-dir", conf_dir]);
        let kinds: Vec<String> =
            found["items"].as_array().unwrap().iter().map(|it| format!("{} {}", it["kind"], it["address"])).collect();
        assert_eq!(kinds, ["\"foreign-range\" \"10.1.2.2\"", "\"foreign-range\" \"10.1.2.3\""]);
        let pools = place.document(&["pools", "--conf-dir", conf_dir]);
        let sources: Vec<&Value> = pools["items"].as_array().unwrap().iter().map(|it| &it["source"]).collect();
        assert_eq!(sources, ["ledger", "ledger", "config", "both"], "{pools:#}");
        let check = place.document(&["check", "--conf-dir", conf_dir]);
        assert_eq!(check["items"][0]["kind"], "garbage");
        assert!(place.leases().iter().any(|lease| lease.ips().any(|it| it == ip("10.1.2.2"))));
    });
}
