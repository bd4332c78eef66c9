//! Rules of iptables that somebody has changed, or lets lead to ours, when the last pod goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::backend::Backend;
use crate::common::net::pod;
use crate::common::plugin::{Attachment, by_hand, gc};
use sandbox::private_host;
use serde_json::json;

on_iptables!(
    hooks_that_somebody_changed_go_with_the_last_pod,
    a_rule_of_others_keeps_the_chains_and_no_pods_rules,
    a_program_that_lists_nothing_keeps_the_chains_and_no_pods_rules,
    a_rule_of_others_keeps_no_record_of_a_pod_that_is_gone,
    a_rule_of_others_refuses_nobody_who_moves_to_the_other_backend,
);

fn on_paper(backend: Backend) -> Attachment {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    Attachment::on_paper("c1", &["10.88.0.2/32", "fd88::2/128"], &ports).on(backend)
}

/// Runs iptables of a family.
#[track_caller]
fn change(backend: Backend, family: &str, arguments: &str) {
    let program = format!("{family}{}", &backend.iptables()[2..]);
    let done = sandbox::command(program).args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "{family} {arguments}");
}

/// All rules in which this plugin is named.
fn rules(backend: Backend) -> Vec<String> {
    let list = |(family, table): (&str, &str)| {
        let output =
            sandbox::command(format!("{family}{}", &backend.iptables()[2..])).args(["-t", table, "-S"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let text = [("ip", "raw"), ("ip", "nat"), ("ip6", "nat")].map(list).concat();
    text.lines().filter(|line| line.to_lowercase().contains("podwire")).map(str::to_owned).collect()
}

fn hooks_that_somebody_changed_go_with_the_last_pod(backend: Backend) {
    let attachment = on_paper(backend);
    let ours = "-m comment --comment podwire-hostport";
    let changes = [
        ("ip", format!("-t nat -R OUTPUT 1 {ours} -j PODWIRE-HOSTPORT")),
        ("ip6", format!("-t nat -R OUTPUT 1 -p udp {ours} -j PODWIRE-HOSTPORT")),
        ("ip", format!("-t nat -R PREROUTING 1 {ours}")),
        ("ip", format!("-t nat -R POSTROUTING 1 -p tcp {ours} -j RETURN")),
        ("ip6", format!("-t nat -A POSTROUTING -p tcp {ours} -j PODWIRE-MASQ")),
        ("ip", format!("-t raw -R PREROUTING 1 ! -i eth9 {ours} -j PODWIRE-GUARD")),
    ];
    // One by one, and all at once.
    for changes in changes.chunks(1).chain([&changes[..]]) {
        attachment.add().ok();
        changes.iter().for_each(|(family, arguments)| change(backend, family, arguments));
        assert_eq!(attachment.del().remarks(), "");
        assert_eq!(rules(backend), [""; 0]);
        assert!(!fs::exists("/run/podwire/portmap").unwrap());
    }
    // Only what names this plugin goes.
    let other = "-t nat -A OUTPUT -p udp -m comment --comment other -j RETURN";
    attachment.add().ok();
    change(backend, "ip", &changes[0].1);
    change(backend, "ip", other);
    gc("podnet", &[]).ok();
    assert_eq!(rules(backend), [""; 0]);
    change(backend, "ip", &other.replace("-A", "-D"));
}

fn a_rule_of_others_keeps_the_chains_and_no_pods_rules(backend: Backend) {
    let attachment = on_paper(backend);
    attachment.add().ok();
    let of_others = "-t nat -A PREROUTING -p udp -j PODWIRE-HOSTPORT";
    change(backend, "ip", of_others);
    let told = "chains of host ports stay in ip rules of iptables";
    let remarks = attachment.del().remarks();
    assert!(remarks.contains(told), "{remarks}");
    assert!(!fs::exists("/run/podwire/portmap").unwrap());
    let left = rules(backend);
    assert!(left.iter().any(|rule| rule == "-A PREROUTING -p udp -j PODWIRE-HOSTPORT"), "{left:?}");
    assert!(!left.iter().any(|rule| rule.contains("c1") || rule.contains("10.88")), "{left:?}");
    let remarks = gc("podnet", &[]).remarks();
    assert!(remarks.contains(told), "{remarks}");
    // A port is free in the meantime, and served.
    attachment.add().ok();
    attachment.check().ok();
    change(backend, "ip", &of_others.replace("-A", "-D"));
    assert_eq!(attachment.del().remarks(), "");
    assert_eq!(rules(backend), [""; 0]);
    // Or the next DEL of whatever pod finds that the others' rule is gone.
    attachment.add().ok();
    change(backend, "ip", of_others);
    assert!(attachment.del().remarks().contains(told));
    change(backend, "ip", &of_others.replace("-A", "-D"));
    let without_ports = Attachment::on_paper("c2", &["10.88.0.3/32"], &json!([]));
    assert_eq!(without_ports.del().remarks(), "");
    assert_eq!(rules(backend), [""; 0]);
}

/// What leads there now cannot be told, and what a pod has needs no telling.
fn a_program_that_lists_nothing_keeps_the_chains_and_no_pods_rules(backend: Backend) {
    let attachment = on_paper(backend);
    attachment.add().ok();
    let ours = "-m comment --comment podwire-hostport";
    change(backend, "ip", &format!("-t nat -R OUTPUT 1 {ours} -j PODWIRE-HOSTPORT"));
    let folder = "/usr/local/sbin";
    assert!(sandbox::command("mount").args(["-t", "tmpfs", "none", folder]).status().unwrap().success());
    let program = format!("{folder}/{}", backend.iptables());
    fs::write(&program, "#!/bin/sh\necho out of order >&2\nexit 4\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let remarks = attachment.del().remarks();
    assert!(remarks.contains("chains of host ports stay in ip rules of iptables"), "{remarks}");
    assert!(remarks.contains("they could not be removed") && remarks.contains("out of order"), "{remarks}");
    assert!(!fs::exists("/run/podwire/portmap").unwrap());
    assert!(sandbox::command("umount").arg(folder).status().unwrap().success());
    let left = rules(backend);
    assert!(!left.is_empty() && !left.iter().any(|rule| rule.contains("c1") || rule.contains("10.88")), "{left:?}");
    assert_eq!(attachment.del().remarks(), "");
    assert_eq!(rules(backend), [""; 0]);
}

/// Without a DEL: whoever ends a dead pod.
fn a_rule_of_others_keeps_no_record_of_a_pod_that_is_gone(backend: Backend) {
    let (told, of_others) =
        ("chains of host ports stay in ip rules", "-t nat -A PREROUTING -p udp -j PODWIRE-HOSTPORT");
    let records = || fs::exists("/run/podwire/portmap").unwrap();
    let dead = || {
        let pod = pod(2);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
        attachment.add().ok();
        change(backend, "ip", of_others);
        pod.die();
        attachment
    };
    dead();
    let (code, stdout, stderr) = by_hand("reconcile");
    assert_eq!((code, stderr.matches(told).count()), (0, 1), "{stderr}");
    assert!(stdout.starts_with("podnet pod2 eth0: removed: ") && stdout.lines().count() == 1, "{stdout}");
    assert!(!records() && !rules(backend).iter().any(|rule| rule.contains("pod2")));
    assert_eq!(by_hand("reconcile"), (0, String::new(), String::new()));
    change(backend, "ip", &of_others.replace("-A", "-D"));
    // Or the ADD that takes its port over, in the other backend.
    dead();
    let next = on_paper(backend).on(Backend::Nftables);
    let remarks = next.add().remarks();
    assert!(remarks.contains(told), "{remarks}");
    next.check().ok();
    next.del().ok();
    assert!(!records());
}

fn a_rule_of_others_refuses_nobody_who_moves_to_the_other_backend(backend: Backend) {
    let attachment = on_paper(backend);
    attachment.add().ok();
    change(backend, "ip", "-t nat -A PREROUTING -p udp -j PODWIRE-HOSTPORT");
    let attachment = attachment.on(Backend::Nftables);
    let remarks = attachment.add().remarks();
    assert_eq!(remarks.matches("chains of host ports stay in ip rules of iptables").count(), 1, "{remarks}");
    assert!(!rules(backend).iter().any(|rule| rule.contains("c1")));
    attachment.check().ok();
}

/// The administrator has chosen the other program since.
#[test]
fn a_rule_of_others_refuses_nobody_who_moves_to_the_other_flavour() {
    private_host(|| {
        let attachment = on_paper(Backend::IptablesNft);
        attachment.add().ok();
        change(Backend::IptablesNft, "ip", "-t nat -A PREROUTING -p udp -j PODWIRE-HOSTPORT");
        Backend::IptablesLegacy.prepared();
        let remarks = attachment.add().remarks();
        assert_eq!(remarks.matches("chains of host ports stay in ip rules of iptables (nft)").count(), 1, "{remarks}");
        assert!(!rules(Backend::IptablesNft).iter().any(|rule| rule.contains("c1")));
        attachment.check().ok();
    });
}
