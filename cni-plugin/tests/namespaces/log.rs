//! What a call writes down, where, and what it costs nobody: standard output and the journal of the machine.

use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};

use crate::common::{DEADLINE, TestPod, dual_stack, run, with};

const LOG: &str = "/run/podwire.log";

fn records() -> Vec<Value> {
    let text = std::fs::read_to_string(LOG).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn calls_and_their_steps_go_to_a_file() {
    sandbox::private_host(|| {
        let config = with(dual_stack(), &json!({ "logFile": LOG, "logLevel": "debug" }));
        let pod = TestPod::new("one");
        let mut env = pod.env("ADD");
        env.push(("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()));
        env.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1".to_owned()));
        run(&env, &config).ok().json();
        let records = records();
        let steps: Vec<&str> = records.iter().filter_map(|record| record["step"].as_str()).collect();
        for expected in ["lease", "link", "wire"] {
            assert!(steps.contains(&expected), "{steps:?}");
        }
        let done = records.last().unwrap();
        assert_eq!((&done["level"], &done["message"]), (&json!("INFO"), &json!("done")));
        for record in &records {
            let span = &record["span"];
            assert!(record["duration_us"].as_u64().is_some_and(|duration| duration > 0), "{record}");
            for (key, expected) in [
                ("verb", "ADD"),
                ("network", "podnet"),
                ("container_id", "one"),
                ("ifname", "eth0"),
                ("pod", "shop/cart-1"),
                ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
                ("parent_span_id", "00f067aa0ba902b7"),
            ] {
                assert_eq!(span[key], expected, "{record}");
            }
            assert_eq!(span["span_id"].as_str().map(str::len), Some(16), "{record}");
        }
    });
}

#[test]
fn a_failure_is_found_by_its_attachment_after_the_fact() {
    sandbox::private_host(|| {
        let config = with(dual_stack(), &json!({ "logFile": LOG }));
        let pod = TestPod::new("one");
        let mut env = pod.env("ADD");
        env[3].1 = "lo".to_owned();
        let (code, msg) = run(&env, &config).error();
        pod.add(&config).ok();
        pod.del(&config).ok();
        let records = records();
        assert_eq!(records.len(), 3, "no steps at level info: {records:?}");
        let failed = records.iter().find(|record| record["level"] == "ERROR").unwrap();
        assert_eq!((&failed["code"], &failed["msg"]), (&json!(code), &json!(msg)));
        assert_eq!(failed["span"]["ifname"], "lo");
    });
}

#[test]
fn failures_go_to_the_journal_where_there_is_one() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        journal.set_read_timeout(Some(DEADLINE)).unwrap();
        let entry = || loop {
            let mut buffer = [0; 4096];
            let length = journal.recv(&mut buffer).unwrap();
            // The client asks first whether anybody is there.
            if length > 0 {
                return String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
        };
        pod.add(&dual_stack()).ok();
        let (_, msg) = pod.add(&dual_stack()).error();
        let entry = entry();
        for expected in ["CNI_CONTAINER_ID", "CNI_NETWORK", "SYSLOG_IDENTIFIER", "podwire", &msg] {
            assert!(entry.contains(expected), "no {expected} in {entry:?}");
        }
    });
}
