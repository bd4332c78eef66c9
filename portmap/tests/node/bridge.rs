//! Pods behind a bridge, which is there before them and stays: it must not stay open to answers to the loopback.

use std::fs;

use crate::common::backend::Backend;
use crate::common::net::pod;
use crate::common::plugin::{Answer, Attachment, ruleset, run};
use kernel::sysctl;
use serde_json::json;

on_each_backend!(
    a_bridge_is_closed_again_with_its_last_pod,
    a_bridge_that_a_killed_del_left_open_has_its_guard,
    a_bridge_is_open_as_long_as_any_backend_needs_it,
    what_somebody_else_has_opened_stays_open,
    what_could_not_be_closed_keeps_its_guard,
    mappings_of_one_family_leave_no_other_open,
);

on_iptables!(a_bridge_is_closed_where_somebody_else_marks,);

const LOG: &str = "/run/strace";
/// More than any DEL makes of one kind.
const MOST_CALLS: u32 = 400;

fn bridge() {
    for arguments in [
        ["link", "add", "cni0", "type", "bridge"].as_slice(),
        &["address", "add", "10.99.0.1/24", "dev", "cni0"],
        &["link", "set", "cni0", "up"],
    ] {
        assert!(sandbox::command("ip").args(arguments).status().unwrap().success());
    }
}

fn behind_it(id: &str, number: u32) -> Attachment {
    let ports = json!([{ "hostPort": 8000 + number, "containerPort": 80 }]);
    Attachment::on_paper(id, &[&format!("10.99.0.{number}/24")], &ports)
}

fn is_open() -> bool {
    sysctl::get("net/ipv4/conf/cni0/route_localnet").unwrap() != "0"
}

/// Whether neighbours are kept out.
fn is_guarded(backend: Backend) -> bool {
    let rules = backend.rules();
    match backend {
        Backend::Nftables => rules.contains("iifname != \"lo\" ip daddr 127.0.0.0/8 drop"),
        _ => {
            rules.contains("-A PREROUTING ! -i lo -m comment --comment podwire-hostport -j PODWIRE-GUARD")
                && rules.contains("-A PODWIRE-GUARD -d 127.0.0.0/8")
        }
    }
}

fn a_bridge_is_closed_again_with_its_last_pod(backend: Backend) {
    bridge();
    let attach = |id: &str, number: u32| {
        let attachment = behind_it(id, number).on(backend);
        attachment.add().ok();
        attachment
    };
    attach("c1", 2);
    assert!(is_open() && is_guarded(backend), "{}", backend.rules());
    // Its DEL was lost, and now it is behind an interface of its own.
    let moved = Attachment::new(&pod(2), &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend);
    let moved = Attachment { container: "c1".to_owned(), ..moved };
    moved.add().ok();
    moved.check().ok();
    assert!(!is_open());
    moved.del().ok();
    let (one, two) = (attach("c1", 2), attach("c2", 3));
    assert!(is_open());
    one.del().ok();
    assert!(is_open());
    two.check().ok();
    two.del().ok();
    assert_eq!((is_open(), backend.rules().as_str()), (false, ""));
}

/// A DEL that strace(1) kills at the n-th call of a kind. Says whether there was one.
fn killed_del(attachment: &Attachment, syscall: &str, n: u32) -> bool {
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output", LOG, "--trace", syscall]);
    strace.arg(format!("--inject={syscall}:signal=KILL:when={n}")).arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let container = [("CNI_CONTAINERID", attachment.container.as_str()), ("CNI_IFNAME", "eth0")];
    let config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
    run(strace, "DEL", &container, &config.to_string());
    fs::read_to_string(LOG).unwrap().contains("killed by SIGKILL")
}

fn a_bridge_that_a_killed_del_left_open_has_its_guard(backend: Backend) {
    bridge();
    let (attachment, other) = (behind_it("c1", 2).on(backend), behind_it("c9", 9));
    let syscalls: &[&str] = if backend == Backend::Nftables { &["sendto", "write"] } else { &["write", "clone3"] };
    for syscall in syscalls {
        for n in 1.. {
            assert!(n <= MOST_CALLS, "more than {MOST_CALLS} calls of {syscall}");
            attachment.add().ok();
            assert!(is_open() && is_guarded(backend));
            let killed = killed_del(&attachment, syscall, n);
            let safe = || assert!(!is_open() || is_guarded(backend), "{syscall} {n}: {}", backend.rules());
            safe();
            // Somebody else's DEL cleans up what is nobody's any more.
            other.del().ok();
            safe();
            attachment.del().ok();
            assert_eq!((is_open(), backend.rules().as_str()), (false, ""), "{syscall} {n}");
            if !killed {
                assert!(n > 1, "no {syscall}");
                break;
            }
        }
    }
}

fn a_bridge_is_open_as_long_as_any_backend_needs_it(backend: Backend) {
    bridge();
    let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
    let (one, two) = (behind_it("c1", 2).on(backend), behind_it("c2", 3).on(other));
    one.add().ok();
    two.add().ok();
    one.del().ok();
    assert!(is_open() && is_guarded(other), "{}", ruleset());
    two.check().ok();
    two.del().ok();
    assert!(!is_open());
}

fn a_bridge_is_closed_where_somebody_else_marks(backend: Backend) {
    bridge();
    for family in ["ip", "ip6"] {
        let program = format!("{family}{}", &backend.iptables()[2..]);
        assert!(sandbox::command(program).args(["-t", "nat", "-N", "OTHERS-MARK"]).status().unwrap().success());
    }
    let attach = |id: &str, number: u32| {
        let attachment = behind_it(id, number).with("externalSetMarkChain", json!("OTHERS-MARK"));
        attachment.add().ok();
        attachment
    };
    let (one, two) = (attach("c1", 2), attach("c2", 3));
    assert!(is_open());
    one.del().ok();
    assert!(is_open() && is_guarded(backend));
    two.check().ok();
    two.del().ok();
    assert!(!is_open(), "{}", backend.rules());
}

fn what_somebody_else_has_opened_stays_open(backend: Backend) {
    const KEY: &str = "net/ipv4/conf/cni0/route_localnet";
    bridge();
    sysctl::set(KEY, "1").unwrap();
    let (one, two) = (behind_it("c1", 2).on(backend), behind_it("c2", 3).on(backend));
    one.add().ok();
    one.check().ok();
    assert_eq!(sysctl::get(KEY).unwrap(), "1");
    one.del().ok();
    assert_eq!(sysctl::get(KEY).unwrap(), "1");
    // It is ours until somebody else sets it, and theirs from then on.
    sysctl::set(KEY, "0").unwrap();
    one.add().ok();
    assert_eq!(sysctl::get(KEY).unwrap(), "112");
    sysctl::set(KEY, "1").unwrap();
    two.add().ok();
    one.del().ok();
    two.del().ok();
    assert_eq!((sysctl::get(KEY).unwrap().as_str(), backend.rules().as_str()), ("1", ""));
}

/// The sysctl cannot be written, as in a container with /proc/sys read-only.
fn what_could_not_be_closed_keeps_its_guard(backend: Backend) {
    const SYSCTL: &str = "/proc/sys/net/ipv4/conf/cni0/route_localnet";
    bridge();
    let run = |program: &str, arguments: &[&str]| {
        assert!(sandbox::command(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
    };
    let one = behind_it("c1", 2).on(backend);
    one.add().ok();
    run("mount", &["--bind", SYSCTL, SYSCTL]);
    run("mount", &["-o", "remount,bind,ro", SYSCTL]);
    let told = |attachment: &Attachment| {
        let Answer::Ok { stderr, .. } = attachment.del() else { panic!("DEL failed") };
        assert!(stderr.contains("failed to access sysctl net/ipv4/conf/cni0/route_localnet"), "{stderr}");
    };
    told(&one);
    assert!(is_open() && is_guarded(backend), "{}", backend.rules());
    // The bridge is none of its business, and no mapping names it any more.
    let two = Attachment::new(&pod(2), &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend);
    two.add().ok();
    told(&two);
    assert!(is_open() && is_guarded(backend), "{}", backend.rules());
    run("umount", &[SYSCTL]);
    two.add().ok();
    two.del().ok();
    assert_eq!((is_open(), backend.rules().as_str()), (false, ""));
}

/// What the other backend guards goes with what was mapped there, though this one maps IPv6 only.
fn mappings_of_one_family_leave_no_other_open(backend: Backend) {
    bridge();
    behind_it("c1", 2).on(backend).add().ok();
    assert!(is_open());
    let other = if backend == Backend::Nftables { Backend::IptablesNft } else { Backend::Nftables };
    let ports = json!([{ "hostPort": 8002, "containerPort": 80 }]);
    let moved = Attachment::on_paper("c1", &["fd99::2/64"], &ports).on(other);
    // Killed after its claim, or not: nothing is open without a guard.
    moved.add().ok();
    assert!(!is_open());
    moved.del().ok();
    // Programs of the flavour nft leave their own empty chains.
    let left = [backend, other].map(Backend::rules).concat().to_lowercase();
    assert!(!left.contains("podwire"), "{left}");
}
