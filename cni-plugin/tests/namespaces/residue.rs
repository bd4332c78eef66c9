//! An ADD, a DEL or a GC that fails or is killed at any system call that changes something, and what is left of it.
//!
//! The n-th call of each kind fails, or the plugin dies there, for n = 1, 2, ... until a run goes by without an n-th
//! call: so no step is left out, whatever the order of steps is.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Answer, TestPod, Traces, dual_stack, gc, leases, own_links, traces, until, with};
use crate::flavour::Flavour;
use crate::ill_fate::{Verb, ill_fated, ill_fated_with, kinds_of_calls, under_strace};
use crate::layer2::layer2;
use crate::masquerade_iptables::by_iptables;

/// More than any verb makes of one kind; a loop that gets there is broken.
const MOST_CALLS: u32 = 400;

/// The error code of a plugin that has panicked.
const PANICKED: u64 = 999;

/// Kinds that change nothing outside of the process, whatever becomes of them: classes, patterns and names of strace(1). A
/// name appears where a machine is slow, new or without a clock that can be read without a call; a class knew it before.
const HARMLESS: [&str; 23] = [
    "%memory",
    "%pure",
    "%%stat",
    "%%statfs",
    // What is read, of whatever kind.
    "/^p?read",
    "/^recv",
    "/^(clock_)?get",
    "/^(f?access|uname|sysinfo|time$)",
    // Signals are awaited, not sent: neither kill nor rt_sigqueueinfo.
    "/^(rt_)?sig[^q]",
    "/^(alarm|pause|restart_syscall)$",
    // Waiting, for whomever.
    "/poll|select",
    "/^(clock_)?nanosleep",
    "/^wait",
    "/^futex",
    // The process itself: descriptors, threads, limits, what it runs and how it ends.
    "/^(close|dup|pipe|eventfd|fcntl|ioctl|lseek)",
    "/^(socketpair|connect)$",
    "/^sched_",
    "/^(rseq|membarrier|set_robust_list|set_tid_address|arch_prctl|prctl|prlimit)",
    "/^(chdir|umask|setsid|setpgid)$",
    "/^exec",
    "/^exit",
    // When what was written before gets to the disk; what must have got there is waited for by fsync.
    "fdatasync",
    "sync_file_range",
];

/// Where the child process that waits for RCU is killed: it makes them before its work, and they change nothing.
const OF_THE_CHILD: [&str; 2] = ["setsid", "chdir"];

/// What the programs of iptables do on a node that has just started: modprobe(8) loads what the kernel lacks, which it keeps.
const LOADING: [&str; 3] = ["finit_module", "init_module", "vfork"];

/// Everything that an attachment can have: masquerade by iptables, limits both ways, a hardware address that was told
/// and, with it, gateways on the node, a setting.
fn everything() -> Value {
    let rates = json!({ "ingressRate": 80_000_000, "ingressBurst": 0, "egressRate": 80_000_000, "egressBurst": 0 });
    let runtime = json!({ "bandwidth": rates, "mac": "02:00:00:00:00:77" });
    let sysctl = json!({ "net.ipv4.conf.IFNAME.arp_filter": "1" });
    with(by_iptables(), &json!({ "runtimeConfig": runtime, "sysctl": sysctl, "hostInterfacePrefix": "veth" }))
}

/// A pod in the state in which the verb finds it.
fn prepared(config: &Value, verb: Verb) -> TestPod {
    let pod = TestPod::new("one");
    if verb != Verb::Add {
        pod.add(config).ok();
    }
    pod
}

/// Goes through all calls of one kind. A run may meet several failures, among them those of undoing: where threads
/// share a kind of call that undoing needs too, only the next DEL or GC must find everything. `clean` says whether a
/// failed ADD must have cleaned up by itself.
fn every_call(config: &Value, verb: Verb, syscall: &str, fate: &str, clean: bool) {
    crate::common::adopt_orphans();
    let before = after_a_first_pod(config);
    // What nft(8) does not show.
    let legacy = Flavour::Legacy.rules();
    for n in 1..=MOST_CALLS {
        let pod = prepared(config, verb);
        let (answer, happened) = ill_fated_with(config, verb, &pod, syscall, fate, &n.to_string());
        let context = |when: &str| format!("{verb:?}, {syscall} number {n} {fate}, {when}: {answer:?}");
        if !happened {
            assert!(n > 1, "no {syscall} in {verb:?}: {answer:?}");
            answer.ok();
            pod.del(config).ok();
            kernel::netns::remove_named(&pod.path).unwrap();
            return;
        }
        no_link_without_lease(&context);
        if verb != Verb::Add {
            no_link_without_guard(&context);
        }
        judge(verb, clean, &before, &answer, &context);
        if verb != Verb::Add && answer.success {
            assert_eq!(Flavour::Legacy.rules(), legacy, "{}", context("succeeded"));
        }
        // What is left is found by the next DEL and by the next GC alike.
        if n % 2 == 1 {
            pod.del(config).ok();
        } else {
            gc(&json!([])).ok();
        }
        before.unchanged(context("cleaned up"));
        assert_eq!(Flavour::Legacy.rules(), legacy, "{}", context("cleaned up"));
        no_process(&context);
        kernel::netns::remove_named(&pod.path).unwrap();
    }
    panic!("more than {MOST_CALLS} calls of {syscall}");
}

/// What must hold before anything cleans up.
fn judge(verb: Verb, clean: bool, before: &Traces, answer: &Answer, context: &impl Fn(&str) -> String) {
    match verb {
        // An ADD that could not even print its error could not tell anybody that it succeeded either.
        Verb::Add if clean && !answer.success && !answer.stdout.is_empty() => {
            assert_ne!(answer.error().0, PANICKED, "{}", context("failed"));
            before.unchanged_but_the_ledger(context("failed"));
        }
        // A release that the ledger could not take is written down, and counts as done.
        Verb::Del | Verb::Gc if answer.success => before.unchanged_but_the_ledger(context("succeeded")),
        _ => {}
    }
}

/// What the first pod of a node brings for good: the ledger's folder, and settings.
fn after_a_first_pod(config: &Value) -> Traces {
    let pod = TestPod::new("first");
    pod.add(config).ok();
    pod.del(config).ok();
    kernel::netns::remove_named(&pod.path).unwrap();
    traces()
}

/// An address that a link still has may not be given to anybody else.
fn no_link_without_lease(context: &impl Fn(&str) -> String) {
    let (links, leases) = (own_links(), leases());
    // A link that was just made and has no address yet needs none.
    if links > leases.len() {
        let routes = crate::common::text("ip", &["route", "show", "proto", "112"]);
        assert!(routes.is_empty(), "{}", context("a link in use without a lease"));
    }
}

/// A link that a DEL or a GC has left is guarded.
fn no_link_without_guard(context: &impl Fn(&str) -> String) {
    if own_links() > 0 {
        let rules = crate::common::text("nft", &["-s", "list", "ruleset"]);
        // The set `links`, in the tables of both families.
        let is_link = |line: &&str| line.contains("\" comment \"podnet one eth0\"");
        let count = rules.lines().filter(is_link).count();
        assert!(count == 2, "{}", context(&format!("a link without its guard: {rules}")));
    }
}

/// No process of the plugin outlives its answer for long: whoever it leaves behind is ours to wait for, as this
/// process is the reaper of its orphans.
fn no_process(context: &impl Fn(&str) -> String) {
    until(|| !crate::common::has_children(), || context("a process is left"));
}

/// Each kind of call that a verb makes has a row of that verb below, with iptables or without, and each row meets calls.
#[test]
fn every_kind_of_system_call_is_known() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let mut seen = BTreeSet::new();
        let mut every_verb = |config: &Value| {
            for verb in [Verb::Add, Verb::Del, Verb::Add, Verb::Gc] {
                seen.extend(kinds_of_calls(config, verb, &pod, &HARMLESS).into_iter().map(|kind| (verb, kind)));
            }
        };
        every_verb(&dual_stack());
        every_verb(&everything());
        Flavour::Legacy.chosen();
        every_verb(&everything());
        let of_verb = |(verb, kinds): &(Verb, &[&'static str])| {
            let verb = *verb;
            kinds.iter().map(move |kind| (verb, (*kind).to_owned())).collect::<Vec<_>>()
        };
        let rows: BTreeSet<(Verb, String)> = PLAIN.iter().chain(EVERYTHING).flat_map(of_verb).collect();
        let is_loading = |kind: &str| LOADING.contains(&kind);
        let unknown: Vec<_> = seen.difference(&rows).filter(|(_, kind)| !is_loading(kind)).collect();
        assert!(unknown.is_empty(), "do these change anything? {unknown:?}");
        // A pattern that knew too much would hide what has a row.
        let is_of_child = |kind: &str| OF_THE_CHILD.contains(&kind);
        let hidden: Vec<_> = rows.difference(&seen).filter(|(_, kind)| !is_of_child(kind)).collect();
        assert!(hidden.is_empty(), "nobody made these: {hidden:?}");
        assert!(Path::new("/run/podwire/ipam").is_dir());
    });
}

#[test]
fn an_address_whose_link_stays_stays_leased() {
    sandbox::private_host(|| {
        for n in 1..=4 {
            let pod = TestPod::new("one");
            pod.add(&dual_stack()).ok();
            let (answer, _) = ill_fated(Verb::Gc, &pod, "sendto", "error=ENOBUFS", &format!("{n}+"));
            let (code, msg) = answer.error();
            assert_eq!((code, leases().len()), (5, 1), "request {n}: {msg}");
            pod.del(&dual_stack()).ok();
            // The same for an ADD whose undoing fails too: whatever it leaves, no link is without its lease.
            let (answer, _) = ill_fated(Verb::Add, &pod, "sendto", "error=ENOBUFS", &format!("{}+", 8 + 2 * n));
            assert!(!answer.success, "{answer:?}");
            assert!(own_links() <= leases().len(), "request {n}: a link without a lease: {answer:?}");
            pod.del(&dual_stack()).ok();
            assert_eq!((own_links(), leases().len()), (0, 0));
            kernel::netns::remove_named(&pod.path).unwrap();
        }
    });
}

/// A link and two elements: nothing of it is in a ledger.
#[test]
fn nothing_is_left_of_a_link_without_addresses() {
    sandbox::private_host(|| {
        every_call(&layer2(), Verb::Add, "sendto", "error=ENOBUFS", true);
        every_call(&layer2(), Verb::Add, "sendto", "signal=KILL", false);
        every_call(&layer2(), Verb::Del, "sendto", "signal=KILL", false);
        assert_eq!(leases(), Vec::<String>::new());
        assert!(!Path::new("/run/podwire/ipam").exists());
    });
}

/// A DEL that fails, a GC, and calls of other kinds.
#[test]
fn nothing_is_left_of_a_link_without_addresses_by_del_gc_and_other_calls() {
    sandbox::private_host(|| {
        for (verb, syscall, fate, clean) in [
            (Verb::Del, "sendto", "error=ENOBUFS", false),
            (Verb::Gc, "sendto", "error=ENOBUFS", false),
            (Verb::Gc, "sendto", "signal=KILL", false),
            (Verb::Add, "socket", "error=EMFILE", true),
            (Verb::Add, "bind", "error=ENOMEM", true),
            (Verb::Add, "setns", "error=EPERM", true),
            (Verb::Add, "setns", "signal=KILL", false),
            (Verb::Add, "clone3", "error=EAGAIN", false),
            (Verb::Del, "clone", "error=EAGAIN", false),
            (Verb::Gc, "clone", "signal=KILL", false),
        ] {
            every_call(&layer2(), verb, syscall, fate, clean);
        }
        assert!(!Path::new("/run/podwire/ipam").exists());
    });
}

/// The answer to an ADD's last request is lost, so everything is made; and a request of what it takes back is refused.
#[test]
fn a_link_that_a_failed_add_cannot_take_back_stays_guarded() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let add =
            |fates: &[&str]| under_strace(&layer2(), Verb::Add, &pod, &[&["--trace=sendto,recvfrom"], fates].concat());
        let (answer, seen) = add(&[]);
        answer.ok();
        pod.del(&layer2()).ok();
        let count = |call: &str| seen.matches(call).count();
        let lost = format!("--inject=recvfrom:error=EIO:when={}", count("recvfrom("));
        let mut left = 0;
        for n in 1..=16 {
            let refused = format!("--inject=sendto:error=ENOBUFS:when={}", count("sendto(") + n);
            let (answer, _) = add(&[&lost, &refused]);
            assert!(!answer.success, "{answer:?}");
            left += own_links();
            no_link_without_guard(&|what| format!("request {n} of what is taken back, {what}: {answer:?}"));
            pod.del(&layer2()).ok();
        }
        assert!(left > 0, "each time the link could be deleted");
    });
}

/// Neither an ADD nor a DEL stops in the middle when a service is stopped.
#[test]
fn a_signal_that_asks_to_end_comes_too_late() {
    sandbox::private_host(|| {
        for verb in [Verb::Add, Verb::Del] {
            for signal in ["TERM", "INT", "HUP"] {
                for n in ["1", "12", "25"] {
                    let pod = prepared(&dual_stack(), verb);
                    let fate = format!("signal={signal}");
                    let (answer, _) = ill_fated(verb, &pod, "sendto", &fate, n);
                    answer.ok();
                    assert_eq!(leases().len(), usize::from(verb == Verb::Add));
                    pod.del(&dual_stack()).ok();
                    kernel::netns::remove_named(&pod.path).unwrap();
                }
            }
        }
    });
}

macro_rules! every_call {
    ($rows:ident: $($name:ident: $verb:ident, $fate:literal, $clean:literal, [$($syscall:literal),*];)*) => {
        const $rows: &[(Verb, &[&str])] = &[$((Verb::$verb, &[$($syscall),*])),*];
        $(#[test]
        fn $name() {
            sandbox::private_host(|| {
                for syscall in [$($syscall),*] {
                    every_call(&dual_stack(), Verb::$verb, syscall, $fate, $clean);
                }
            });
        })*
    };
    ($rows:ident: $($name:ident: everything in $flavour:ident, $verb:ident, $fate:literal, [$($syscall:literal),*];)*) => {
        const $rows: &[(Verb, &[&str])] = &[$((Verb::$verb, &[$($syscall),*])),*];
        $(#[test]
        fn $name() {
            sandbox::private_host(|| {
                Flavour::$flavour.chosen();
                for syscall in [$($syscall),*] {
                    every_call(&everything(), Verb::$verb, syscall, $fate, false);
                }
            });
        })*
    };
}

// The programs of iptables meet the same fate as the plugin that runs them, and so do those that it runs to undo.
every_call! {
    EVERYTHING:
    add_of_everything_whose_netlink_requests_fail: everything in Nft, Add, "error=ENOBUFS", ["sendto", "sendmsg"];
    add_of_everything_killed_at_a_netlink_request: everything in Nft, Add, "signal=KILL", ["sendto", "sendmsg"];
    add_of_everything_killed_at_a_write_or_a_lock: everything in Nft, Add, "signal=KILL", ["write", "flock"];
    add_of_everything_without_programs: everything in Nft, Add, "error=EAGAIN", ["clone3", "flock"];
    add_of_everything_killed_when_tables_are_replaced: everything in Legacy, Add, "signal=KILL", ["setsockopt"];
    del_of_everything_whose_netlink_requests_fail: everything in Nft, Del, "error=ENOBUFS", ["sendto", "sendmsg"];
    del_of_everything_killed_at_a_netlink_request: everything in Nft, Del, "signal=KILL", ["sendto", "sendmsg"];
    del_of_everything_killed_at_a_write_or_a_lock: everything in Nft, Del, "signal=KILL", ["write", "flock"];
    del_of_everything_without_programs: everything in Nft, Del, "error=EAGAIN", ["clone3", "clone"];
    del_of_everything_killed_when_tables_are_replaced: everything in Legacy, Del, "signal=KILL", ["setsockopt"];
    gc_of_everything_whose_netlink_requests_fail: everything in Nft, Gc, "error=ENOBUFS", ["sendto", "sendmsg"];
    gc_of_everything_killed_at_a_netlink_request: everything in Nft, Gc, "signal=KILL", ["sendto", "sendmsg"];
    gc_of_everything_killed_when_tables_are_replaced: everything in Legacy, Gc, "signal=KILL", ["setsockopt"];
    add_of_everything_whose_tables_cannot_be_replaced: everything in Legacy, Add, "error=ENOMEM", ["setsockopt"];
    del_of_everything_whose_tables_cannot_be_replaced: everything in Legacy, Del, "error=ENOMEM", ["setsockopt"];
    gc_of_everything_whose_tables_cannot_be_replaced: everything in Legacy, Gc, "error=ENOMEM", ["setsockopt"];
}

every_call! {
    PLAIN:
    add_whose_netlink_requests_fail: Add, "error=ENOBUFS", true, ["sendto"];
    add_that_cannot_enter_the_namespace: Add, "error=EPERM", true, ["setns"];
    add_without_descriptors: Add, "error=EMFILE", true, ["socket", "openat"];
    add_whose_sockets_cannot_be_bound: Add, "error=ENOMEM", true, ["bind"];
    add_without_the_lock: Add, "error=EIO", true, ["flock"];
    add_without_threads: Add, "error=EAGAIN", false, ["clone3"];
    add_whose_ledger_cannot_be_written: Add, "error=EIO", true, ["pwrite64", "ftruncate", "fsync", "rename", "unlink", "mkdir"];
    add_whose_writes_fail: Add, "error=EIO", false, ["write"];
    add_killed_at_a_netlink_request: Add, "signal=KILL", false, ["sendto", "socket", "bind", "setns"];
    add_killed_at_a_write: Add, "signal=KILL", false, ["write"];
    add_killed_at_a_change_of_the_ledger: Add, "signal=KILL", false, ["pwrite64", "ftruncate", "fsync", "rename", "unlink", "mkdir", "flock"];
    add_killed_when_opening_or_starting: Add, "signal=KILL", false, ["openat", "clone3"];

    del_whose_netlink_requests_fail: Del, "error=ENOBUFS", false, ["sendto"];
    del_that_cannot_enter_the_namespace: Del, "error=EPERM", false, ["setns"];
    del_without_the_lock: Del, "error=EIO", false, ["flock"];
    del_without_descriptors: Del, "error=EMFILE", false, ["socket", "openat"];
    del_whose_sockets_cannot_be_bound: Del, "error=ENOMEM", false, ["bind"];
    del_without_threads_or_children: Del, "error=EAGAIN", false, ["clone3", "clone"];
    del_whose_ledger_cannot_be_written: Del, "error=EIO", false, ["pwrite64", "ftruncate", "fsync", "rename", "unlink", "mkdir"];
    del_whose_writes_fail: Del, "error=EIO", false, ["write"];
    del_killed_at_a_netlink_request: Del, "signal=KILL", false, ["sendto", "socket", "bind", "setns"];
    del_killed_at_a_write: Del, "signal=KILL", false, ["write"];
    del_killed_at_a_change_of_the_ledger: Del, "signal=KILL", false, ["pwrite64", "ftruncate", "fsync", "rename", "unlink", "mkdir", "flock"];
    del_killed_when_opening_or_starting: Del, "signal=KILL", false, ["openat", "clone3", "clone"];
    del_whose_child_is_killed: Del, "signal=KILL", false, ["setsid", "chdir"];

    gc_whose_netlink_requests_fail: Gc, "error=ENOBUFS", false, ["sendto"];
    gc_killed_at_a_netlink_request: Gc, "signal=KILL", false, ["sendto"];
    gc_without_descriptors: Gc, "error=EMFILE", false, ["socket", "openat"];
    gc_whose_sockets_cannot_be_bound: Gc, "error=ENOMEM", false, ["bind"];
    gc_without_the_lock_or_threads: Gc, "error=EAGAIN", false, ["flock", "clone3"];
    gc_whose_ledger_cannot_be_written: Gc, "error=EIO", false, ["ftruncate", "fsync", "mkdir", "write"];
    gc_without_children: Gc, "error=EAGAIN", false, ["clone"];
    gc_whose_child_is_killed: Gc, "signal=KILL", false, ["clone", "setsid", "chdir"];
    gc_killed_at_a_change_of_the_ledger: Gc, "signal=KILL", false, ["pwrite64", "rename", "unlink"];
}
