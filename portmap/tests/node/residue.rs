//! An ADD that fails or is killed at any system call that changes something, and what is left of it.
//!
//! strace(1) makes the n-th call of each kind fail, or kills the plugin there, for n = 1, 2, ... until a run goes by
//! without an n-th call: so no step is left out, whatever the order of steps is.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::backend::Backend;
use crate::common::net::{Host, pod};
use crate::common::plugin::{Answer, Attachment, nft, ruleset, run};
use kernel::sysctl;
use portmap::{Error, add};
use sandbox::private_host;
use serde_json::json;

on_iptables!(killed_anywhere_on_iptables,);

/// More than any ADD makes of one kind; a loop that gets there is broken.
const MOST_CALLS: u32 = 400;

const LOG: &str = "/run/strace";

/// An attachment with an element of each kind in both families.
fn attachment(pod: &Host) -> Attachment {
    let exact = |host_ip: &str| json!({ "hostPort": 8081, "containerPort": 81, "hostIP": host_ip });
    let wildcard = json!({ "hostPort": 8080, "containerPort": 80 });
    Attachment::new(pod, &json!([wildcard, exact("192.0.2.1"), exact("2001:db8::1")]))
}

/// An ADD under strace(1): how it ended, if it could say so, and what was seen.
fn traced_add(attachment: &Attachment, arguments: &[&str]) -> (Option<Answer>, String) {
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output", LOG]).args(arguments);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let container = [
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_IFNAME", attachment.ifname.as_str()),
        ("CNI_NETNS", attachment.netns.as_str()),
    ];
    let output = run(strace, "ADD", &container, &attachment.config.to_string());
    let spoke = output.status.success() || !output.stdout.is_empty();
    (spoke.then(|| Answer::of(&output)), fs::read_to_string(LOG).unwrap())
}

/// Everything that an ADD may change: the firewall, the way back to 127.0.0.1, and records.
fn traces(pod: &Host) -> (String, String, Vec<String>) {
    let names = |folder| {
        fs::read_dir(folder).map_or_else(|_| Vec::new(), |entries| entries.map(|e| e.unwrap().path()).collect())
    };
    let mut files: Vec<std::path::PathBuf> = [names("/run/podwire"), names("/run/podwire/portmap")].concat();
    files.sort();
    let files = files.into_iter().map(|file| file.display().to_string()).collect();
    (ruleset(), sysctl::get(&format!("net/ipv4/conf/{}/route_localnet", pod.link)).unwrap(), files)
}

/// Goes through all calls of one kind, of an ADD on a node where others have host ports or nobody has. `clean` says
/// whether a failed ADD must have cleaned up by itself.
fn every_call(syscall: &str, fate: &str, clean: bool) {
    let (pod, other) = (pod(2), pod(3));
    let attachment = attachment(&pod);
    for others in [false, true] {
        if others {
            Attachment::new(&other, &json!([{ "hostPort": 1, "containerPort": 1 }])).add().ok();
        }
        let before = traces(&pod);
        let mut failures = 0;
        for n in 1.. {
            assert!(n <= MOST_CALLS, "more than {MOST_CALLS} calls of {syscall}");
            let inject = format!("--inject={syscall}:{fate}:when={n}");
            let (answer, seen) = traced_add(&attachment, &["--trace", syscall, &inject]);
            let text = format!("{syscall} number {n}, others: {others}: {answer:?}\n{seen}");
            let happened = seen.contains("(INJECTED)") || seen.contains("killed by SIGKILL");
            if !happened {
                answer.expect(&text).ok();
            } else if !matches!(answer, Some(Answer::Ok { .. })) {
                failures += 1;
                // An ADD that could not even print its error could not tell anybody that it succeeded either.
                if clean && answer.is_some() {
                    assert_eq!(traces(&pod), before, "{text}");
                }
            }
            attachment.del().ok();
            assert_eq!(traces(&pod), before, "after DEL: {text}");
            if !happened {
                break;
            }
        }
        assert!(failures > 0, "no {syscall} made the ADD fail");
    }
}

macro_rules! every_call {
    ($($name:ident: $syscall:literal, $fate:literal, $clean:literal;)*) => {
        $(#[test]
        fn $name() {
            private_host(|| every_call($syscall, $fate, $clean));
        })*
    };
}

every_call! {
    sockets_that_cannot_be_opened: "socket", "error=EMFILE", true;
    netlink_requests_that_fail: "sendto", "error=ENOBUFS", true;
    netlink_answers_that_are_lost: "recvfrom", "error=EIO", true;
    files_that_cannot_be_written: "write", "error=EIO", true;
    killed_at_a_netlink_request: "sendto", "signal=KILL", false;
    killed_at_a_netlink_answer: "recvfrom", "signal=KILL", false;
    killed_at_a_write: "write", "signal=KILL", false;
    killed_at_naming_a_record: "rename", "signal=KILL", false;
}

/// The same on iptables, where the calls of the programs that the plugin runs are gone through as well: their commits
/// are a `setsockopt` in one flavour and a `sendmsg` in the other.
fn killed_anywhere_on_iptables(backend: Backend) {
    let (pod, other) = (pod(2), pod(3));
    let attachment = attachment(&pod).on(backend);
    Attachment::new(&other, &json!([{ "hostPort": 1, "containerPort": 1 }])).on(backend).add().ok();
    attachment.add().ok();
    attachment.del().ok();
    let traces = || (backend.rules(), traces(&pod).1, traces(&pod).2);
    let before = traces();
    let commit = if backend == Backend::IptablesNft { "sendmsg" } else { "setsockopt" };
    for (syscall, fate, clean) in [
        ("write", "signal=KILL", false),
        ("clone3", "error=EAGAIN", true),
        (commit, "signal=KILL", true),
        (commit, "error=EPERM", true),
    ] {
        let mut failures = 0;
        for n in 1.. {
            assert!(n <= MOST_CALLS, "more than {MOST_CALLS} calls of {syscall}");
            let inject = format!("--inject={syscall}:{fate}:when={n}");
            let (answer, seen) = traced_add(&attachment, &["--trace", syscall, &inject]);
            let text = format!("{syscall} number {n}: {answer:?}\n{seen}");
            let happened = seen.contains("(INJECTED)") || seen.contains("killed by SIGKILL");
            if happened && !matches!(answer, Some(Answer::Ok { .. })) {
                failures += 1;
                // The plugin itself lives on when one of its programs dies.
                if clean && answer.is_some() {
                    assert_eq!(traces(), before, "{text}");
                }
            }
            attachment.del().ok();
            assert_eq!(traces(), before, "after DEL: {text}");
            if !happened {
                break;
            }
        }
        assert!(failures > 0, "no {syscall} made the ADD fail");
    }
}

#[test]
fn a_panic_gives_the_claim_back() {
    private_host(|| {
        let pod = pod(2);
        Attachment::on_paper("c9", &["10.88.0.9/32"], &json!([{ "hostPort": 1, "containerPort": 1 }])).add().ok();
        let before = traces(&pod);
        let config = attachment(&pod).checked();
        let panics = || {
            add::with_claim(&config, |_| -> Result<(), Error> {
                assert!(ruleset().contains("8080"), "nothing is claimed: {}", ruleset());
                panic!("after the claim");
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"after the claim"));
        assert_eq!(traces(&pod), before);
    });
}

#[test]
fn an_add_asks_the_kernel_the_same_number_of_questions_however_many_others_there_are() {
    private_host(|| {
        let pod = pod(2);
        let attachment = attachment(&pod);
        Attachment::on_paper("c9", &["10.88.0.9/32", "fd88::9/128"], &json!([{ "hostPort": 1, "containerPort": 1 }]))
            .add()
            .ok();
        let calls = || {
            let (answer, seen) = traced_add(&attachment, &["--trace", "sendto,recvfrom"]);
            answer.unwrap().ok();
            attachment.del().ok();
            seen.lines().count()
        };
        let alone = calls();
        map_many();
        assert_eq!(calls(), alone);
    });
}

/// 2,000 ports of somebody, in both families, and as many owners.
fn map_many() {
    for family in ["ip", "ip6"] {
        let target = if family == "ip" { "10.88.0.8" } else { "fd88::8" };
        let elements: Vec<String> =
            (10_000..12_000).map(|port| format!("tcp . {port} comment \"podnet c8 eth0\" : {target} . 80")).collect();
        nft(&["add", "element", family, "podwire-hostport", "wildcard", &format!("{{ {} }}", elements.join(", "))]);
        let key =
            |n: u16| if family == "ip" { format!("10.0.{}.{}", n / 256, n % 256) } else { format!("fd00::{n:x}") };
        let owner = |n| format!("{0} . {0} comment \"podnet c{n} eth0\"", key(n));
        let owners: Vec<String> = (10_000..12_000).map(owner).collect();
        nft(&["add", "element", family, "podwire-hostport", "owners", &format!("{{ {} }}", owners.join(", "))]);
    }
}

const CONF: &str = r#"{ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" }"#;

#[test]
fn a_del_of_a_pod_without_ports_asks_the_same_number_of_questions_however_many_others_there_are() {
    private_host(|| {
        Attachment::on_paper("c9", &["10.88.0.9/32", "fd88::9/128"], &json!([{ "hostPort": 1, "containerPort": 1 }]))
            .add()
            .ok();
        let calls = || {
            let (output, seen) = traced("DEL", &["--trace", "sendto,recvfrom"], CONF);
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            seen.lines().count()
        };
        let alone = calls();
        map_many();
        assert_eq!(calls(), alone);
    });
}

/// Each sign is enough that there is something: a record, or the list of owners of either family.
#[test]
fn a_del_without_a_record_or_without_the_list_of_owners_takes_everything() {
    private_host(|| {
        let pod = pod(2);
        let attachment = attachment(&pod);
        let before = traces(&pod);
        attachment.add().ok();
        fs::remove_dir_all("/run/podwire").unwrap();
        nft(&["flush", "set", "ip", "podwire-hostport", "owners"]);
        attachment.del().ok();
        assert_eq!(traces(&pod), before);
        attachment.add().ok();
        for family in ["ip", "ip6"] {
            nft(&["flush", "set", family, "podwire-hostport", "owners"]);
        }
        attachment.del().ok();
        assert_eq!(traces(&pod), before);
    });
}

/// A DEL answers success whatever goes wrong. What it kept on file is its own next one's; the rest, as a table without
/// elements or an open interface, is taken away with the next pod, which need not have had any port.
#[test]
fn what_a_failed_del_leaves_goes_with_any_other_pod() {
    private_host(|| {
        let pod = pod(2);
        let (attachment, other) = (attachment(&pod), Attachment::on_paper("c5", &["10.88.0.5/32"], &json!([])));
        let before = traces(&pod);
        attachment.add().ok();
        let (_, seen) = traced("DEL", &["--trace=sendto"], CONF);
        let requests = (1..).zip(seen.lines().filter(|line| line.contains("sendto(")));
        let commits: Vec<u32> =
            requests.filter(|(_, line)| line.contains("NFNL_MSG_BATCH_BEGIN")).map(|(n, _)| n).collect();
        assert!(commits.len() > 2, "{seen}");
        let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", pod.link);
        let opened = ["--trace-path", &setting, "--trace=openat"].map(str::to_owned);
        let fail = |syscall: &str, n: &str| format!("--inject={syscall}:error=EIO:when={n}");
        let mut failures: Vec<Vec<String>> =
            commits.iter().map(|n| vec!["--trace=sendto".to_owned(), fail("sendto", &n.to_string())]).collect();
        failures.push([&opened[..], &[fail("openat", "1+")]].concat());
        let mut left = 0;
        for failure in failures {
            attachment.add().ok();
            let failure: Vec<&str> = failure.iter().map(String::as_str).collect();
            let (output, seen) = traced("DEL", &failure, CONF);
            assert!(output.status.success() && seen.contains("(INJECTED)"), "{output:?} {seen}");
            let after = traces(&pod);
            if after.2 != before.2 {
                attachment.del().ok();
            } else {
                assert_ne!(after, before, "{seen}");
                left += 1;
                other.del().ok();
            }
            assert_eq!(traces(&pod), before, "{failure:?}: {seen}");
        }
        assert!(left > 2, "{left} DELs left something without a record");
    });
}

/// A DEL, a GC or a `reconcile` under strace(1), with environment and standard input of a request.
fn traced(command: &str, arguments: &[&str], stdin: &str) -> (std::process::Output, String) {
    let mut strace = sandbox::command("strace");
    strace.args(["--follow-forks", "--quiet=all", "--output", LOG]).args(arguments);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let container = [("CNI_CONTAINERID", "pod2"), ("CNI_IFNAME", "eth0")];
    let container = if command == "DEL" { &container[..] } else { &[] };
    let output = run(strace, command, container, stdin);
    (output, fs::read_to_string(LOG).unwrap())
}

/// Each is killed at each of its calls that change something; the next one then ends what is left.
#[test]
fn what_a_killed_del_or_gc_leaves_is_ended_by_the_next_one() {
    private_host(|| {
        let pod = pod(2);
        let attachment = attachment(&pod);
        let before = traces(&pod);
        let all_stale = json!({
            "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap", "cni.dev/valid-attachments": [],
        });
        let del: &[&str] = &["unlink", "rmdir", "write", "sendto"];
        // What GC asks the kernel is what DEL asks.
        let gc: &[&str] = &["unlink", "rmdir", "write"];
        for (command, stdin, syscalls) in [("DEL", CONF.to_owned(), del), ("GC", all_stale.to_string(), gc)] {
            for syscall in syscalls {
                let mut kills = 0;
                for n in 1.. {
                    assert!(n <= MOST_CALLS, "more than {MOST_CALLS} calls of {syscall}");
                    attachment.add().ok();
                    let inject = format!("--inject={syscall}:signal=KILL:when={n}");
                    let (_, seen) = traced(command, &["--trace", syscall, &inject], &stdin);
                    let killed = seen.contains("killed by SIGKILL");
                    let (output, _) = traced(command, &["--trace", "none"], &stdin);
                    assert!(output.status.success(), "{output:?}");
                    assert_eq!(traces(&pod), before, "{command}, {syscall} number {n}: {seen}");
                    if !killed {
                        break;
                    }
                    kills += 1;
                }
                assert!(kills > 0, "no {syscall} of {command} was killed");
            }
        }
    });
}

/// Interfaces of pods go at any time, with their settings.
#[test]
fn gc_does_not_mind_that_an_interface_goes_while_it_is_looked_at() {
    private_host(|| {
        let pod = pod(2);
        let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", pod.link);
        let before = traces(&pod);
        attachment(&pod).add().ok();
        let conf = json!({
            "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap", "cni.dev/valid-attachments": [],
        });
        let arguments = ["--trace-path", &setting, "--trace=openat", "--inject=openat:error=ENOENT"];
        let (output, seen) = traced("GC", &arguments, &conf.to_string());
        assert!(seen.contains("(INJECTED)"), "{seen}");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(traces(&pod).0, before.0);
    });
}
