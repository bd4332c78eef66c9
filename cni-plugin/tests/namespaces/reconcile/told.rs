//! A timer's runs: what stands is said once.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{keep, reconcile};
use crate::common::{TestPod, dual_stack, text};

const TOLD: &str = "/run/made/if/need/be/told";

/// Until it changes; what was done is said each time.
#[test]
fn what_stands_is_said_once() {
    sandbox::private_host(|| {
        let run = || reconcile(&["--quiet", "--told", TOLD]);
        assert_eq!(run(), (0, String::new()));
        let pods = ["one", "two"].map(TestPod::new);
        for (pod, count) in pods.iter().zip(1..) {
            pod.add(&dual_stack()).ok();
            let (code, said) = run();
            let known = format!("podwire: not all is known of {count} of {count} pods: ");
            assert!(code == 4 && said.starts_with(&known) && said.lines().count() == 1, "{said}");
            assert_eq!(run(), (4, String::new()), "the same as before");
        }
        assert_eq!(reconcile(&["--quiet"]).1.lines().count(), 1, "who does not name the file hears it");

        for _ in 0..2 {
            text("nft", &["flush", "ruleset"]);
            let (code, said) = run();
            assert!(code == 4 && said.matches(" eth0: restored (").count() == 2, "{said}");
            assert!(!said.contains("not all is known"), "{said}");
            assert_eq!(run(), (4, String::new()));
        }

        pods.iter().for_each(|pod| keep(pod, &dual_stack(), &json!({})));
        text("nft", &["flush", "ruleset"]);
        let (code, said) = run();
        assert!(code == 0 && said.matches(" eth0: restored (").count() == 2, "{said}");
        assert!(!Path::new(TOLD).exists(), "nothing stands");
        text("ip", &["route", "flush", "proto", "112"]);
        let (code, said) = run();
        assert!(code == 4 && said.matches("no IPv4 route leads to").count() == 2, "{said}");
        assert_eq!(run(), (4, String::new()));
        // What cannot be noted is said again.
        fs::remove_file(TOLD).unwrap();
        text("mount", &["-t", "tmpfs", "-o", "ro", "none", "/run/made"]);
        for _ in 0..2 {
            let (code, said) = run();
            assert!(code == 4 && said.contains("no IPv4 route leads to") && said.contains("cannot be noted"), "{said}");
        }
    });
}
