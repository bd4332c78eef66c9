//! Beside firewalld and ufw themselves, as Debian has them: what they let through by themselves, what their user has to
//! allow, and what their reloads take along.

use crate::coexist::{Cluster, check_host_port, families, is_dropped};
use crate::common::backend::Backend;
use crate::common::firewalls::{Firewalld, Ufw};
use crate::common::net::NODE_V4;
use crate::common::plugin::{Answer, Attachment, by_hand, ruleset};
use sandbox::private_host;

on_each_backend!(
    host_ports_are_reached_beside_firewalld_and_outlive_its_reloads,
    host_ports_are_reached_that_ufw_routes_and_outlive_its_reloads,
);

/// A port of the neighbour's.
const OUTSIDE: u16 = 9090;

/// What was flushed comes back: that on iptables of the flavour that `/usr/sbin/iptables` is, and nothing else.
#[track_caller]
fn come_back(attachment: &Attachment, backend: Backend, after: &str) {
    let is_flushed = backend == flushed();
    let is_whole = matches!(attachment.check(), Answer::Ok { .. });
    assert_eq!(is_whole, !is_flushed, "{after}: {:?}\n{}", attachment.check(), ruleset());
    let (code, shown, stderr) = by_hand("reconcile --quiet");
    assert_eq!((code, stderr.as_str(), shown.is_empty()), (0, "", is_whole), "{after}: {shown}");
    attachment.check().ok();
}

/// What firewalls call, whatever the PATH of others is.
fn flushed() -> Backend {
    let output = sandbox::command("/usr/sbin/iptables").arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    if version.contains("(nf_tables)") { Backend::IptablesNft } else { Backend::IptablesLegacy }
}

/// The default zone forwards nothing but what is translated, and answers; so does a zone that drops everything.
fn host_ports_are_reached_beside_firewalld_and_outlive_its_reloads(backend: Backend) {
    let cluster = Cluster::new();
    let attachment = cluster.map(backend);
    let Some(firewalld) = Firewalld::start("nftables") else { return };
    come_back(&attachment, backend, "start");
    check_host_port(&cluster.lan, &cluster.mapped);
    for action in ["--reload", "--complete-reload"] {
        firewalld.cmd(action);
        come_back(&attachment, backend, action);
        check_host_port(&cluster.lan, &cluster.mapped);
    }
    // Pods reach nobody outside by it, and nobody them, unless they are trusted.
    cluster.lan.serve(OUTSIDE);
    let reach = |pods: bool| {
        for words in families() {
            assert_eq!(cluster.served.tcp(words.neighbour, OUTSIDE).is_ok(), pods);
            assert!(cluster.lan.tcp(words.address(&cluster.served), 8080).is_err());
        }
    };
    reach(false);
    for words in families() {
        firewalld.cmd(&format!("--zone=trusted --add-source={}", words.pods));
    }
    reach(true);
    firewalld.cmd("--set-default-zone=drop");
    assert!(is_dropped(&cluster.lan, cluster.served.v4.into()));
    check_host_port(&cluster.lan, &cluster.mapped);
    firewalld.stop();
    come_back(&attachment, backend, "stop");
    check_host_port(&cluster.lan, &cluster.mapped);
    attachment.del().ok();
}

/// Its rules are in the tables that ours are in, and its reloads flush those.
#[test]
fn host_ports_come_back_after_a_firewalld_that_uses_iptables() {
    private_host(|| {
        let backend = Backend::IptablesNft.prepared();
        let cluster = Cluster::new();
        let Some(firewalld) = Firewalld::start("iptables") else { return };
        let attachment = cluster.map(backend);
        check_host_port(&cluster.lan, &cluster.mapped);
        assert!(cluster.lan.tcp(cluster.served.v4, 8080).is_err());
        firewalld.cmd("--reload");
        come_back(&attachment, backend, "--reload");
        check_host_port(&cluster.lan, &cluster.mapped);
        assert!(cluster.lan.tcp(cluster.served.v4, 8080).is_err());
    });
}

/// It drops what is routed. What its user allows is the pod's address and port: packets are translated by then.
fn host_ports_are_reached_that_ufw_routes_and_outlive_its_reloads(backend: Backend) {
    let cluster = Cluster::new();
    let Some(ufw) = Ufw::new() else { return };
    ufw.ufw("--force enable");
    let attachment = cluster.map(backend);
    // This is about the node's own processes.
    ufw.ufw("allow 8080");
    for words in families() {
        assert!(is_dropped(&cluster.lan, words.node));
        ufw.ufw(&format!("route allow to {} port 80", words.pods));
    }
    check_host_port(&cluster.lan, &cluster.mapped);
    // It does drop: the port of the pod next to it is another one.
    assert!(is_dropped(&cluster.lan, cluster.served.v4.into()));
    for action in ["reload", "disable", "--force enable"] {
        ufw.ufw(action);
        attachment.check().ok();
        check_host_port(&cluster.lan, &cluster.mapped);
    }
    cluster.lan.serve(8080);
    for words in families() {
        assert!(is_dropped(&cluster.served, words.neighbour));
        ufw.ufw(&format!("route allow from {}", words.pods));
        assert!(cluster.served.tcp(words.neighbour, 8080).is_ok());
    }
    // With this it flushes what is others', in tables of iptables.
    ufw.set("MANAGE_BUILTINS", "yes");
    ufw.ufw("reload");
    come_back(&attachment, backend, "reload with MANAGE_BUILTINS");
    check_host_port(&cluster.lan, &cluster.mapped);
    attachment.del().ok();
    assert!(cluster.lan.tcp(NODE_V4[0], 8080).is_err());
}
