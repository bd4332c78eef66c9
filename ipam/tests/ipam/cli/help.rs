//! Help, manual pages and completion.

use std::process::Stdio;

use super::ipam;
use crate::support::Place;

/// The commands that `ipam --help` lists.
fn commands() -> Vec<String> {
    let help = ipam(&["--help"]).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_has_an_example_in_its_help() {
    let commands = commands();
    for name in [
        "list",
        "show",
        "pools",
        "stats",
        "history",
        "check",
        "verify",
        "gc",
        "release",
        "reserve",
        "unreserve",
        "export",
        "import",
        "repair",
        "watch",
        "status",
        "metrics",
        "map",
        "schema",
        "completion",
    ] {
        assert!(commands.iter().any(|command| command == name), "{name} is missing in {commands:?}");
    }
    for option in ["--help", "-h"] {
        let help = ipam(&[option]).stdout;
        assert!(help.contains("Examples:\n  ipam list\n") && help.contains("Exit codes:\n  0  done\n"), "{help}");
    }
    for command in commands {
        for option in ["--help", "-h"] {
            let help = ipam(&[&command, option]);
            assert_eq!(help.code, 0, "{command}");
            assert!(help.stdout.contains("Examples:\n  "), "{command} {option}: {}", help.stdout);
            assert!(help.stdout.contains(&format!("ipam {command}")), "{command} {option}: {}", help.stdout);
        }
    }
}

/// What a command cannot do without stands in its usage.
#[test]
fn reserve_says_that_it_wants_a_reason() {
    let help = ipam(&["reserve", "--help"]).stdout;
    assert!(help.contains("Usage: ipam reserve [OPTIONS] --reason <TEXT> <CIDR>\n"), "{help}");
    let help = ipam(&["unreserve", "--help"]).stdout;
    assert!(help.contains("Usage: ipam unreserve [OPTIONS] <CIDR>\n"), "{help}");
}

#[test]
fn every_command_has_a_manual_page() {
    let place = tempfile::tempdir().unwrap();
    let made = ipam(&["man", place.path().to_str().unwrap()]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    for page in commands().iter().map(|command| format!("ipam-{command}.1")).chain(["ipam.1".to_owned()]) {
        let text = std::fs::read_to_string(place.path().join(&page)).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    assert_eq!(ipam(&["man", "/nowhere"]).code, 1);
}

/// What the shell is told that could stand at the end of these words, but for options.
fn completed(words: &[&str]) -> Vec<String> {
    let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    process.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    process.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
    let output = process.arg("--").args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('-')).map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn a_shell_completes_commands_and_what_there_is() {
    sandbox::private_host(|| {
        for (shell, part) in [("bash", "complete "), ("zsh", "#compdef ipam"), ("fish", "complete --")] {
            let script = ipam(&["completion", shell]);
            assert_eq!(script.code, 0);
            assert!(script.stdout.contains(part) && script.stdout.contains("ipam"), "{shell}: {}", script.stdout);
        }
        assert_eq!(completed(&["ipam", "unres"]), ["unreserve"]);
        assert!(completed(&["ipam", "show", ""]).is_empty(), "where there is no ledger, nothing is made up");
        assert!(!std::path::Path::new(ipam::Ledger::DEFAULT_DIR).exists());
        let place = Place::new();
        let conf = serde_json::json!({ "podCIDR": "10.1.2.0/24", "dataDir": ipam::Ledger::DEFAULT_DIR });
        let mut request = place.request("red", "c1");
        request.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart".parse().unwrap();
        place.ipam("red", &conf).lease(&request).unwrap();
        assert_eq!(completed(&["ipam", "show", ""]), ["10.1.2.2", "shop/cart"]);
        assert_eq!(completed(&["ipam", "list", "--network", ""]), ["red"]);
        assert_eq!(completed(&["ipam", "release", "10."]), ["10.1.2.2"]);
        assert_eq!(completed(&["ipam", "list", "--state", "c"]), ["cooling"]);
    });
}
