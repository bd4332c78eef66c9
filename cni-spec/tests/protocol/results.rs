//! Spec section 5, "Success", of each release: what results look like, and what is refused.

use cni_spec::{CniError, CniResult, Dns, ErrorCode, Interface, IpConfig, ResultError, Route, SpecVersion};
use serde_json::{Value, json};

use crate::support::{TestPlugin, environment, run};

/// The least a result of every version can say.
pub fn one_address() -> CniResult {
    CniResult { ips: vec![ip("10.0.0.5/24", None, None)], ..CniResult::default() }
}

pub fn ip(address: &str, gateway: Option<&str>, interface: Option<usize>) -> IpConfig {
    IpConfig {
        address: address.parse().expect("an address"),
        gateway: gateway.map(|gateway| gateway.parse().expect("a gateway")),
        interface,
    }
}

pub fn route(dst: &str, gw: Option<&str>) -> Route {
    Route {
        dst: dst.parse().expect("a destination"),
        gw: gw.map(|gw| gw.parse().expect("a gateway")),
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
    }
}

/// A result that uses every key of 1.1.0.
pub fn full() -> CniResult {
    CniResult {
        interfaces: vec![
            Interface { name: "pwx".to_owned(), mac: Some("aa:00:00:00:00:01".to_owned()), ..Interface::default() },
            Interface {
                name: "eth0".to_owned(),
                mac: Some("aa:00:00:00:00:02".to_owned()),
                mtu: Some(1450),
                sandbox: Some("/run/netns/c1".to_owned()),
                socket_path: Some("/run/s.sock".to_owned()),
                pci_id: Some("0000:04:00.5".to_owned()),
            },
        ],
        ips: vec![
            ip("10.0.0.5/24", Some("10.0.0.1"), Some(1)),
            ip("10.0.1.5/32", None, Some(1)),
            ip("fd00::5/64", Some("fe80::1"), Some(1)),
        ],
        routes: vec![
            Route {
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(100),
                table: Some(50),
                scope: Some(253),
                ..route("0.0.0.0/0", Some("10.0.0.1"))
            },
            route("::/0", None),
        ],
        dns: Dns {
            nameservers: vec!["10.0.0.53".to_owned()],
            domain: Some("example.net".to_owned()),
            search: vec!["a.example.net".to_owned(), "example.net".to_owned()],
            options: vec!["ndots:5".to_owned()],
        },
    }
}

fn dns() -> Value {
    json!({ "nameservers": ["10.0.0.53"], "domain": "example.net", "search": ["a.example.net", "example.net"],
        "options": ["ndots:5"] })
}

fn legacy(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "ip4": { "ip": "10.0.0.5/24", "gateway": "10.0.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }] },
        "ip6": { "ip": "fd00::5/64", "gateway": "fe80::1", "routes": [{ "dst": "::/0" }] },
        "dns": dns(),
    })
}

fn with_ip_versions(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "interfaces": [
            { "name": "pwx", "mac": "aa:00:00:00:00:01" },
            { "name": "eth0", "mac": "aa:00:00:00:00:02", "sandbox": "/run/netns/c1" },
        ],
        "ips": [
            { "version": "4", "interface": 1, "address": "10.0.0.5/24", "gateway": "10.0.0.1" },
            { "version": "4", "interface": 1, "address": "10.0.1.5/32" },
            { "version": "6", "interface": 1, "address": "fd00::5/64", "gateway": "fe80::1" },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }, { "dst": "::/0" }],
        "dns": dns(),
    })
}

fn without_ip_versions() -> Value {
    let mut json = with_ip_versions("1.0.0");
    for ip in json["ips"].as_array_mut().expect("a list") {
        ip.as_object_mut().expect("an object").remove("version");
    }
    json
}

fn newest() -> Value {
    let mut json = without_ip_versions();
    json["cniVersion"] = json!("1.1.0");
    json["interfaces"][1] = json!({ "name": "eth0", "mac": "aa:00:00:00:00:02", "sandbox": "/run/netns/c1",
        "mtu": 1450, "socketPath": "/run/s.sock", "pciID": "0000:04:00.5" });
    json["routes"][0] = json!({ "dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1360, "priority": 100,
        "table": 50, "scope": 253 });
    json
}

#[test]
fn every_version_has_its_own_shape() {
    for (version, expected) in [
        (SpecVersion::V0_1_0, legacy("0.1.0")),
        (SpecVersion::V0_2_0, legacy("0.2.0")),
        (SpecVersion::V0_3_0, with_ip_versions("0.3.0")),
        (SpecVersion::V0_3_1, with_ip_versions("0.3.1")),
        (SpecVersion::V0_4_0, with_ip_versions("0.4.0")),
        (SpecVersion::V1_0_0, without_ip_versions()),
        (SpecVersion::V1_1_0, newest()),
    ] {
        assert_eq!(full().to_json(version), Ok(expected), "{version}");
    }
}

#[test]
fn what_is_empty_is_left_out_except_dns_before_1_0_0() {
    for (version, expected) in [
        (SpecVersion::V0_1_0, json!({ "cniVersion": "0.1.0", "ip4": { "ip": "10.0.0.5/24" }, "dns": {} })),
        (SpecVersion::V0_2_0, json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.5/24" }, "dns": {} })),
        (
            SpecVersion::V0_4_0,
            json!({ "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.0.0.5/24" }], "dns": {} }),
        ),
        (SpecVersion::V1_0_0, json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.5/24" }] })),
        (SpecVersion::V1_1_0, json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.5/24" }] })),
    ] {
        assert_eq!(one_address().to_json(version), Ok(expected), "{version}");
    }
    assert_eq!(CniResult::default().to_json(SpecVersion::V0_3_1), Ok(json!({ "cniVersion": "0.3.1", "dns": {} })));
    assert_eq!(CniResult::default().to_json(SpecVersion::V1_0_0), Ok(json!({ "cniVersion": "1.0.0" })));
}

#[test]
fn results_before_0_3_0_need_an_address() {
    for version in [SpecVersion::V0_1_0, SpecVersion::V0_2_0] {
        assert_eq!(CniResult::default().to_json(version), Err(ResultError::NoAddress(version)));
        let config = json!({ "cniVersion": version.as_str(), "name": "n" }).to_string();
        let expected = format!("a result without addresses cannot be written for cniVersion {version}");
        let outcome = run(&TestPlugin::default(), environment("ADD"), config);
        assert_eq!(outcome.code_and_msg(), (1, expected));
    }
}

#[test]
fn routes_of_a_family_without_address_have_no_place_before_0_3_0() {
    let result = CniResult { routes: vec![route("::/0", None)], ..one_address() };
    let expected = json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.5/24" }, "dns": {} });
    assert_eq!(result.to_json(SpecVersion::V0_2_0), Ok(expected));
}

#[test]
fn add_prints_its_result_in_the_configs_version() {
    for version in SpecVersion::ALL {
        let plugin = TestPlugin { result: full(), ..TestPlugin::default() };
        let config = json!({ "cniVersion": version.as_str(), "name": "n" }).to_string();
        let outcome = run(&plugin, environment("ADD"), config);
        assert!(outcome.success, "{outcome:?}");
        assert_eq!(Ok(outcome.document()), full().to_json(version));
    }
}

#[test]
fn keys_of_1_1_0_are_read_under_every_version_with_lists() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut json = newest();
        json["cniVersion"] = json!(version);
        assert_eq!(CniResult::from_json(&json, SpecVersion::LATEST), Ok(full()), "{version}");
    }
}

#[test]
fn a_result_without_version_has_the_default() {
    for json in [legacy(""), json!({ "ip4": legacy("")["ip4"], "ip6": legacy("")["ip6"], "dns": dns() })] {
        let result = CniResult::from_json(&json, SpecVersion::V0_2_0).expect("a result");
        assert_eq!((result.ips.len(), result.routes.len()), (2, 2));
        let newest = CniResult::from_json(&json, SpecVersion::V1_0_0).expect("a result");
        assert_eq!((newest.ips.len(), newest.routes.len()), (0, 0), "ip4 and ip6 are unknown keys there");
    }
}

#[test]
fn nothing_and_null_and_empty_texts_are_none() {
    let json = json!({ "interfaces": [{ "name": "eth0", "mac": "", "sandbox": "", "mtu": null, "pciID": null }],
        "ips": [{ "address": "10.0.0.5/24", "gateway": "", "interface": null }], "routes": null,
        "dns": { "nameservers": null, "domain": "" }, "more": { "keys": 1 } });
    let expected =
        CniResult { interfaces: vec![Interface { name: "eth0".to_owned(), ..Interface::default() }], ..one_address() };
    assert_eq!(CniResult::from_json(&json, SpecVersion::LATEST), Ok(expected));
    assert_eq!(CniResult::from_json(&json!({}), SpecVersion::LATEST), Ok(CniResult::default()));
    assert_eq!(CniResult::from_json(&json!({ "dns": null }), SpecVersion::V0_1_0), Ok(CniResult::default()));
}

#[test]
fn keys_of_results_are_matched_exactly() {
    let json = json!({ "IPs": [{ "address": "10.0.0.5/24" }], "Routes": 7 });
    assert_eq!(CniResult::from_json(&json, SpecVersion::LATEST), Ok(CniResult::default()));
}

#[test]
fn bad_values_are_named() {
    let cidr = "is not an address with a prefix length, such as 10.1.2.3/24";
    for (json, expected) in [
        (json!(7), "the document=7 is not an object".to_owned()),
        (json!({ "cniVersion": 1 }), "cniVersion=1 is not a string".to_owned()),
        (json!({ "interfaces": {} }), "interfaces={} is not a list".to_owned()),
        (json!({ "interfaces": ["eth0"] }), "interfaces[0]=\"eth0\" is not an object".to_owned()),
        (json!({ "interfaces": [{ "name": 1 }] }), "interfaces[0].name=1 is not a string".to_owned()),
        (json!({ "interfaces": [{ "mtu": -1 }] }), "interfaces[0].mtu=-1 is out of range".to_owned()),
        (json!({ "interfaces": [{ "mtu": 1.5 }] }), "interfaces[0].mtu=1.5 is not a whole number".to_owned()),
        (json!({ "interfaces": [{}, { "mac": [] }] }), "interfaces[1].mac=[] is not a string".to_owned()),
        (json!({ "ips": [{}] }), "ips[0].address is missing".to_owned()),
        (json!({ "ips": [{ "address": "10.0.0.5" }] }), format!("ips[0].address=\"10.0.0.5\" {cidr}")),
        (json!({ "ips": [{ "address": "10.0.0.5/33" }] }), format!("ips[0].address=\"10.0.0.5/33\" {cidr}")),
        (json!({ "ips": [{ "address": "10.0.0.5/" }] }), format!("ips[0].address=\"10.0.0.5/\" {cidr}")),
        (json!({ "ips": [{ "address": "10.0.0.5/+8" }] }), format!("ips[0].address=\"10.0.0.5/+8\" {cidr}")),
        (
            json!({ "ips": [{ "address": "10.0.0.5/255.0.0.0" }] }),
            format!("ips[0].address=\"10.0.0.5/255.0.0.0\" {cidr}"),
        ),
        (json!({ "ips": [{ "address": "fd00::/129" }] }), format!("ips[0].address=\"fd00::/129\" {cidr}")),
        (
            json!({ "ips": [{ "address": "10.0.0.5/8", "gateway": "gw" }] }),
            "ips[0].gateway=\"gw\" is not an IP address".to_owned(),
        ),
        (
            json!({ "ips": [{ "address": "10.0.0.5/8", "interface": -1 }] }),
            "ips[0].interface=-1 is out of range".to_owned(),
        ),
        (json!({ "routes": [{ "gw": "10.0.0.1" }] }), "routes[0].dst is missing".to_owned()),
        (json!({ "routes": [{ "dst": "default" }] }), format!("routes[0].dst=\"default\" {cidr}")),
        (json!({ "routes": [{ "dst": "::/0", "scope": 256 }] }), "routes[0].scope=256 is out of range".to_owned()),
        (
            json!({ "routes": [{ "dst": "::/0", "table": 4_294_967_296_i64 }] }),
            "routes[0].table=4294967296 is out of range".to_owned(),
        ),
        (json!({ "dns": "10.0.0.53" }), "dns=\"10.0.0.53\" is not an object".to_owned()),
        (json!({ "dns": { "search": [true] } }), "dns.search[0]=true is not a string".to_owned()),
        (json!({ "cniVersion": "0.2.0", "ip4": {} }), "ip4.ip is missing".to_owned()),
        (
            json!({ "cniVersion": "0.2.0", "ip4": { "ip": "fd00::5/64" } }),
            "ip4.ip=\"fd00::5/64\" is of the other family than ip4".to_owned(),
        ),
        (
            json!({ "cniVersion": "0.2.0", "ip6": { "ip": "fd00::5/64", "routes": [{ "dst": 1 }] } }),
            "ip6.routes[0].dst=1 is not a string".to_owned(),
        ),
    ] {
        let error = CniResult::from_json(&json, SpecVersion::LATEST).expect_err(&expected);
        assert_eq!(error.to_string(), format!("invalid result: {expected}"));
        assert_eq!(CniError::from(error).code, ErrorCode::Decode);
    }
    let error = CniResult::from_json(&json!({ "cniVersion": "3.0.0" }), SpecVersion::LATEST).expect_err("a version");
    assert_eq!(error.to_string(), "cniVersion=\"3.0.0\" is not supported");
    assert_eq!(CniError::from(error).code, ErrorCode::IncompatibleVersion);
}
