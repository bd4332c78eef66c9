//! The command as its users know it: exit status, filters, and the guide for plugin authors, tried out.

#![expect(clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const README: &str = include_str!("../README.md");

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn cni_conformance(folder: &Path, args: &[&str]) -> Ran {
    let mut command = sandbox::command(env!("CARGO_BIN_EXE_cni-conformance"));
    let output = command.args(args).current_dir(folder).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A folder with `bin`, where everybody may look.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("bin")).expect("our own folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our own folder");
    folder
}

/// A faultless IPAM plugin under this name, and a config for it.
fn fake(folder: &Path, name: &str) {
    symlink(env!("CARGO_BIN_EXE_cni-fake"), folder.join("bin").join(name)).expect("a symbolic link");
    let config = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"{name}","ipam":{{"type":"{name}"}}}}"#);
    fs::write(folder.join("my.conf"), config).expect("our own folder");
}

const IPAM: [&str; 6] = ["run", "--plugin-dir", "bin", "--conflist", "my.conf", "--kind=ipam"];

#[test]
fn the_exit_status_is_0_if_all_passed() {
    let folder = folder();
    fake(folder.path(), "cni-fake-ipam");
    let ran = cni_conformance(folder.path(), &[&IPAM[..], &["--filter", "VER-1a", "--filter", "DP-1"]].concat());
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("it is for main plugins, and this one is ipam"), "skips say why: {}", ran.stdout);
}

#[test]
fn the_exit_status_is_1_if_something_failed() {
    let folder = folder();
    fake(folder.path(), "cni-fake-ipam+VER-1a");
    let ran = cni_conformance(folder.path(), &[&IPAM[..], &["--filter", "VER-1a"]].concat());
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("FAILED   VER-1a"), "{}", ran.stdout);
}

/// Every kind of plugin, run as each of the others.
#[test]
fn a_wrong_kind_is_told_and_nothing_is_asked() {
    let kinds = ["main", "chained", "ipam"];
    let folder = folder();
    for is in kinds {
        let plugin = format!("cni-fake-{is}");
        symlink(env!("CARGO_BIN_EXE_cni-fake"), folder.path().join("bin").join(&plugin)).expect("a symbolic link");
        let config = format!(
            r#"{{"cniVersion":"1.1.0","name":"n","type":"{plugin}","ipam":{{"type":"cni-fake-ipam"}},"capabilities":{{"portMappings":true}}}}"#
        );
        fs::write(folder.path().join(format!("{is}.conf")), config).expect("our own folder");
    }
    for (is, asked_as) in kinds.iter().flat_map(|is| kinds.map(|asked_as| (*is, asked_as))) {
        let config = format!("{is}.conf");
        let args = ["run", "--plugin-dir", "bin", "--conflist", &config, "--kind", asked_as, "--filter", "IO-2a"];
        let ran = cni_conformance(folder.path(), &args);
        if is == asked_as {
            assert_eq!(ran.status, Some(0), "{is}: {}{}", ran.stdout, ran.stderr);
            continue;
        }
        let hint = format!(": try --kind {is}, or kind = \"{is}\" in its target file; --keep-going asks all the same");
        assert_eq!(ran.status, Some(2), "{is} as {asked_as}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("nothing was asked: ") && ran.stdout.contains(&hint), "{}", ran.stdout);
        assert!(ran.stdout.contains(" 0 passed, 0 failed,"), "{}", ran.stdout);
    }
    // For programs there is a reason beside the report; whoever insists is served.
    let as_main = ["run", "--plugin-dir", "bin", "--conflist", "chained.conf", "--filter", "IO-2a"];
    let ran = cni_conformance(folder.path(), &[&as_main[..], &["-o", "json"]].concat());
    let reports: serde_json::Value = serde_json::from_str(&ran.stdout).expect("it prints JSON");
    assert!(reports[0]["unasked"].as_str().is_some_and(|why| why.contains("--kind chained")), "{reports}");
    assert!(ran.stderr.contains("n: nothing was asked: it seems to be a plugin of another kind"), "{}", ran.stderr);
    let ran = cni_conformance(folder.path(), &[&as_main[..], &["--keep-going"]].concat());
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(ran.stdout.contains("FAILED   IO-2a") && !ran.stdout.contains("nothing was asked"), "{}", ran.stdout);
}

#[test]
fn the_exit_status_is_2_if_it_could_not_run() {
    let folder = folder();
    fake(folder.path(), "cni-fake-ipam");
    let complaints = [
        (vec!["run", "--conflist", "my.conf", "--kind", "ipam"], "name its folder with --plugin-dir"),
        (vec!["run", "--conflist", "not-there.conf"], "cannot read not-there.conf"),
        (vec!["run"], "name a target file"),
        ([&IPAM[..], &["--filter", "no-such-case"]].concat(), "no case matches no-such-case"),
        (vec!["explain", "no-such-case"], "no case matches no-such-case"),
        (vec!["list", "--filter", "no-such-case"], "concurrency, robustness, runtimes, "),
    ];
    for (args, complaint) in complaints {
        let ran = cni_conformance(folder.path(), &args);
        assert_eq!(ran.status, Some(2), "{args:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(complaint), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_log_is_told_how_far_it_is_unless_that_is_not_wanted() {
    let folder = folder();
    fake(folder.path(), "cni-fake-ipam");
    let args = [&IPAM[..], &["--filter", "parameters"]].concat();
    let ran = cni_conformance(folder.path(), &args);
    assert!(ran.stderr.contains("n: 25/29 cases, 0 failed, last "), "{}", ran.stderr);
    let ran = cni_conformance(folder.path(), &[&args[..], &["--quiet"]].concat());
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_known_deviation_that_is_gone_is_a_failure() {
    let folder = folder();
    fake(folder.path(), "cni-fake-ipam");
    let target = "name = 'n'\nkind = 'ipam'\nplugins = [{ type = 'cni-fake-ipam' }]\n\
                  [[deviations]]\ncases = ['VER-1a']\nwhy = 'a reason'\nsource = 'a file'\n";
    fs::write(folder.path().join("target.toml"), target).expect("our own folder");
    let args = ["run", "target.toml", "--plugin-dir", "bin", "--filter", "VER-1a", "-o", "json"];
    let ran = cni_conformance(folder.path(), &args);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("listed as a known deviation, but it passes"), "{}", ran.stdout);
}

#[test]
fn every_help_has_examples() {
    let help = |args: &[&str]| cni_conformance(Path::new("/"), args).stdout;
    let all = help(&["--help"]);
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = listed.filter(|line| !line.starts_with("   "));
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(commands, ["run", "report", "list", "explain", "bench", "help"]);
    for command in commands.iter().filter(|command| **command != "help") {
        for option in ["--help", "-h"] {
            let text = help(&[command, option]);
            assert!(text.contains("Examples:\n  cni-conformance "), "{command} {option}: {text}");
            assert!(text.contains(&format!("cni-conformance {command} ")), "{command} {option}: {text}");
        }
    }
    assert!(all.contains("Examples:\n  cni-conformance "), "{all}");
}

#[test]
fn explain_says_sentence_action_and_observation() {
    let ran = cni_conformance(Path::new("/"), &["explain", "del-5c"]);
    for part in ["DEL-5c: ", "\n  spec ", "\n  where ", "\n  asked of ", "\n  done ", "\n  observed ", "\n  run it "] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {}", ran.stdout);
    }
    let ran = cni_conformance(Path::new("/"), &["explain", "RT-5"]);
    assert!(ran.stdout.contains("not asked: "), "{}", ran.stdout);
}

/// The commands of the guide, with the words that the test adds so that they take seconds; the guide's own run from the
/// folder that the guide is in.
fn guide(beginning: &str, more: &[&str]) -> Ran {
    let start = README.lines().skip_while(|line| !line.starts_with("## Test your plugin in five minutes"));
    let guide = start.take_while(|line| !line.starts_with("## Target files")).map(str::trim);
    let command = guide.clone().find(|line| line.starts_with(beginning)).expect("the guide has this command");
    let words: Vec<_> = command.split_whitespace().skip(1).collect();
    cni_conformance(Path::new(env!("CARGO_MANIFEST_DIR")), &[words.as_slice(), more].concat())
}

#[test]
fn the_guide_works_with_a_shell_script() {
    let ran = guide("cni-conformance run --plugin-dir examples", &["--points", "1", "--jobs", "4"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("quiet (chained plugin, spec 0.4.0 1.0.0 1.1.0)"), "{}", ran.stdout);
    assert!(ran.stdout.contains(" passed, 0 failed, 0 left residue"), "{}", ran.stdout);
}

#[test]
fn the_guide_notices_what_a_shell_script_does_wrong() {
    let folder = folder();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quieter")).expect("our own file");
    let spoilt = text.replace("field '.prevResult'\n", "echo '{}'\n");
    assert_ne!(text, spoilt);
    let plugin = folder.path().join("bin/quieter");
    fs::write(&plugin, spoilt).expect("our own folder");
    fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("our own folder");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quieter.conf");
    let args = ["run", "--plugin-dir", "bin", "--conflist", config, "--kind", "chained", "--filter", "ADD-3"];
    let ran = cni_conformance(folder.path(), &args);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("FAILED   ADD-3a"), "{}", ran.stdout);
}

#[test]
fn the_guide_works_with_a_program_written_in_go() {
    let ran = guide("cni-conformance run --plugin-dir /usr/lib/cni", &["--filter", "IO-5", "--filter", "DP-1"]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("FAILED   IO-5d"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("FAILED   DP"), "{}", ran.stdout);
    let ran = guide("cni-conformance explain DEL-5c", &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("DEL-5c: DEL with an empty CNI_NETNS leaves nothing"), "{}", ran.stdout);
    let only = "cni-conformance run --plugin-dir /usr/lib/cni --conflist examples/ptp.conflist --filter DEL-5c -v";
    let ran = guide(only, &[]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("left behind: ") && ran.stdout.contains("DEL ("), "{}", ran.stdout);
}

#[test]
fn each_kind_of_plugin_may_be_a_single_config() {
    let folder = folder();
    let host_local = r#"{"cniVersion":"1.0.0","name":"n","type":"host-local","ipam":{"type":"host-local","subnet":"10.120.0.0/24"}}"#;
    let tuning = r#"{"cniVersion":"1.0.0","name":"n","type":"tuning","mtu":1400}"#;
    for (kind, config) in [("ipam", host_local), ("chained", tuning)] {
        fs::write(folder.path().join("my.conflist"), config).expect("our own folder");
        let args = ["run", "--plugin-dir", "/usr/lib/cni", "--conflist", "my.conflist", "--kind", kind];
        let ran = cni_conformance(folder.path(), &[&args[..], &["--filter", "IO-2", "--filter", "RES-6"]].concat());
        assert_eq!(ran.status, Some(0), "{kind}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(" passed, 0 failed"), "{}", ran.stdout);
    }
}

#[test]
fn bench_measures_two_targets_in_turns() {
    for kind in ["chained", "ipam"] {
        let folder = folder();
        fake(folder.path(), &format!("cni-fake-{kind}"));
        for name in ["one", "two"] {
            let target = format!("name = '{name}'\nkind = '{kind}'\nplugins = [{{ type = 'cni-fake-{kind}' }}]\n");
            fs::write(folder.path().join(format!("{name}.toml")), target).expect("our own folder");
        }
        let args = ["bench", "one.toml", "two.toml", "--plugin-dir", "bin", "--rounds", "2", "--burst", "2"];
        let ran = cni_conformance(folder.path(), &[&args[..], &["--present", "1", "-o", "json"]].concat());
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("it prints JSON");
        assert_eq!((&report["base"], &report["other"], &report["rounds"]), (&"one".into(), &"two".into(), &2.into()));
        let operations = report["runs"][0]["operations"].as_array().expect("one run for --present");
        let names: Vec<_> = operations.iter().map(|one| one["operation"].as_str().unwrap_or_default()).collect();
        assert_eq!(names, ["ADD", "CHECK", "DEL", "burst ADD", "burst DEL"]);
        for one in operations {
            for key in ["base_ms", "other_ms", "times_as_fast", "from", "to"] {
                assert!(one[key].as_f64().is_some_and(|value| value > 0.0), "{kind}: {key} of {one}");
            }
        }
    }
}
