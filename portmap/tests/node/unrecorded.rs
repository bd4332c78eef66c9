//! Mappings that nothing is on file of: saved and put back by somebody, or left by an ADD that could write no record.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::backend::Backend;
use crate::common::net::{NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Attachment, HELD, by_hand, feed, nft};
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    rules_of_an_earlier_boot_keep_no_port,
    reconcile_ends_what_an_earlier_boot_left,
    a_living_pod_without_a_record_keeps_its_port,
);

const RECORDS: &str = "/run/podwire";

fn ports(number: u16) -> Value {
    json!([{ "hostPort": number, "containerPort": 80 }])
}

/// What netfilter-persistent, or `nft list ruleset`, saves: put back after a flush, with no file of this boot.
fn reboot(backend: Backend) {
    // Which tables there are the machine's own root alone may read: of the flavour "legacy" each is asked for by name.
    let save = |program: &str| {
        let table = |name: &str| {
            let output = sandbox::command(program).args(["-t", name]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        ["raw", "nat"].map(table).concat()
    };
    match backend {
        Backend::Nftables => {
            let saved = nft(&["list", "ruleset"]);
            backend.flush();
            fs::write("/run/saved.nft", saved).unwrap();
            nft(&["-f", "/run/saved.nft"]);
        }
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let flavour = &backend.iptables()["iptables-".len()..];
            let saved = ["iptables", "ip6tables"].map(|program| save(&format!("{program}-{flavour}-save")));
            backend.flush();
            for (program, saved) in ["iptables", "ip6tables"].iter().zip(&saved) {
                feed(&format!("{program}-{flavour}-restore"), &[], saved);
            }
        }
    }
    fs::remove_dir_all(RECORDS).unwrap();
}

fn rules_of_an_earlier_boot_keep_no_port(backend: Backend) {
    forward();
    let (lan, old, new) = (lan(), pod(2), pod(3));
    new.serve(80);
    Attachment::new(&old, &ports(8080)).on(backend).add().ok();
    let before = backend.rules();
    old.die();
    reboot(backend);
    assert!(backend.rules().contains("8080"), "{before}\n{}", backend.rules());
    let newcomer = Attachment::new(&new, &ports(8080)).on(backend);
    newcomer.add().ok();
    newcomer.check().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
    assert!(!backend.rules().contains("pod2"), "{}", backend.rules());
    newcomer.del().ok();
    assert_eq!(backend.rules(), "");
}

fn reconcile_ends_what_an_earlier_boot_left(backend: Backend) {
    forward();
    let (lan, old, living) = (lan(), pod(2), pod(3));
    living.serve(80);
    let attachment = Attachment::new(&living, &ports(9090)).on(backend);
    Attachment::new(&old, &ports(8080)).on(backend).add().ok();
    old.die();
    reboot(backend);
    attachment.add().ok();
    let told = "nothing is on file of it, no interface leads to 10.88.0.2\n";
    let (code, planned, _) = by_hand("reconcile --dry-run");
    assert_eq!(code, 0, "{planned}");
    assert!(planned.contains(&format!("podnet pod2 eth0: to be removed: {told}")), "{planned}");
    assert!(backend.rules().contains("8080"));
    let (code, shown, stderr) = by_hand("reconcile");
    assert_eq!((code, stderr.as_str()), (0, ""), "{shown}");
    assert!(shown.contains(&format!("podnet pod2 eth0: removed: {told}")), "{shown}");
    assert!(!backend.rules().contains("8080"), "{}", backend.rules());
    assert_eq!(by_hand("reconcile --quiet"), (0, String::new(), String::new()));
    assert_eq!(lan.tcp(NODE_V4[0], 9090), from("pod3", NEIGHBOUR_V4));
}

/// Its record was lost, or never written: one sign, which is not enough.
fn a_living_pod_without_a_record_keeps_its_port(backend: Backend) {
    forward();
    let (lan, holder, newcomer) = (lan(), pod(2), pod(3));
    holder.serve(80);
    Attachment::new(&holder, &ports(8080)).on(backend).add().ok();
    fs::remove_dir_all(RECORDS).unwrap();
    assert_eq!(by_hand("reconcile"), (0, String::new(), String::new()));
    let (code, _, details) = Attachment::new(&newcomer, &ports(8080)).on(backend).add().failed();
    assert_eq!((code, details.as_str()), (HELD, "nothing is on file of it; it keeps the port until it is deleted"));
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
}

/// Its claim in IPv6 failed, and so did giving back the one in IPv4: its pod was refused, so nobody waits for it to end.
#[test]
fn what_an_add_could_not_give_back_keeps_no_port() {
    const FOLDER: &str = "/usr/local/sbin";
    private_host(|| {
        let backend = Backend::IptablesNft.prepared();
        let (refused, next) = (pod(2), pod(3));
        assert!(sandbox::command("mount").args(["-t", "tmpfs", "none", FOLDER]).status().unwrap().success());
        let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'v1.8.9 (nf_tables)' && exit\n\
                      [ -e /run/asked ] && echo 'out of order' >&2 && exit 1\n\
                      : > /run/asked\nexec /usr/sbin/iptables-nft-restore \"$@\"\n";
        let names = ["iptables-restore", "iptables-nft-restore", "ip6tables-restore", "ip6tables-nft-restore"];
        for path in names.map(|name| format!("{FOLDER}/{name}")) {
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (_, msg, _) = Attachment::new(&refused, &ports(8080)).on(backend).add().failed();
        assert!(msg.contains("undoing it failed too"), "{msg}");
        assert!(backend.rules().contains("podnet pod2 eth0"), "{}", backend.rules());
        names.iter().for_each(|name| fs::remove_file(format!("{FOLDER}/{name}")).unwrap());
        let newcomer = Attachment::new(&next, &ports(8080)).on(backend);
        newcomer.add().ok();
        newcomer.check().ok();
        assert!(!backend.rules().contains("pod2"), "{}", backend.rules());
    });
}
