//! Spec section 1, "Plugin configuration objects", and section 5, codes 1, 6 and 7.

use cni_spec::{CniError, ErrorCode, NetConf, SpecVersion};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Request, TestPlugin, environment, run};

/// What every config here has, and what this one has besides.
fn config(keys: Value) -> NetConf {
    NetConf::from_bytes(document(keys)).unwrap_or_else(|error| panic!("{error}"))
}

fn document(keys: Value) -> Vec<u8> {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "n", "type": "t" });
    if let (Value::Object(config), Value::Object(keys)) = (&mut config, keys) {
        config.extend(keys);
    }
    config.to_string().into_bytes()
}

fn refusal(keys: Value) -> (u32, String) {
    let error = NetConf::from_bytes(document(keys)).expect_err("a refusal");
    (error.code.number(), error.msg)
}

#[test]
fn what_is_no_json_object_is_named_with_its_place() {
    for (stdin, expected) in [
        ("", "network config on standard input is empty"),
        (" \n", "network config on standard input is empty"),
        ("{\n \"name\": }", "network config on standard input is not JSON: expected value at line 2 column 10"),
        (r#"{"name":"n"} {}"#, "network config on standard input is not JSON: trailing characters at line 1 column 14"),
        (
            r#"{"name":"n""#,
            "network config on standard input is not JSON: EOF while parsing an object at line 1 column 11",
        ),
        ("[1]", "network config on standard input is not an object: [1]"),
        ("null", "network config on standard input is not an object: null"),
    ] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let outcome = run(&TestPlugin::default(), environment(verb), stdin);
            assert_eq!(outcome.code_and_msg(), (6, expected.to_owned()), "{verb} {stdin:?}");
        }
    }
}

#[test]
fn versions_are_matched_exactly() {
    for version in ["0.5.0", "1.1", "v1.0.0", "1.0.0 ", "2.0.0"] {
        let error = NetConf::from_bytes(document(json!({ "cniVersion": version }))).expect_err(version);
        assert_eq!(error.code, ErrorCode::IncompatibleVersion);
        assert_eq!(error.msg, format!("cniVersion={version:?} is not supported"));
        assert_eq!(error.details, "supported versions: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
    let expected = (6, "invalid network config: cniVersion=1.1 is not a string".to_owned());
    assert_eq!(refusal(json!({ "cniVersion": 1.1 })), expected);
}

#[test]
fn a_config_without_version_is_the_first() {
    for version in [json!(""), Value::Null] {
        assert_eq!(config(json!({ "cniVersion": version })).cni_version, SpecVersion::V0_1_0);
    }
    let config = NetConf::from_bytes(br#"{"name":"n"}"#.to_vec()).expect("a config");
    assert_eq!(config.cni_version, SpecVersion::V0_1_0);
    assert_eq!(config.plugin_type, "");
}

#[test]
fn shared_keys_are_refused_with_key_and_value() {
    let name_rule = "must begin with a letter or digit and go on with letters, digits, '_', '.' or '-'";
    for (keys, expected) in [
        (json!({ "name": null }), "name is missing".to_owned()),
        (json!({ "name": "" }), "name=\"\" is empty".to_owned()),
        (json!({ "name": "a/b" }), format!("name=\"a/b\" {name_rule}")),
        (json!({ "name": "-a" }), format!("name=\"-a\" {name_rule}")),
        (json!({ "name": 7 }), "name=7 is not a string".to_owned()),
        (json!({ "type": [] }), "type=[] is not a string".to_owned()),
        (json!({ "ipam": "host-local" }), "ipam=\"host-local\" is not an object".to_owned()),
        (json!({ "ipam": { "type": 7 } }), "ipam.type=7 is not a string".to_owned()),
        (json!({ "runtimeConfig": [] }), "runtimeConfig=[] is not an object".to_owned()),
        (json!({ "prevResult": "x" }), "prevResult=\"x\" is not an object".to_owned()),
        (json!({ "prevResult": { "cniVersion": 1 } }), "prevResult.cniVersion=1 is not a string".to_owned()),
        (
            json!({ "prevResult": { "cniVersion": "9.9.9" } }),
            "prevResult.cniVersion=\"9.9.9\" is not supported".to_owned(),
        ),
        (
            json!({ "prevResult": { "ips": [{ "address": "10.0.0.5" }] } }),
            "prevResult.ips[0].address=\"10.0.0.5\" is not an address with a prefix length, such as 10.1.2.3/24"
                .to_owned(),
        ),
    ] {
        assert_eq!(refusal(keys), (7, format!("invalid network config: {expected}")));
    }
}

#[test]
fn a_missing_name_is_named() {
    let outcome = run(&TestPlugin::default(), environment("ADD"), r#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(outcome.code_and_msg(), (7, "invalid network config: name is missing".to_owned()));
}

#[test]
fn reserved_and_unknown_keys_are_tolerated() {
    let config = config(json!({ "capabilities": { "portMappings": true }, "args": { "labels": [] }, "zebra": 1,
        "ipam": {}, "runtimeConfig": null, "prevResult": null, "dns": 5 }));
    assert_eq!(config.ipam_type, None);
    assert_eq!(config.prev_result, None);
    assert_eq!(config.runtime_config.get("portMappings"), None);
    assert_eq!(config.json["zebra"], json!(1));
}

#[test]
fn the_ipam_type_is_read() {
    assert_eq!(config(json!({ "ipam": { "type": "host-local" } })).ipam_type.as_deref(), Some("host-local"));
    assert_eq!(config(json!({ "ipam": { "type": "" } })).ipam_type, None);
    assert_eq!(config(json!({ "ipam": null })).ipam_type, None);
}

#[test]
fn check_needs_a_prev_result() {
    for keys in [json!({}), json!({ "prevResult": null })] {
        let outcome = run(&TestPlugin::default(), environment("CHECK"), document(keys));
        let expected = "invalid network config: prevResult is missing, and CHECK needs it".to_owned();
        assert_eq!(outcome.code_and_msg(), (7, expected));
    }
}

#[test]
fn check_gets_its_prev_result_in_the_newest_shape() {
    let prev_result = json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.5/24" } });
    let outcome = run(&TestPlugin::default(), environment("CHECK"), document(json!({ "prevResult": prev_result })));
    let Request::Check(request) = outcome.only_request() else { panic!("not a CHECK") };
    assert_eq!(request.prev_result, crate::results::one_address());
    assert_eq!(request.config.prev_result, Some(request.prev_result));
}

#[test]
fn a_prev_result_that_says_no_version_has_the_configs() {
    let old = config(json!({ "cniVersion": "0.2.0", "prevResult": { "ip4": { "ip": "10.0.0.5/24" } } }));
    assert_eq!(old.prev_result, Some(crate::results::one_address()));
    let new = config(json!({ "prevResult": { "ips": [{ "address": "10.0.0.5/24" }] } }));
    assert_eq!(new.prev_result, Some(crate::results::one_address()));
}

#[test]
fn del_goes_on_without_a_broken_prev_result() {
    let broken = document(json!({ "prevResult": { "ips": 7 } }));
    let mut outcome = run(&TestPlugin::default(), environment("DEL"), &broken);
    assert!(outcome.success && outcome.stdout.is_empty(), "{outcome:?}");
    assert_eq!(
        outcome.stderr,
        "DEL goes on without prevResult: invalid network config: prevResult.ips=7 is not a list (code 7)\n"
    );
    let Some(Request::Del(request)) = outcome.seen.pop() else { panic!("not a DEL") };
    assert_eq!(request.config.prev_result, None);
    for verb in ["ADD", "CHECK"] {
        let expected = (7, "invalid network config: prevResult.ips=7 is not a list".to_owned());
        assert_eq!(run(&TestPlugin::default(), environment(verb), &broken).code_and_msg(), expected);
    }
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the fields are there to be refused")]
struct Raw {
    mtu: u16,
    ipam: Option<RawIpam>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the fields are there to be refused")]
struct RawIpam {
    ranges: Vec<Vec<RawRange>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the fields are there to be refused")]
struct RawRange {
    subnet: ipnetwork::IpNetwork,
}

#[test]
fn a_plugins_own_keys_are_refused_with_path_and_value() {
    let refusal = |keys: Value| -> CniError { config(keys).parse::<Raw>().expect_err("a refusal") };
    let cases = [
        (json!({ "mtu": "big" }), "mtu=\"big\": invalid type: string \"big\", expected u16"),
        (json!({ "mtu": -1 }), "mtu=-1: invalid value: integer `-1`, expected u16"),
        (json!({}), "missing field `mtu`"),
        (json!({ "mtu": 1, "ipam": { "ranges": [[{}]] } }), "ipam.ranges[0][0]={}: missing field `subnet`"),
        (
            json!({ "mtu": 1, "ipam": { "ranges": [[{ "subnet": "10.0.0.0/8" }, { "subnet": "ten" }]] } }),
            "ipam.ranges[0][1].subnet=\"ten\": invalid address: ten",
        ),
    ];
    for (keys, expected) in cases {
        let error = refusal(keys);
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert_eq!(error.msg, format!("invalid network config: {expected}"));
    }
    assert_eq!(config(json!({ "mtu": 1400, "other": [] })).parse::<Raw>().expect("a config").mtu, 1400);
}

#[test]
fn long_values_are_cut_in_messages() {
    let (_, msg) = refusal(json!({ "name": "ä".repeat(5000) }));
    assert!(msg.len() < 700, "{msg}");
    assert!(msg.contains("ää... must begin"), "{msg}");
}

#[test]
fn wishes_in_args_are_read() {
    let wishes = config(json!({ "args": { "cni": { "ips": ["10.0.0.9"], "mac": "c2:11:22:33:44:55" } } }));
    assert_eq!(wishes.args_ips(), Ok(vec!["10.0.0.9".to_owned()]));
    assert_eq!(wishes.args_mac(), Ok(Some("c2:11:22:33:44:55".to_owned())));
    for none in [json!({}), json!({ "args": 7 }), json!({ "args": { "cni": { "ips": null, "mac": "" } } })] {
        assert_eq!(config(none.clone()).args_ips(), Ok(Vec::new()), "{none}");
        assert_eq!(config(none.clone()).args_mac(), Ok(None), "{none}");
    }
    let malformed = config(json!({ "args": { "cni": { "ips": ["10.0.0.9", 4], "mac": 7 } } }));
    let msg = |error: CniError| (error.code.number(), error.msg);
    let expected = (7, "invalid network config: args.cni.ips[1]=4 is not a string".to_owned());
    assert_eq!(malformed.args_ips().map_err(msg), Err(expected));
    let expected = (7, "invalid network config: args.cni.mac=7 is not a string".to_owned());
    assert_eq!(malformed.args_mac().map_err(msg), Err(expected));
}
