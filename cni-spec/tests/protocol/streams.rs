//! Spec section 2, "Errors", and section 5, "Error": one document on standard output, and an exit code.

use cni_spec::{CniError, ErrorCode};
use serde_json::json;

use crate::support::{Broken, TestPlugin, environment, run, run_with};

const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[],"prevResult":{}}"#;
const VERBS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];

#[test]
fn only_add_prints_on_success() {
    for verb in VERBS {
        let outcome = run(&TestPlugin::default(), environment(verb), CONFIG);
        assert!(outcome.success && outcome.stderr.is_empty(), "{verb}: {outcome:?}");
        if verb == "ADD" {
            assert_eq!(outcome.document(), json!({ "cniVersion": "1.1.0" }));
        } else {
            assert_eq!(outcome.stdout, "", "{verb}");
        }
    }
}

#[test]
fn the_plugins_error_is_printed_with_the_configs_version() {
    let error = CniError::new(ErrorCode::Plugin(123), "no more cheese").with_details("try the shop");
    for verb in VERBS {
        let plugin = TestPlugin { failure: Some(error.clone()), ..TestPlugin::default() };
        let outcome = run(&plugin, environment(verb), CONFIG);
        let expected =
            json!({ "cniVersion": "1.1.0", "code": 123, "msg": "no more cheese", "details": "try the shop" });
        assert_eq!(outcome.error(), expected, "{verb}");
    }
}

#[test]
fn errors_carry_the_configs_version_as_far_as_it_can_be_read() {
    for (stdin, expected) in [
        (r#"{"cniVersion":"0.3.1"}"#, "0.3.1"),
        (r#"{"cniVersion":"0.3.1","name":"/"}"#, "0.3.1"),
        (r#"{"cniVersion":""}"#, "0.1.0"),
        ("{}", "0.1.0"),
        (r#"{"cniVersion":"2.0.0"}"#, "1.1.0"),
        ("{", "1.1.0"),
        ("", "1.1.0"),
    ] {
        let error = run(&TestPlugin::default(), environment("ADD"), stdin).error();
        assert_eq!(error["cniVersion"], json!(expected), "{stdin}");
    }
    let error = run(&TestPlugin::default(), environment("ADD").with("CNI_NETNS", ""), CONFIG).error();
    assert_eq!(error["cniVersion"], json!("1.1.0"));
    let error = run(&TestPlugin::default(), environment("MOVE"), r#"{"cniVersion":"0.4.0"}"#).error();
    assert_eq!(error["cniVersion"], json!("0.4.0"));
}

#[test]
fn a_panic_is_one_error_document() {
    for verb in VERBS {
        let plugin = TestPlugin { panic: Some("page 7 is damaged"), ..TestPlugin::default() };
        let outcome = run(&plugin, environment(verb), CONFIG);
        let expected = json!({ "cniVersion": "1.1.0", "code": 999, "msg": "the plugin panicked: this is a bug",
            "details": "page 7 is damaged" });
        assert_eq!(outcome.error(), expected, "{verb}");
    }
}

#[test]
fn standard_input_that_cannot_be_read_is_an_io_failure() {
    for verb in VERBS {
        let outcome = run_with(&TestPlugin::default(), environment(verb), &mut Broken, &mut Vec::new());
        let expected = json!({ "cniVersion": "1.1.0", "code": 5,
            "msg": "failed to read the network config from standard input", "details": "wire cut" });
        assert_eq!(outcome.error(), expected, "{verb}");
    }
}

#[test]
fn an_answer_that_cannot_be_printed_is_a_failure() {
    for (verb, stdin) in [("ADD", CONFIG), ("ADD", ""), ("VERSION", "")] {
        let outcome = run_with(&TestPlugin::default(), environment(verb), &mut stdin.as_bytes(), &mut Broken);
        assert!(!outcome.success, "{verb}");
        assert_eq!(outcome.stderr, "failed to print the answer: wire cut\n", "{verb}");
    }
}
