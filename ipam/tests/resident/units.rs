//! The unit files, as they are shipped.

use std::fs;
use std::path::{Path, PathBuf};

use ipam::Ledger;

/// Where the units expect the command.
const INSTALLED: &str = "/usr/local/bin/ipam";

fn unit(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples").join("systemd");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The values of a key, which may stand more than once.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let of_key = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    text.lines().filter_map(of_key).collect()
}

#[test]
fn systemd_understands_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["podwire-ipam.service", "podwire-ipam.socket"].map(|name| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, unit(name).replace(INSTALLED, env!("CARGO_BIN_EXE_ipam"))).unwrap();
        path
    });
    let verify = || {
        let mut process = sandbox::command("systemd-analyze");
        let output = process.args(["verify", "--man=no", "--recursive-errors=one"]).args(&paths).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(verify(), (true, String::new()));
    // That it would have told.
    let wrong = unit("podwire-ipam.service").replace("KillSignal=", "KilSignal=");
    fs::write(&paths[0], wrong.replace(INSTALLED, env!("CARGO_BIN_EXE_ipam"))).unwrap();
    assert!(verify().1.contains("KilSignal"));
}

/// An owner is found where plugins look, and nowhere else.
#[test]
fn socket_and_service_mean_the_usual_ledger() {
    let (service, socket) = (unit("podwire-ipam.service"), unit("podwire-ipam.socket"));
    assert_eq!(values(&socket, "ListenStream"), [format!("{}/ipam.sock", Ledger::DEFAULT_DIR)]);
    assert_eq!((values(&socket, "SocketMode"), values(&socket, "DirectoryMode")), (vec!["0600"], vec!["0700"]));
    let [exec] = values(&service, "ExecStart")[..] else { panic!("one command") };
    let arguments: Vec<&str> = exec.strip_prefix(INSTALLED).unwrap().split_whitespace().collect();
    assert!(!arguments.contains(&"--dir"), "{exec}");
    let parsed = sandbox::command(env!("CARGO_BIN_EXE_ipam")).args(arguments).arg("--help").output().unwrap();
    assert!(parsed.status.success(), "{parsed:?}");
    let writable: Vec<&str> = values(&service, "ReadWritePaths").into_iter().flat_map(str::split_whitespace).collect();
    for folder in [Ledger::DEFAULT_DIR, Ledger::DEFAULT_STATE_DIR] {
        assert!(writable.iter().any(|path| Path::new(folder).starts_with(path)), "{folder} is not in {writable:?}");
    }
}
