//! What plugins leave behind or may refuse, in ways that the fakes do not know: a shell script that is right but for a line.

#![expect(clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use cni_conformance::runner::{self, Options};
use cni_conformance::target::{Kind, Target};

const SCRIPT: &str = include_str!("../examples/quieter");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quieter.conf");

/// A folder with `quieter`, changed, where everybody may look.
fn quieter(place: &str, line: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our own folder");
    let text = if line.is_empty() { SCRIPT.to_owned() } else { SCRIPT.replacen(place, &format!("{place}{line}\n"), 1) };
    assert!(line.is_empty() || text != SCRIPT, "{place:?} is in the script");
    install(folder.path(), "quieter", &text);
    folder
}

fn install(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("our own folder");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our own folder");
}

fn suite(folder: &Path, args: &[&str]) -> Output {
    let mut command = sandbox::command(env!("CARGO_BIN_EXE_cni-conformance"));
    command.args(args).current_dir(folder).output().expect("it starts")
}

fn ask(folder: &Path, case: &str) -> (Option<i32>, String) {
    ask_with(folder, case, &[])
}

fn ask_with(folder: &Path, case: &str, more: &[&str]) -> (Option<i32>, String) {
    let args = ["run", "--plugin-dir", ".", "--conflist", CONFIG, "--kind", "chained", "--filter", case];
    let output = suite(folder, &[&args, more].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Where ADD begins to work.
const ADD: &str = "    ADD)\n";
/// The interface's other end, which the suite has made.
const HOST_END: &str = "end=$(printf %s \"$config\" | jq -r '.prevResult.interfaces[0].name');";

#[test]
fn what_add_leaves_is_found_whatever_it_is() {
    let leaks = [
        format!("{HOST_END} tc qdisc add dev \"$end\" root tbf rate 1mbit burst 10kb latency 50ms"),
        format!("{HOST_END} ip neighbour add 10.9.8.7 lladdr 02:00:00:00:00:07 nud permanent dev \"$end\""),
        "case $CNI_CONTAINERID in *trial) ;; *) echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet ;; esac".to_owned(),
        format!(
            "{HOST_END} nft \"add table inet q; add chain inet q c; add rule inet q c iifname $end counter accept\""
        ),
        "mkdir -p /run/q; : > \"/run/q/$(printf %s \"$CNI_CONTAINERID\" | sha1sum | cut -c 1-40)\"".to_owned(),
    ];
    for leak in leaks {
        let folder = quieter(ADD, &leak);
        let (status, text) = ask(folder.path(), "DEL-1b");
        assert_eq!(status, Some(1), "{leak}: {text}");
        assert!(text.contains("left behind: "), "{leak}: {text}");
    }
}

#[test]
fn files_that_a_database_numbers_are_no_leak_where_the_target_says_so() {
    let leak = "mkdir -p /run/q; : > \"/run/q/snap.$(printf %s \"$CNI_CONTAINERID\" | sha1sum | cut -c 1-16)\"";
    let folder = quieter(ADD, leak);
    let target = "name = 'q'\nkind = 'chained'\nnumbered = ['/run/q']\nplugins = [{ type = 'quieter' }]\n";
    fs::write(folder.path().join("q.toml"), target).expect("our own folder");
    let output = suite(folder.path(), &["run", "--plugin-dir", ".", "q.toml", "--filter", "DEL-1b"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// SPEC.md, 1, "Plugin configuration objects": plugins "may generate an error if called with unknown fields".
#[test]
fn a_plugin_that_refuses_unknown_keys_is_right() {
    let known = r#"["args","capabilities","cniVersion","name","prevResult","runtimeConfig","txqueuelen","type"]"#;
    let place = "missing=''\n";
    let line = format!("printf %s \"$config\" | jq -e 'keys - {known} == []' >/dev/null || fail 2 'an unknown key'");
    let folder = quieter(place, &line);
    for case in ["ROB-1", "ROB-5"] {
        let (status, text) = ask(folder.path(), case);
        assert_eq!(status, Some(0), "{text}");
        assert!(text.contains("1 passed"), "{text}");
    }
}

/// SPEC.md, 2, "Parameters": the plugin "must return an error"; it does not say which.
#[test]
fn an_interface_name_may_be_refused_with_any_code() {
    let place = "missing=''\n";
    let line = "case ${CNI_IFNAME-} in . | .. | *[/:[:space:]]* | ????????????????*) fail 100 'no such name' ;; esac";
    let folder = quieter(place, line);
    let (status, text) = ask(folder.path(), "IO-11");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("6 passed"), "{text}");
}

/// What it keeps for itself is not known then, so that passing means little.
#[test]
fn a_plugin_whose_first_add_does_not_work_is_in_trouble() {
    let folder = quieter(ADD, "fail 100 'not today'");
    let all = ["run", "--plugin-dir", ".", "--conflist", CONFIG, "--kind", "chained"];
    // Whoever chooses questions has them asked.
    for (more, asked) in [(&[][..], false), (&["--filter", "VER-1a"], true), (&["--filter", "VER-1a", "-k"], true)] {
        let output = suite(folder.path(), &[&all[..], more].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("a first ADD and DEL did not work: ADD failed"), "{text}");
        assert_eq!(text.contains(" 1 passed, 0 failed,"), asked, "{text}");
        assert_eq!(text.contains("nothing was asked: without these two, most questions fail"), !asked, "{text}");
    }
}

/// The questions of VERSION are there to say what is wrong with it, and others do not depend on it.
#[test]
fn a_plugin_whose_version_does_not_work_is_asked_what_is_wrong_with_it() {
    let folder = quieter("case ${CNI_COMMAND-} in\n", "VERSION) echo '{\"cniVersion\":\"1.0.0\"}'; exit ;;");
    let run = ["run", "--plugin-dir", ".", "--conflist", CONFIG, "--kind", "chained", "--jobs", "4"];
    let filters = ["--filter", "VER", "--filter", "DEL-1b", "-v"];
    let output = suite(folder.path(), &[&run[..], &filters].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("a first ADD and DEL were not made: VERSION names no versions"), "{text}");
    assert!(text.contains("FAILED   VER-1a") && text.contains("passed   DEL-1b"), "{text}");
    assert!(!text.contains("nothing was asked"), "{text}");
    // Nor is there an objection if all are asked.
    let options = Options {
        dirs: vec![folder.path().to_owned()],
        jobs: 1,
        limit: Duration::from_secs(300),
        points: 1,
        program: env!("CARGO_BIN_EXE_cni-conformance").into(),
    };
    let target = Target::of_conflist(Path::new(CONFIG), Kind::Chained).expect("our own config");
    let profile = runner::profile(&target, &options).expect("it is tried");
    assert!(profile.trouble.is_some());
    assert_eq!(runner::objection(&target, &profile, &options, false).expect("a private host"), None);
}

#[test]
fn what_takes_two_pods_at_a_time_is_not_asked_where_all_get_one_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ipam = r#"{"type":"static","addresses":[{"address":"10.109.0.7/24","gateway":"10.109.0.1"}]}"#;
    let config = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"ptp","ipam":{ipam}}}"#);
    fs::write(folder.path().join("my.conf"), config).expect("our own folder");
    let cases = ["ADD-14", "IPA-1", "IO-13b", "DEL-8c"];
    let filters = cases.iter().flat_map(|case| ["--filter", case]);
    let args = ["run", "--plugin-dir", "/usr/lib/cni", "--conflist", "my.conf", "-o", "json"];
    let output = suite(folder.path(), &args.into_iter().chain(filters).collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let reports: serde_json::Value = serde_json::from_str(&text).expect("it prints JSON");
    let rows = reports[0]["rows"].as_array().expect("rows");
    for case in cases.into_iter().chain(["IPA-10"]) {
        let row = rows.iter().find(|row| row["id"] == case).expect("it has a row");
        let why = row["why"].as_str().unwrap_or_default();
        assert!(why.starts_with("all pods get the same address"), "{row}");
    }
}

#[test]
fn versions_that_the_plugin_lacks_are_refused() {
    let folder = quieter("", "");
    for (version, complaint) in [
        ("9.9.9", "invalid value '9.9.9'"),
        ("0.3.0", "the plugin supports spec versions 0.4.0 1.0.0 1.1.0, not 0.3.0"),
    ] {
        let args = ["run", "--plugin-dir", ".", "--conflist", CONFIG, "--kind", "chained", "--spec-version", version];
        let output = suite(folder.path(), &args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(complaint), "{text}");
    }
}

/// Each release logs its calls in a file of its own beside the executable.
#[test]
fn bench_compares_two_releases_of_one_plugin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our own folder");
    for (name, kind) in [("a", "chained"), ("b", "chained"), ("c", "main")] {
        let own = folder.path().join(name);
        fs::create_dir(&own).expect("our own folder");
        let log = own.join("calls");
        let line = format!("printf '%s\\n' \"${{CNI_COMMAND-}}\" >> {}", log.display());
        install(&own, "quieter", &SCRIPT.replacen("set -u\n", &format!("set -u\n{line}\n"), 1));
        let target = format!(
            "name = '{name}'\nkind = '{kind}'\ndirs = ['{}']\nplugins = [{{ type = 'quieter' }}]\n",
            own.display()
        );
        fs::write(folder.path().join(format!("{name}.toml")), target).expect("our own folder");
    }
    let output = suite(folder.path(), &["bench", "a.toml", "b.toml", "--rounds", "3", "--burst", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let adds = |name: &str| {
        let calls = fs::read_to_string(folder.path().join(name).join("calls")).expect("it was called");
        calls.lines().filter(|call| *call == "ADD").count()
    };
    // Once to try it, and in each round alone and in a burst of one.
    assert_eq!((adds("a"), adds("b")), (7, 7));
    let complaints: [(&[&str], &str); 3] = [
        (&["bench", "a.toml", "c.toml"], "a is chained and c is main"),
        (&["bench", "a.toml", "b.toml", "--rounds", "0"], "it must be at least 1"),
        (&["bench", "a.toml", "b.toml", "--burst", "0"], "0 is not in 1..=65535"),
    ];
    for (args, complaint) in complaints {
        let output = suite(folder.path(), args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(complaint), "{text}");
    }
}

#[test]
fn a_deviation_of_no_case_is_refused() {
    let folder = quieter("", "");
    for id in ["NO-SUCH", "ver-1a"] {
        let target = format!(
            "name = 'q'\nkind = 'chained'\nplugins = [{{ type = 'quieter' }}]\n[[deviations]]\ncases = ['{id}']\nwhy = 'w'\nsource = 's'\n"
        );
        fs::write(folder.path().join("q.toml"), target).expect("our own folder");
        let output = suite(folder.path(), &["run", "--plugin-dir", ".", "q.toml", "--filter", "VER-1a"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("a deviation names {id}")), "{text}");
    }
}

#[test]
fn a_filter_that_begins_a_topic_means_the_topic() {
    let count = |filter: &str| {
        let output = suite(Path::new("/"), &["list", "--json", "--filter", filter]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        list.as_array().map_or(0, Vec::len)
    };
    for (part, topic) in [("packet", "packets"), ("port", "ports"), ("robust", "robustness")] {
        assert_eq!(count(part), count(topic), "{part}");
        assert!(count(topic) > 10, "{topic}");
    }
    assert_eq!(count("comes in pieces"), 1, "a part of one title");
    let output = suite(Path::new("/"), &["list", "--filter", "no-such-thing"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("topics: protocol, parameters, version"), "{text}");
}
