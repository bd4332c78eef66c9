//! Whoever is killed at any call that changes something leaves nothing that the next one does not end: DEL, GC, `reconcile`
//! and `adopt`, on each backend.
//!
//! strace(1) kills the plugin, and the programs that it runs, at the n-th call of each kind, for n = 1, 2, ... until a run
//! goes by without an n-th call.

use std::fs;

use crate::adopt::{reference_add, remember};
use crate::common::backend::Backend;
use crate::common::net::{Host, NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, HELD, by_hand, gc, ruleset, run};
use kernel::sysctl;
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    a_killed_dels_port_is_free_for_the_next,
    a_killed_gc_is_made_up_for_by_the_next,
    a_killed_reconcile_is_made_up_for_by_the_next,
);

const LOG: &str = "/run/strace";
const RECORDS: &str = "/run/podwire/portmap";
/// More than any of them makes of one kind.
const MOST_CALLS: u32 = 400;

/// What changes something, of the plugin and of its programs. The kernel is asked by `sendto` too; the programs of iptables
/// commit by `sendmsg` in one flavour and by `setsockopt` in the other.
fn syscalls(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Nftables => &["sendto", "rename", "unlink", "write"],
        Backend::IptablesNft => &["sendmsg", "unlink", "write"],
        Backend::IptablesLegacy => &["setsockopt", "unlink", "write"],
    }
}

/// The executable, killed at the n-th call. Says whether there was one.
fn killed(arguments: &[&str], verb: Option<(&str, &str)>, syscall: &str, n: u32) -> bool {
    assert!(n <= MOST_CALLS, "more than {MOST_CALLS} calls of {syscall}");
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output", LOG, "--trace", syscall]);
    strace.arg(format!("--inject={syscall}:signal=KILL:when={n}"));
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap")).args(arguments);
    match verb {
        Some((verb, config)) => {
            let container = [("CNI_CONTAINERID", "pod2"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/pod2")];
            drop(run(strace, verb, if verb == "GC" { &[] } else { &container }, config));
        }
        None => drop(strace.output().unwrap()),
    }
    fs::read_to_string(LOG).unwrap().contains("killed by SIGKILL")
}

/// Goes through the calls; `round` has one more run killed, and looks at what is left. Most that is sent to the kernel are
/// questions, several before each change: every third is enough to be killed between any two changes.
fn every_call(syscalls: &[&str], mut round: impl FnMut(&str, u32) -> bool) {
    for syscall in syscalls {
        let step = if *syscall == "sendto" { 3 } else { 1 };
        let mut n = 1;
        while round(syscall, n) {
            n += step;
        }
        assert!(n > 1, "nobody was killed at a {syscall}");
    }
}

fn config(valid: Option<Value>) -> String {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
    if let Some(valid) = valid {
        config["cni.dev/valid-attachments"] = valid;
    }
    config.to_string()
}

fn two_ports(pod: &Host, backend: Backend) -> Attachment {
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80 },
        { "hostPort": 53, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1" },
    ]);
    Attachment::new(pod, &ports).on(backend)
}

#[track_caller]
fn nothing_is_left(pod: &Host, backend: Backend) {
    let open = sysctl::get(&format!("net/ipv4/conf/{}/route_localnet", pod.link)).unwrap();
    let files = fs::read_dir(RECORDS).map_or(0, Iterator::count);
    assert_eq!((backend.rules().as_str(), open.as_str(), files), ("", "0", 0));
}

/// A DEL goes by the record, and that of the second ADD names less than the first one had.
#[test]
fn what_a_killed_add_did_not_ask_for_again_goes_with_its_del() {
    private_host(|| {
        let pod = pod(2);
        let more = two_ports(&pod, Backend::Nftables);
        let fewer = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let mut left_more = false;
        every_call(&["rename", "sendto"], |syscall, n| {
            more.add().ok();
            let killed = killed(&[], Some(("ADD", &fewer.config.to_string())), syscall, n);
            left_more |= ruleset().contains("192.0.2.1 . udp . 53");
            more.del().ok();
            nothing_is_left(&pod, Backend::Nftables);
            killed
        });
        assert!(left_more, "no ADD was killed before its claim");
    });
}

/// Nobody repeats the DEL, and the old pod's interface and namespace are there for ever.
fn a_killed_dels_port_is_free_for_the_next(backend: Backend) {
    let (old, new) = (pod(2), pod(3));
    let (ended, next) = (two_ports(&old, backend), two_ports(&new, backend));
    every_call(syscalls(backend), |syscall, n| {
        ended.add().ok();
        let killed = killed(&[], Some(("DEL", &config(None))), syscall, n);
        let begun = !fs::exists(format!("{RECORDS}/podnet:pod2:eth0")).unwrap()
            || fs::exists(format!("{RECORDS}/!podnet:pod2:eth0")).unwrap();
        match next.add() {
            Answer::Ok { .. } => assert!(begun, "{syscall} {n}"),
            // Killed before it has begun.
            Answer::Failed { code, msg, .. } => assert!(!begun && code == HELD, "{syscall} {n}: {msg}"),
        }
        if begun {
            next.check().ok();
            assert!(!backend.rules().contains("pod2"), "{syscall} {n}: {}", backend.rules());
        }
        ended.del().ok();
        next.del().ok();
        nothing_is_left(&old, backend);
        nothing_is_left(&new, backend);
        killed
    });
}

fn a_killed_gc_is_made_up_for_by_the_next(backend: Backend) {
    let (stale, valid) = (pod(2), pod(3));
    let kept = Attachment::new(&valid, &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend);
    kept.add().ok();
    let before = backend.rules();
    let config = config(Some(json!([{ "containerID": "pod3", "ifname": "eth0" }])));
    // What GC asks the kernel is what DEL asks.
    let syscalls: Vec<&str> =
        syscalls(backend).iter().copied().filter(|call| !["sendto", "write"].contains(call)).collect();
    every_call(&syscalls, |syscall, n| {
        two_ports(&stale, backend).add().ok();
        let killed = killed(&[], Some(("GC", &config)), syscall, n);
        gc("podnet", &[("pod3", "eth0")]).ok();
        assert_eq!(backend.rules(), before, "{syscall} {n}");
        assert_eq!(fs::read_dir(RECORDS).unwrap().count(), 1, "{syscall} {n}");
        kept.check().ok();
        killed
    });
}

fn a_killed_reconcile_is_made_up_for_by_the_next(backend: Backend) {
    let (one, two) = (pod(2), pod(3));
    let living = two_ports(&one, backend);
    let dead = Attachment::new(&two, &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend);
    living.add().ok();
    let before = backend.rules();
    every_call(syscalls(backend), |syscall, n| {
        // One whose rules are gone, and one whose DEL was killed.
        backend.flush();
        dead.add().ok();
        let name = "podnet:pod3:eth0";
        fs::copy(format!("{RECORDS}/{name}"), format!("{RECORDS}/!{name}")).unwrap();
        let killed = killed(&["reconcile"], None, syscall, n);
        assert_eq!(by_hand("reconcile").0, 0, "{syscall} {n}");
        assert_eq!(backend.rules(), before, "{syscall} {n}");
        living.check().ok();
        assert_eq!(fs::read_dir(RECORDS).unwrap().count(), 1, "{syscall} {n}");
        killed
    });
    living.del().ok();
    nothing_is_left(&one, backend);
    nothing_is_left(&two, backend);
}

#[test]
fn a_killed_adoption_loses_no_mapping_and_is_made_up_for_by_the_next() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        remember(&pod);
        let reach = |text: &str| {
            assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4), "{text}");
            assert_eq!(lan.udp(NODE_V4[0], 53), from("pod2", NEIGHBOUR_V4), "{text}");
        };
        let ended = two_ports(&pod, Backend::Nftables);
        for (syscall, step) in [("sendto", 3), ("sendmsg", 1), ("rename", 1), ("write", 1)] {
            for n in (1..).step_by(step) {
                let ports = json!([
                    { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
                    { "hostPort": 53, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1" },
                ]);
                reference_add(&pod, &ports);
                let text = format!("{syscall} {n}");
                let killed = killed(&["adopt"], None, syscall, n);
                reach(&text);
                assert_eq!(by_hand("adopt").0, 0, "{text}");
                reach(&text);
                assert!(!ruleset().contains("CNI-"), "{text}");
                ended.del().ok();
                assert_eq!((ruleset().contains("odwire"), fs::exists(RECORDS).unwrap()), (false, false), "{text}");
                if !killed {
                    assert!(n > 1, "nobody was killed at a {syscall}");
                    break;
                }
            }
        }
    });
}
