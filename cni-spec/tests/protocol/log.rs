//! Where a call is written down, and that a log never keeps it from being served.

use serde_json::{Value, json};

use crate::support::{Request, TestPlugin, environment, run};

fn config(changes: &Value) -> String {
    let mut config =
        json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "test", "cni.dev/valid-attachments": [] });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string()
}

#[test]
fn wrong_settings_are_refused_but_not_for_cleaning_up() {
    let cases = [
        (json!({ "logFile": "podwire.log" }), "logFile=\"podwire.log\": is not an absolute path"),
        (json!({ "logFile": 1 }), "logFile=\"1\": is not a string"),
        (json!({ "logLevel": "loud" }), "logLevel=\"loud\": must be \"off\", \"error\", \"info\" or \"debug\""),
    ];
    for (changes, words) in cases {
        for verb in ["ADD", "STATUS"] {
            let outcome = run(&TestPlugin::default(), environment(verb), config(&changes));
            assert_eq!(outcome.code_and_msg(), (7, format!("invalid network config: {words}")), "{verb}");
        }
        for verb in ["DEL", "GC"] {
            let outcome = run(&TestPlugin::default(), environment(verb), config(&changes));
            assert!(outcome.success && outcome.seen.len() == 1, "{verb}: {outcome:?}");
        }
    }
    let outcome = run(&TestPlugin::default(), environment("ADD").with("CNI_LOG_LEVEL", "loud"), config(&json!({})));
    let (code, msg) = outcome.code_and_msg();
    assert!(code == 4 && msg.starts_with("invalid environment: CNI_LOG_LEVEL=\"loud\""), "{code} {msg}");
}

#[test]
fn a_log_that_cannot_be_written_is_remarked_on() {
    let changes = json!({ "logFile": "/nowhere/podwire.log" });
    let outcome = run(&TestPlugin::default(), environment("DEL"), config(&changes));
    assert!(outcome.success && outcome.stdout.is_empty());
    assert!(outcome.stderr.starts_with("cannot log to /nowhere/podwire.log: "), "{:?}", outcome.stderr);
}

#[test]
fn delegates_are_children_of_the_call_in_its_trace() {
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let inherited = |parent: &str| {
        let outcome = run(&TestPlugin::default(), environment("DEL").with("TRACEPARENT", parent), config(&json!({})));
        let Request::Del(request) = outcome.only_request() else { panic!("another request") };
        request.environment.get("TRACEPARENT").expect("there").to_str().expect("text").to_owned()
    };
    let handed_on = inherited(caller);
    assert!(handed_on.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && handed_on.ends_with("-01"), "{handed_on}");
    assert_ne!(handed_on, caller, "the call is a span of its own");
    assert_eq!(inherited("nonsense"), "nonsense", "not ours to mend");
}
