//! An ADD that fails or is killed at any system call that changes something, and what is left of it.
//!
//! strace(1) makes the n-th call of each kind fail, or kills the plugin there, for n = 1, 2, ... until a run goes by
//! without an n-th call: so no step is left out, whatever the order of steps is.

use std::fs;

use serde_json::json;

use crate::common::{Answer, TestPod, dual_stack, finish, leases, text, traces, with};

/// More than any ADD makes of one kind; a loop that gets there is broken.
const MOST_CALLS: u32 = 400;

/// Runs an ADD whose calls of `syscall` meet with `fate` at `when` (the n-th, or from the n-th on: "7+"); tells whether
/// one did.
fn ill_fated_add(pod: &TestPod, syscall: &str, fate: &str, when: &str) -> (Answer, bool) {
    let log = format!("/run/strace-{}", pod.id);
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output", &log, "--trace", syscall]);
    strace.arg(format!("--inject={syscall}:{fate}:when={when}")).arg(env!("CARGO_BIN_EXE_podwire"));
    strace.envs(pod.env("ADD"));
    let answer = finish(strace, dual_stack().to_string().as_bytes());
    let seen = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let happened = seen.contains("(INJECTED)") || seen.contains("killed by SIGKILL");
    (answer, happened)
}

/// Goes through all calls of one kind. strace counts calls for each thread, so a run may meet several failures, among
/// them those of undoing: where threads share a kind of call that undoing needs too, only DEL must find everything.
/// `clean` says whether a failed run must have cleaned up by itself.
fn every_call(syscall: &'static str, fate: &'static str, clean: bool) {
    let before = traces();
    let mut failures = 0;
    for n in 1..=MOST_CALLS {
        let pod = TestPod::new("one");
        let (answer, happened) = ill_fated_add(&pod, syscall, fate, &n.to_string());
        if !happened {
            answer.ok();
            assert!(failures > 0, "no {syscall} made the ADD fail");
            return;
        }
        if !answer.success {
            failures += 1;
            // An ADD that could not even print its error could not tell anybody that it succeeded either.
            if clean && !answer.stdout.is_empty() {
                before.unchanged(format!("{syscall} number {n}: {answer:?}"));
            }
        }
        pod.del(&dual_stack()).ok();
        before.unchanged(format!("{syscall} number {n}, after DEL: {answer:?}"));
        kernel::netns::remove_named(&pod.path).unwrap();
    }
    panic!("more than {MOST_CALLS} calls of {syscall}");
}

/// Runs a GC whose netlink requests fail from the `n`-th on; tells whether it failed.
fn ill_fated_gc(n: u32) -> Answer {
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output=/dev/null", "--trace=sendto"]);
    strace.arg(format!("--inject=sendto:error=ENOBUFS:when={n}+")).arg(env!("CARGO_BIN_EXE_podwire"));
    strace.envs([("CNI_COMMAND", "GC"), ("CNI_PATH", "/usr/lib/cni")]);
    let config = with(dual_stack(), &json!({ "cni.dev/valid-attachments": [] }));
    finish(strace, config.to_string().as_bytes())
}

#[test]
fn an_address_whose_link_stays_stays_leased() {
    sandbox::private_host(|| {
        let own_links = || text("ip", &["-d", "link"]).matches("podwire podnet").count();
        for n in 1..=4 {
            let pod = TestPod::new("one");
            pod.add(&dual_stack()).ok();
            let (code, msg) = ill_fated_gc(n).error();
            assert_eq!((code, leases().len()), (5, 1), "request {n}: {msg}");
            pod.del(&dual_stack()).ok();
            // The same for an ADD whose undoing fails too: whatever it leaves, no link is without its lease.
            let log = format!("{}+", 8 + 2 * n);
            let (answer, _) = ill_fated_add(&pod, "sendto", "error=ENOBUFS", &log);
            assert!(!answer.success, "{answer:?}");
            assert!(own_links() <= leases().len(), "request {n}: a link without a lease: {answer:?}");
            pod.del(&dual_stack()).ok();
            assert_eq!((own_links(), leases().len()), (0, 0));
            kernel::netns::remove_named(&pod.path).unwrap();
        }
    });
}

macro_rules! every_call {
    ($($name:ident: $syscall:literal, $fate:literal, $clean:literal;)*) => {
        $(#[test]
        fn $name() {
            sandbox::private_host(|| every_call($syscall, $fate, $clean));
        })*
    };
}

every_call! {
    netlink_requests_that_fail: "sendto", "error=ENOBUFS", true;
    namespaces_that_cannot_be_entered: "setns", "error=EPERM", true;
    sockets_that_cannot_be_opened: "socket", "error=EMFILE", true;
    ledger_pages_that_cannot_be_written: "pwrite64", "error=EIO", true;
    files_that_cannot_be_written: "write", "error=EIO", false;
    killed_at_a_netlink_request: "sendto", "signal=KILL", false;
    killed_at_a_write: "write", "signal=KILL", false;
    killed_at_a_write_of_the_ledger: "pwrite64", "signal=KILL", false;
}
