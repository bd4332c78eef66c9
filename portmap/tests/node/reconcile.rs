//! A flushed firewall is filled again.

use std::thread;

use crate::common::backend::Backend;
use crate::common::net::{NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, forward, from, lan, pod};
use crate::common::plugin::{Attachment, by_hand, nft, ruleset};
use kernel::sysctl;
use portmap::reconcile::end;
use portmap::record::Records;
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    everything_comes_back_after_a_flush,
    what_a_pod_has_is_never_taken_by_a_failure,
    what_is_still_wrong_is_told_and_takes_nothing_away,
    everything_is_read_once_however_many_pods_there_are,
);

const TABLE: &str = "podwire-hostport";

#[track_caller]
fn reconcile(args: &str) -> String {
    let (code, stdout, stderr) = by_hand(&format!("reconcile {args}"));
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

fn everything_comes_back_after_a_flush(backend: Backend) {
    forward();
    let (lan, web, dns) = (lan(), pod(2), pod(3));
    web.serve(80);
    dns.serve(5353);
    let web = Attachment::new(&web, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    let ports = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1" }]);
    let dns = Attachment::new(&dns, &ports).with("snat", json!(false)).on(backend);
    web.add().ok();
    dns.add().ok();
    let before = backend.rules();
    assert_eq!(reconcile(""), "podnet pod2 eth0: as it should be\npodnet pod3 eth0: as it should be\n");
    backend.flush();
    sysctl::set("net/ipv4/conf/to-pod2/route_localnet", "0").unwrap();
    let planned = reconcile("--dry-run");
    assert!(planned.starts_with("podnet pod2 eth0: to be restored\n  "), "{planned}");
    assert_eq!(backend.rules(), "");
    let shown = reconcile("");
    assert!(
        shown.starts_with(
            "podnet pod2 eth0: restored 0.0.0.0:8080/tcp -> 10.88.0.2:80, [::]:8080/tcp -> [fd88::2]:80 ("
        ),
        "{shown}"
    );
    assert_eq!(backend.rules(), before);
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    assert_eq!(lan.tcp(NODE_V6[0], 8080), from("pod2", NEIGHBOUR_V6));
    assert_eq!(lan.udp(NODE_V4[0], 53), from("pod3", NEIGHBOUR_V4));
    web.check().ok();
    dns.check().ok();
    assert_eq!(reconcile("--quiet"), "");
    web.del().ok();
    dns.del().ok();
    assert_eq!(reconcile(""), "");
    assert_eq!(backend.rules(), "");
}

#[test]
fn whatever_is_wrong_is_put_right_and_others_elements_stay() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        let other = Attachment::on_paper(
            "c9",
            &["10.88.0.9/32", "fd88::9/128"],
            &json!([{ "hostPort": 9, "containerPort": 9 }]),
        );
        other.add().ok();
        // A table that is made anew is listed last.
        let tables = || [nft(&["list", "table", "ip", TABLE]), nft(&["list", "table", "ip6", TABLE])];
        let before = tables();
        let damages: [&[&[&str]]; 5] = [
            &[&["flush", "table", "ip", "podwire-hostport"]],
            &[
                &["flush", "chain", "ip6", "podwire-hostport", "prerouting"],
                &["add", "rule", "ip6", "podwire-hostport", "output", "drop"],
            ],
            &[&["delete", "element", "ip", "podwire-hostport", "wildcard", "{ tcp . 8080 }"]],
            &[
                &["flush", "map", "ip", "podwire-hostport", "wildcard"],
                &["flush", "set", "ip", "podwire-hostport", "hairpin"],
            ],
            &[&["delete", "table", "ip6", "podwire-hostport"]],
        ];
        for damage in damages {
            for arguments in damage {
                nft(arguments);
            }
            assert_ne!(nft(&["list", "ruleset"]), before.concat());
            reconcile("");
            assert_eq!(tables(), before, "{damage:?}");
            assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        }
    });
}

#[test]
fn the_dead_are_removed_and_not_restored() {
    private_host(|| {
        let (dead, living) = (pod(2), pod(3));
        Attachment::new(&dead, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        Attachment::new(&living, &json!([{ "hostPort": 9090, "containerPort": 80 }])).add().ok();
        dead.die();
        let shown = reconcile("--dry-run");
        let expected = "podnet pod2 eth0: to be removed: its interface to-pod2 is gone, its network namespace \
                        /run/netns/pod2 is gone\npodnet pod3 eth0: as it should be\n";
        assert_eq!(shown, expected);
        assert!(ruleset().contains("pod2"));
        reconcile("");
        assert!(!ruleset().contains("pod2") && ruleset().contains("pod3"), "{}", ruleset());
        nft(&["flush", "ruleset"]);
        reconcile("");
        assert!(!ruleset().contains("8080") && ruleset().contains("9090"), "{}", ruleset());
    });
}

#[test]
fn elements_that_nobody_asked_for_cost_nobody_else_anything() {
    private_host(|| {
        let of = |id: &str, address: &str, port: u16| {
            Attachment::on_paper(id, &[address], &json!([{ "hostPort": port, "containerPort": 80 }]))
        };
        // A way leads to its address: that nothing is on file is one sign.
        pod(3);
        of("c1", "10.88.0.2/32", 8080).add().ok();
        of("c2", "10.88.0.3/32", 8081).add().ok();
        // Nothing knows of it but the firewall itself.
        std::fs::remove_file("/run/podwire/portmap/podnet:c2:eth0").unwrap();
        nft(&["add", "element", "ip", TABLE, "wildcard", "{ udplite . 80 : 10.88.0.77 . 80 }"]);
        nft(&["flush", "chain", "ip", TABLE, "prerouting"]);
        reconcile("");
        let listed = ruleset();
        assert!(listed.contains("8080") && listed.contains("8081"), "{listed}");
        of("c2", "10.88.0.3/32", 8081).check().ok();
    });
}

#[test]
fn a_judgement_that_is_old_ends_nobody() {
    private_host(|| {
        let first = Attachment::new(&pod(2), &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        first.add().ok();
        let records = Records::default();
        let attachment: cni_spec::Attachment = "podnet pod2 eth0".parse().unwrap();
        let judged = records.read(&attachment).unwrap();
        // Its DEL was lost, and it was begun anew after it was looked at.
        let again = Attachment::new(&pod(3), &json!([{ "hostPort": 8081, "containerPort": 80 }]));
        let again = Attachment { container: "pod2".to_owned(), ..again };
        again.add().ok();
        let before = ruleset();
        let (ended, errors) = end(&records, &attachment, &judged);
        assert!(!ended && errors.is_empty(), "{errors:?}");
        assert_eq!(ruleset(), before);
        again.check().ok();
        let judged = records.read(&attachment).unwrap();
        let (ended, errors) = end(&records, &attachment, &judged);
        assert!(ended && errors.is_empty(), "{errors:?}");
        assert_eq!((ruleset().as_str(), std::fs::exists("/run/podwire").unwrap()), ("", false));
    });
}

#[test]
fn what_cannot_be_restored_is_told_and_the_rest_is_done() {
    private_host(|| {
        let (first, second) = (pod(2), pod(3));
        Attachment::new(&first, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        Attachment::new(&second, &json!([{ "hostPort": 9090, "containerPort": 80 }])).add().ok();
        nft(&["flush", "ruleset"]);
        // Somebody was quicker than the holder of old.
        Attachment::on_paper("c9", &["10.88.0.9/32"], &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        std::fs::write("/run/podwire/portmap/podnet:c8:eth0", "{").unwrap();
        let (code, stdout, stderr) = by_hand("reconcile -o json");
        assert_eq!(code, 1);
        let document: Value = serde_json::from_str(&stdout).unwrap();
        let items = document["items"].as_array().unwrap();
        let of = |id: &str| items.iter().find(|item| item["containerID"] == id).unwrap();
        let done = ["c9", "pod2", "pod3"].map(|id| of(id)["done"].as_str().unwrap());
        assert_eq!(done, ["nothing", "failed", "restored"], "{document:#}");
        assert!(of("pod2")["details"][0].as_str().unwrap().contains("held by container c9"), "{document:#}");
        assert!(stderr.contains("failed to read /run/podwire/portmap/podnet:c8:eth0; "), "{stderr}");
        assert!(stderr.contains("if there is such a pod, start it anew, if not, remove the file"), "{stderr}");
        assert!(ruleset().contains("9090"));
    });
}

/// Takes one mapping out of the firewall: what leads to this port of pods.
fn lose(backend: Backend, port: u16, number: u16) {
    if backend == Backend::Nftables {
        for family in ["ip", "ip6"] {
            nft(&["delete", "element", family, TABLE, "wildcard", &format!("{{ tcp . {port} }}")]);
        }
        return;
    }
    for family in ["ip", "ip6"] {
        let program = format!("{family}{}", &backend.iptables()[2..]);
        let arguments = ["-t", "nat", "-D", "PODWIRE-WILDCARD", &number.to_string()];
        assert!(sandbox::command(program).args(arguments).status().unwrap().success());
    }
}

fn what_a_pod_has_is_never_taken_by_a_failure(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let ports = [8080, 8081].map(|port| json!({ "hostPort": port, "containerPort": 80 }));
    let attachment = Attachment::new(&pod, &json!(ports)).on(backend);
    attachment.add().ok();
    lose(backend, 8080, 1);
    // Somebody was quicker than the holder of old.
    Attachment::on_paper("c9", &["10.88.0.9/32", "fd88::9/128"], &json!([ports[0]])).on(backend).add().ok();
    let before = backend.rules();
    for _ in 0..2 {
        let (code, stdout, _) = by_hand("reconcile");
        assert_eq!(code, 1);
        assert!(stdout.contains("podnet pod2 eth0: failed: host port 8080/tcp on every IPv4"), "{stdout}");
        assert_eq!(lan.tcp(NODE_V4[0], 8081), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V6[0], 8081), from("pod2", NEIGHBOUR_V6));
        assert_eq!(backend.rules(), before);
    }
}

fn what_is_still_wrong_is_told_and_takes_nothing_away(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let ports = [8080, 8081].map(|port| json!({ "hostPort": port, "containerPort": 80 }));
    let attachment = Attachment::new(&pod, &json!(ports)).on(backend);
    attachment.add().ok();
    lose(backend, 8080, 1);
    sysctl::set("net/ipv4/conf/to-pod2/route_localnet", "0").unwrap();
    for arguments in [["--bind", "/proc/sys", "/proc/sys"], ["-o", "remount,bind,ro", "/proc/sys"]] {
        assert!(sandbox::command("mount").args(arguments).status().unwrap().success());
    }
    let (code, stdout, _) = by_hand("reconcile");
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("podnet pod2 eth0: restored 0.0.0.0:8080/tcp -> 10.88.0.2:80, "), "{stdout}");
    assert!(stdout.contains("), but ") && stdout.contains("net/ipv4/conf/to-pod2/route_localnet"), "{stdout}");
    for port in [8080, 8081] {
        assert_eq!(lan.tcp(NODE_V4[0], port), from("pod2", NEIGHBOUR_V4), "{port}");
        assert_eq!(lan.tcp(NODE_V6[0], port), from("pod2", NEIGHBOUR_V6), "{port}");
    }
    assert!(sandbox::command("umount").arg("/proc/sys").status().unwrap().success());
    assert_eq!(reconcile("--quiet").lines().count(), 1);
    attachment.check().ok();
}

#[test]
fn restoring_races_with_dels_and_adds_without_loss_or_leftover() {
    private_host(|| {
        let pods: Vec<_> = (2..8).map(pod).collect();
        let attachments: Vec<Attachment> = pods
            .iter()
            .zip(8000..)
            .map(|(pod, port): (_, u16)| Attachment::new(pod, &json!([{ "hostPort": port, "containerPort": 80 }])))
            .collect();
        for _ in 0..5 {
            attachments.iter().for_each(|one| drop(one.add().ok()));
            nft(&["flush", "ruleset"]);
            thread::scope(|scope| {
                scope.spawn(|| by_hand("reconcile"));
                for one in &attachments[..3] {
                    scope.spawn(|| one.del().ok());
                }
            });
            let listed = ruleset();
            for (index, pod) in pods.iter().enumerate() {
                assert_eq!(listed.contains(&format!(" {} ", pod.name)), index >= 3, "{}: {listed}", pod.name);
            }
            attachments.iter().for_each(|one| drop(one.del().ok()));
            assert_eq!(ruleset(), "");
        }
    });
}

/// Questions for all elements, and programs, of a `reconcile` that finds everything right.
fn everything_is_read_once_however_many_pods_there_are(backend: Backend) {
    const LOG: &str = "/run/strace";
    let reads = || {
        let mut strace = sandbox::command("strace");
        strace.args(["--follow-forks", "--quiet=all", "--output", LOG, "--trace", "sendto,execve"]);
        let output = strace.arg(env!("CARGO_BIN_EXE_podwire-portmap")).arg("reconcile").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = std::fs::read_to_string(LOG).unwrap();
        ["NFT_MSG_GETSETELEM", "execve("].map(|word| log.lines().filter(|line| line.contains(word)).count())
    };
    let add = |number: u16| {
        let addresses = [format!("10.88.0.{number}/32"), format!("fd88::{number}/128")];
        let ports = json!([{ "hostPort": 8000 + number, "containerPort": 80 }]);
        let addresses = addresses.each_ref().map(String::as_str);
        Attachment::on_paper(&format!("c{number}"), &addresses, &ports).on(backend).add().ok();
    };
    add(1);
    let one = reads();
    (2..9).for_each(add);
    assert_eq!(reads(), one);
    assert!(one.iter().any(|count| *count > 1), "{one:?}");
}
