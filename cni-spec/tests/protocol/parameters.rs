//! Spec section 2, "Parameters" and "CNI operations".

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use cni_spec::{CniArgs, Environment};
use serde_json::json;

use crate::support::{Request, TestPlugin, environment, run};

const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"t","cni.dev/valid-attachments":[],
    "prevResult":{"ips":[{"address":"10.0.0.5/32"}]}}"#;

/// Which variables each verb cannot do without, beside `CNI_COMMAND`.
const REQUIRED: [(&str, &[&str]); 6] = [
    ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
    ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
    ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
    ("GC", &["CNI_PATH"]),
    ("STATUS", &[]),
    ("VERSION", &[]),
];

const ALL: [&str; 5] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"];

fn without(environment: &Environment, names: &[&str]) -> Environment {
    environment.iter().filter(|(name, _)| !names.iter().any(|gone| name == gone)).collect()
}

#[test]
fn each_verb_serves_with_its_required_variables_alone() {
    for (verb, required) in REQUIRED {
        let gone: Vec<&str> = ALL.into_iter().filter(|name| !required.contains(name)).collect();
        let outcome = run(&TestPlugin::default(), without(&environment(verb), &gone), CONFIG);
        assert!(outcome.success, "{verb} without {gone:?}: {outcome:?}");
    }
}

#[test]
fn each_verb_serves_with_its_optional_variables_empty() {
    for (verb, required) in REQUIRED {
        let optional = ALL.into_iter().filter(|name| !required.contains(name));
        let environment = optional.fold(environment(verb), |environment, name| environment.with(name, ""));
        let outcome = run(&TestPlugin::default(), environment, CONFIG);
        assert!(outcome.success, "{verb}: {outcome:?}");
    }
}

#[test]
fn each_missing_variable_is_named_alone() {
    for (verb, required) in REQUIRED {
        for name in required {
            for environment in [without(&environment(verb), &[name]), environment(verb).with(*name, "")] {
                let outcome = run(&TestPlugin::default(), environment, CONFIG);
                assert!(outcome.seen.is_empty(), "{verb} without {name} reached the plugin");
                let expected = format!("invalid environment for {verb}: {name} is missing or empty");
                assert_eq!(outcome.code_and_msg(), (4, expected));
            }
        }
    }
}

#[test]
fn all_missing_variables_are_named_together() {
    for (verb, required) in REQUIRED.into_iter().filter(|(_, required)| !required.is_empty()) {
        let (code, msg) = run(&TestPlugin::default(), without(&environment(verb), &ALL), CONFIG).code_and_msg();
        let missing: Vec<&str> = ALL.into_iter().filter(|name| msg.contains(*name)).collect();
        assert_eq!((code, missing.len()), (4, required.len()), "{verb}: {msg}");
        assert!(required.iter().all(|name| msg.contains(&format!("{name} is missing or empty"))), "{verb}: {msg}");
    }
}

#[test]
fn everything_wrong_stands_in_one_message_with_value_and_reason() {
    let environment = environment("ADD")
        .with("CNI_CONTAINERID", "../etc")
        .with("CNI_NETNS", "")
        .with("CNI_IFNAME", "sixteen-bytes-xx")
        .with("CNI_PATH", "")
        .with("CNI_ARGS", "A=1;B");
    let (code, msg) = run(&TestPlugin::default(), environment, CONFIG).code_and_msg();
    assert_eq!(code, 4);
    for part in [
        r#"CNI_CONTAINERID="../etc" must begin with a letter or digit"#,
        "CNI_NETNS is missing",
        r#"CNI_IFNAME="sixteen-bytes-xx" is not an interface name"#,
        "CNI_PATH is missing",
        r#"CNI_ARGS="A=1;B": "B" must be a key and a value"#,
    ] {
        assert!(msg.contains(part), "{part:?} is not in {msg:?}");
    }
}

#[test]
fn identifiers_are_checked_only_where_they_are_required() {
    for verb in ["GC", "STATUS", "VERSION"] {
        let environment = environment(verb).with("CNI_CONTAINERID", "../etc").with("CNI_IFNAME", "a/b");
        let environment = environment.with("CNI_ARGS", "no pair");
        let outcome = run(&TestPlugin::default(), environment, CONFIG);
        assert!(outcome.success, "{verb}: {outcome:?}");
    }
}

#[test]
fn interface_names_are_those_that_linux_takes() {
    for (name, good) in [
        ("eth0", true),
        ("fifteen-bytes-x", true),
        ("sixteen-bytes-xx", false),
        ("äääääääx", true),
        ("ääääääää", false),
        (".", false),
        ("..", false),
        ("...", true),
        ("a/b", false),
        ("a:b", false),
        ("a b", false),
        ("a\tb", false),
        ("-", true),
    ] {
        let outcome = run(&TestPlugin::default(), environment("ADD").with("CNI_IFNAME", name), CONFIG);
        assert_eq!(outcome.success, good, "{name:?}: {outcome:?}");
    }
}

#[test]
fn container_ids_are_those_of_the_spec() {
    for (id, good) in [
        ("a", true),
        ("7", true),
        ("default-c_1.x", true),
        ("-a", false),
        (".a", false),
        ("_a", false),
        ("a/b", false),
        ("a b", false),
        ("a\n", false),
        ("é", false),
    ] {
        let outcome = run(&TestPlugin::default(), environment("ADD").with("CNI_CONTAINERID", id), CONFIG);
        assert_eq!(outcome.success, good, "{id:?}: {outcome:?}");
    }
}

#[test]
fn values_that_are_not_text_are_named() {
    let bytes = || OsString::from_vec(vec![b'a', 0xff]);
    for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS"] {
        let (code, msg) = run(&TestPlugin::default(), environment("ADD").with(name, bytes()), CONFIG).code_and_msg();
        assert_eq!(code, 4);
        assert!(msg.contains(&format!(r#"{name}="a\xFF" is not UTF-8"#)), "{msg}");
    }
    let (code, msg) = run(&TestPlugin::default(), environment("ADD").with("CNI_COMMAND", bytes()), "").code_and_msg();
    assert_eq!((code, msg.as_str()), (4, "invalid environment: CNI_COMMAND=\"a\u{fffd}\" is unknown"));
}

#[test]
fn unknown_commands_are_named() {
    for command in ["UPDATE", "add", " ADD"] {
        let outcome = run(&TestPlugin::default(), environment(command), CONFIG);
        let expected = format!("invalid environment: CNI_COMMAND={command:?} is unknown");
        assert_eq!(outcome.code_and_msg(), (4, expected));
        assert_eq!(outcome.error()["details"], json!("known commands: ADD, DEL, CHECK, GC, STATUS, VERSION"));
    }
}

#[test]
fn an_attachment_and_its_environment_reach_the_plugin() {
    let environment = environment("ADD").with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p");
    let plugin = TestPlugin::default();
    let mut outcome = run(&plugin, environment.clone(), CONFIG);
    let Some(Request::Add(request)) = outcome.seen.pop() else { panic!("{outcome:?}") };
    assert_eq!(request.attachment.to_string(), "n c1 eth0");
    assert_eq!(request.netns, Path::new("/run/netns/c1"));
    assert_eq!(request.args.iter().collect::<Vec<_>>(), [("IgnoreUnknown", "1"), ("K8S_POD_NAME", "p")]);
    assert_eq!(request.args.pod().name, Some("p"));
    assert_eq!(request.args.pod().namespace, None);
    assert_eq!(request.environment, environment);
    assert_eq!(request.config.bytes, CONFIG.as_bytes());
}

#[test]
fn del_takes_a_namespace_or_none() {
    for (value, expected) in [("/proc/7/ns/net", Some(Path::new("/proc/7/ns/net"))), ("", None)] {
        let outcome = run(&TestPlugin::default(), environment("DEL").with("CNI_NETNS", value), CONFIG);
        let Request::Del(request) = outcome.only_request() else { panic!("not a DEL") };
        assert_eq!(request.netns.as_deref(), expected);
    }
}

#[test]
fn args_are_pairs_with_exactly_one_equals_sign() {
    for (text, pairs) in [
        ("", Some(vec![])),
        (";", Some(vec![])),
        ("A=1;", Some(vec![("A", "1")])),
        ("A=1;;B=", Some(vec![("A", "1"), ("B", "")])),
        ("A=1;A=2", Some(vec![("A", "2")])),
        ("a=1;A=2", Some(vec![("A", "2"), ("a", "1")])),
        ("A", None),
        ("A=1=2", None),
        ("=1", None),
        ("IgnoreUnknown=1;A", None),
    ] {
        let args: Option<CniArgs> = text.parse().ok();
        assert_eq!(args.as_ref().map(|args| args.iter().collect::<Vec<_>>()), pairs, "{text:?}");
    }
}
