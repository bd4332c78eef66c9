//! `enter`, in a program without other threads.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use sandbox::command;

fn network_inode() -> u64 {
    fs::metadata("/proc/self/ns/net").expect("procfs").ino()
}

fn ip(args: &[&str]) -> String {
    let output = command("ip").args(args).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn main() {
    let outside = network_inode();
    sandbox::enter().expect("this program has one thread");
    assert_ne!(network_inode(), outside);
    assert!(nix::unistd::geteuid().is_root());
    assert_eq!(ip(&["-brief", "link"]).lines().count(), 1);
    std::net::TcpListener::bind("127.0.0.1:80").expect("lo is up, and this is its root");
    ip(&["netns", "add", "blue"]);
    ip(&["link", "add", "left", "type", "veth", "peer", "name", "right", "netns", "blue"]);
    assert!(ip(&["-n", "blue", "link"]).contains("right"));
    fs::write("/var/lib/mine", "").expect("a tmpfs of its own");
    // A sandbox in a sandbox: what the demo's own tests are.
    let inside = network_inode();
    sandbox::enter().expect("still one thread");
    assert_ne!(network_inode(), inside);
    assert_eq!(ip(&["-brief", "link"]).lines().count(), 1);
    assert!(!fs::exists("/var/lib/mine").expect("readable"));
}
