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
    ];
    for (args, complaint) in complaints {
        let ran = cni_conformance(folder.path(), &args);
        assert_eq!(ran.status, Some(2), "{args:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(complaint), "{args:?}: {}", ran.stderr);
    }
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
fn explain_says_sentence_action_and_observation() {
    let ran = cni_conformance(Path::new("/"), &["explain", "del-5c"]);
    for part in ["DEL-5c: ", "\n  spec ", "\n  where ", "\n  asked of ", "\n  done ", "\n  observed ", "\n  run it "] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {}", ran.stdout);
    }
    let ran = cni_conformance(Path::new("/"), &["explain", "RT-5"]);
    assert!(ran.stdout.contains("not asked: "), "{}", ran.stdout);
}

/// The lines of the README that are indented as code and begin so.
fn commands(beginning: &str) -> Vec<Vec<&'static str>> {
    let lines = README.lines().map(str::trim).filter(|line| line.starts_with(beginning));
    lines.map(|line| line.split_whitespace().skip(1).collect()).collect()
}

/// The shell script that the guide shows.
fn script() -> String {
    let start = README.lines().skip_while(|line| line.trim() != "#!/bin/sh");
    let body = start.take_while(|line| line.is_empty() || line.starts_with("    "));
    body.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

#[test]
fn the_guide_works_with_a_shell_script() {
    let folder = folder();
    let plugin = folder.path().join("bin/hello");
    fs::write(&plugin, script()).expect("our own folder");
    fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("our own folder");
    fs::write(folder.path().join("my.conflist"), r#"{"name":"hello","plugins":[{"type":"hello"}]}"#)
        .expect("our own folder");
    let guide = commands("cni-conformance run --plugin-dir ./bin --conflist my.conflist");
    let first = guide.first().expect("the guide begins with this command");
    let only = ["--filter", "VER-1", "--filter", "VER-3", "--filter", "STA", "--filter", "ADD-2", "--filter", "ADD-1a"];
    let ran = cni_conformance(folder.path(), &[first.as_slice(), &only, &["-v"]].concat());
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    for passed in ["VER-1a", "VER-1b", "VER-3a", "VER-3b"] {
        assert!(ran.stdout.contains(&format!("passed   {passed}")), "{passed}: {}", ran.stdout);
    }
    assert!(ran.stdout.contains("FAILED   ADD-1a"), "{}", ran.stdout);
}

#[test]
fn the_guide_works_with_programs_written_in_go() {
    let folder = folder();
    for (name, kind, config) in [
        (
            "ptp",
            "main",
            r#"{"cniVersion":"1.0.0","name":"n","type":"ptp","ipam":{"type":"host-local","subnet":"10.120.0.0/24"}}"#,
        ),
        (
            "host-local",
            "ipam",
            r#"{"cniVersion":"1.0.0","name":"n","type":"host-local","ipam":{"type":"host-local","subnet":"10.120.0.0/24"}}"#,
        ),
        ("tuning", "chained", r#"{"cniVersion":"1.0.0","name":"n","type":"tuning","mtu":1400}"#),
    ] {
        fs::write(folder.path().join("my.conflist"), config).expect("our own folder");
        let args = ["run", "--plugin-dir", "/usr/lib/cni", "--conflist", "my.conflist", "--kind", kind];
        let ran = cni_conformance(folder.path(), &[&args[..], &["--filter", "IO-2", "--filter", "RES-6"]].concat());
        assert_eq!(ran.status, Some(0), "{name}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(" passed, 0 failed"), "{}", ran.stdout);
    }
}
