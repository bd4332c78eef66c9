//! What a runtime leaves behind ends with the run, also if the run is killed itself.

#![cfg(test)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Says which process namespace it is in, when there is a daemon of another session beside it.
const STAND_IN: &str = "\
#!/bin/sh
setsid sleep 600 &
readlink /proc/self/ns/pid >FILE.new
mv FILE.new FILE
exec sleep 600
";

/// Makes a control group below the run's parent in every hierarchy, says in which, and fails.
const GROUPS: &str = "\
#!/bin/sh
parent=$(tr '\\0' '\\n' </proc/$PPID/cmdline | sed -n '/^--cgroup-parent$/ { n; p; }')
for hierarchy in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/self/mounts); do
    mkdir -p $hierarchy$parent/group && echo made $hierarchy$parent/group
done
exit 1
";

/// The harness is asked, and neither plugins nor a runtime: that one is a script which does what runtimes do, and lasts.
#[test]
fn nothing_outlives_a_run_that_is_killed() {
    if !is_root_of_the_machine() {
        eprintln!("skipped: container runtimes need root of the machine");
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let namespace = folder.path().join("namespace");
    stand_in(folder.path(), &STAND_IN.replace("FILE", &namespace.display().to_string()));
    let mut run = sandbox::command(env!("CARGO_BIN_EXE_podwire-runtimes"));
    let mut run = run.args(options(folder.path())).stdin(Stdio::null()).spawn().unwrap();
    let namespace = read(&namespace, &mut run);
    let inside = processes(&namespace);
    run.kill().unwrap();
    run.wait().unwrap();

    // Process 1, the node, and the two of the script.
    assert!(inside.len() >= 4, "{inside:?} are in {namespace}");
    let deadline = Instant::now() + PATIENCE;
    while !processes(&namespace).is_empty() {
        assert!(Instant::now() < deadline, "{:?} of {inside:?} are still there", processes(&namespace));
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whatever the machine shows: not every machine has them where programs look for them, or lets them be written to there.
#[test]
fn control_groups_are_there_and_removed_where_the_machine_shows_none() {
    if !is_root_of_the_machine() {
        eprintln!("skipped: container runtimes need root of the machine");
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    stand_in(folder.path(), GROUPS);
    let mut run = sandbox::command("unshare");
    run.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        "umount --recursive /sys/fs/cgroup; exec \"$@\"",
        "sh",
    ]);
    run.arg(env!("CARGO_BIN_EXE_podwire-runtimes")).args(options(folder.path()));
    let output = run.output().unwrap();

    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let made: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("made ")).collect();
    let Some(first) = made.first() else { panic!("no group was made: {said}") };
    let parent = Path::new(first).ancestors().nth(1).and_then(Path::file_name).unwrap();
    // Where the machine shows them, if it does.
    let mut shown = sandbox::command("find");
    let shown = shown.args(["/sys/fs/cgroup", "-name"]).arg(parent).stderr(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "");
}

/// Whoever reads the output of a run on a machine that is gone has nothing else.
#[test]
fn logs_are_shown_when_a_run_fails() {
    if !is_root_of_the_machine() {
        eprintln!("skipped: container runtimes need root of the machine");
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    stand_in(folder.path(), "#!/bin/sh\necho out of memory >/opt/runtime/podman.log\nexit 1\n");
    let mut run = sandbox::command(env!("CARGO_BIN_EXE_podwire-runtimes"));
    let output = run.args(options(folder.path())).output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the end of /opt/runtime/podman.log\nout of memory\n"), "{said}");
}

/// A podman that is this script, and whatever else a run looks for first.
fn stand_in(folder: &Path, script: &str) {
    let programs = folder.join("usr/bin");
    fs::create_dir_all(&programs).unwrap();
    for plugin in ["podwire", "podwire-ipam", "ipam", "podwire-portmap", "podwire-record", "podwire-demo"] {
        fs::write(folder.join(plugin), "").unwrap();
    }
    let podman = programs.join("podman");
    fs::write(&podman, script).unwrap();
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Plugins and programs from the folder.
fn options(folder: &Path) -> [&OsStr; 6] {
    let folder = folder.as_os_str();
    let [plugins, programs, runtime, podman] = ["--plugin-dir", "--programs", "--runtime", "podman"].map(OsStr::new);
    [plugins, folder, programs, folder, runtime, podman]
}

fn is_root_of_the_machine() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let mut unshare = sandbox::command("unshare");
    unshare.args(["--pid", "--fork", "--mount", "--mount-proc", "true"]).stderr(Stdio::null());
    nix::unistd::geteuid().is_root()
        && map.split_whitespace().eq(["0", "0", "4294967295"])
        && unshare.status().unwrap().success()
}

/// What is in the file as soon as it is there.
fn read(file: &Path, run: &mut Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            return text.trim().to_owned();
        }
        assert!(run.try_wait().unwrap().is_none(), "the run has ended");
        assert!(Instant::now() < deadline, "{} is not there", file.display());
        thread::sleep(Duration::from_millis(10));
    }
}

/// All in a process namespace, by their numbers outside of it.
fn processes(namespace: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_inside =
        |process: &PathBuf| fs::read_link(process.join("ns/pid")).is_ok_and(|link| link == Path::new(namespace));
    all.filter(is_inside).collect()
}
