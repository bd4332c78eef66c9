//! VERSION, and the verbs that a config's version does not have.

use cni_spec::{Environment, SpecVersion};
use serde_json::json;

use crate::support::{Broken, TestPlugin, environment, run, run_with};

#[test]
fn version_echoes_what_it_can_and_lists_all() {
    for (stdin, expected) in [
        (r#"{"cniVersion":"0.1.0"}"#, "0.1.0"),
        (r#"{"cniVersion":"0.4.0","name":"ignored"}"#, "0.4.0"),
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"1.1.0"}"#, "1.1.0"),
        (r#"{"cniVersion":"9.9.9"}"#, "1.1.0"),
        (r#"{"cniVersion":7}"#, "1.1.0"),
        (r#"{"cniVersion":""}"#, "1.1.0"),
        (r#"{"cniVersion":null}"#, "1.1.0"),
        ("{}", "1.1.0"),
        ("[]", "1.1.0"),
        ("{", "1.1.0"),
        ("", "1.1.0"),
    ] {
        let outcome = run(&TestPlugin::default(), Environment::from_iter([("CNI_COMMAND", "VERSION")]), stdin);
        assert!(outcome.success && outcome.stderr.is_empty(), "{stdin}: {outcome:?}");
        let all = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(outcome.document(), json!({ "cniVersion": expected, "supportedVersions": all }), "{stdin}");
    }
}

#[test]
fn version_does_without_standard_input() {
    let outcome = run_with(&TestPlugin::default(), environment("VERSION"), &mut Broken, &mut Vec::new());
    assert!(outcome.success, "{outcome:?}");
    assert_eq!(outcome.document()["cniVersion"], json!("1.1.0"));
}

#[test]
fn without_a_command_the_plugin_introduces_itself() {
    for environment in
        [Environment::default(), Environment::from_iter([("CNI_COMMAND", ""), ("CNI_PATH", "/opt/cni/bin")])]
    {
        let outcome = run_with(&TestPlugin::default(), environment, &mut Broken, &mut Vec::new());
        assert!(outcome.success);
        assert_eq!(outcome.stdout, "");
        assert_eq!(
            outcome.stderr,
            "test-plugin 1.2.3: answers tests\nCNI spec, supported versions: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
        );
    }
}

#[test]
fn a_container_without_a_command_is_an_error() {
    let outcome = run_with(&TestPlugin::default(), environment(""), &mut Broken, &mut Vec::new());
    assert!(!outcome.success, "{outcome:?}");
    assert_eq!(
        outcome.document(),
        json!({ "cniVersion": "1.1.0", "code": 4, "msg": "invalid environment: CNI_COMMAND is missing or empty" })
    );
}

#[test]
fn verbs_need_the_version_that_brought_them() {
    for (verb, since) in [
        ("ADD", SpecVersion::V0_1_0),
        ("DEL", SpecVersion::V0_1_0),
        ("CHECK", SpecVersion::V0_4_0),
        ("GC", SpecVersion::V1_1_0),
        ("STATUS", SpecVersion::V1_1_0),
    ] {
        for version in SpecVersion::ALL {
            let config = json!({ "cniVersion": version.as_str(), "name": "n", "cni.dev/valid-attachments": [],
                "prevResult": { "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.5/32" }] } });
            let plugin = TestPlugin { result: crate::results::one_address(), ..TestPlugin::default() };
            let outcome = run(&plugin, environment(verb), config.to_string());
            if version >= since {
                assert!(outcome.success && outcome.seen.len() == 1, "{verb} {version}: {outcome:?}");
                continue;
            }
            assert!(outcome.seen.is_empty(), "{verb} {version} reached the plugin");
            assert_eq!(outcome.code_and_msg(), (1, format!("{verb} does not exist in cniVersion {version}")));
            assert_eq!(outcome.error()["details"], json!(format!("{verb} came with {since}")));
            assert_eq!(outcome.error()["cniVersion"], json!(version.as_str()));
        }
    }
}
