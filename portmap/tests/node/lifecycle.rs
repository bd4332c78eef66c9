//! ADD, DEL and GC: what comes, what goes, and what stays.

use crate::common::net::{NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, HELD, call, gc, nft, ruleset};
use kernel::sysctl;
use sandbox::private_host;
use serde_json::json;

const V4: [&str; 1] = ["10.88.0.2/32"];
const BOTH: [&str; 2] = ["10.88.0.2/32", "fd88::2/128"];

#[test]
fn del_leaves_nothing() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let key = format!("net/ipv4/conf/{}/route_localnet", pod.link);
        attachment.add().ok();
        assert_eq!(sysctl::get(&key).unwrap(), "112");
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        attachment.del().ok();
        assert_eq!(ruleset(), "");
        assert_eq!(sysctl::get(&key).unwrap(), "0");
        assert_eq!(lan.tcp(NODE_V4[0], 8080), Err(std::io::ErrorKind::ConnectionRefused));
        attachment.del().ok();
    });
}

#[test]
fn the_result_is_the_previous_one_in_the_version_of_the_config() {
    private_host(|| {
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let attachment = Attachment::on_paper("c1", &BOTH, &ports);
        assert_eq!(attachment.add().ok(), attachment.config["prevResult"]);
        let older = attachment.with("cniVersion", json!("0.4.0"));
        let result = older.add().ok();
        assert_eq!(result["cniVersion"], "0.4.0");
        assert_eq!(result["ips"][1], json!({ "version": "6", "address": "fd88::2/128", "interface": 1 }));
    });
}

#[test]
fn a_second_claimant_is_told_who_holds_the_port() {
    private_host(|| {
        let first = Attachment::on_paper("c1", &BOTH, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        first.add().ok();
        let before = ruleset();
        let second = |mappings| Attachment::on_paper("c2", &["10.88.0.3/32", "fd88::3/128"], &mappings);
        let wanted =
            second(json!([{ "hostPort": 9090, "containerPort": 80 }, { "hostPort": 8080, "containerPort": 81 }]));
        let (code, msg, _) = wanted.add().failed();
        let expected = "host port 8080/tcp on every IPv4 address is held by container c1 (eth0) of network podnet, \
                        for 10.88.0.2:80";
        assert_eq!((code, msg.as_str()), (HELD, expected));
        let (code, msg, _) = second(json!([{ "hostPort": 8080, "containerPort": 81, "hostIP": "::" }])).add().failed();
        let expected = "host port 8080/tcp on every IPv6 address is held by container c1 (eth0) of network podnet, \
                        for [fd88::2]:80";
        assert_eq!((code, msg.as_str()), (HELD, expected));
        assert_eq!(ruleset(), before);
        // DEL follows even a failed ADD, and must leave the holder alone.
        wanted.del().ok();
        assert_eq!(ruleset(), before);
        let exact = json!([{ "hostPort": 8080, "containerPort": 81, "protocol": "tcp", "hostIP": "192.0.2.1" }]);
        second(exact.clone()).add().ok();
        let (code, msg, _) = Attachment::on_paper("c3", &V4, &exact).with("name", json!("other")).add().failed();
        let expected = "host port 8080/tcp on 192.0.2.1 is held by container c2 (eth0) of network podnet, \
                        for 10.88.0.3:81";
        assert_eq!((code, msg.as_str()), (HELD, expected));
    });
}

#[test]
fn an_unknown_holder_is_quoted() {
    private_host(|| {
        Attachment::on_paper("c1", &V4, &json!([{ "hostPort": 1, "containerPort": 1 }])).add().ok();
        let element = "{ tcp . 8080 comment \"by hand\" : 10.88.0.9 . 80 }";
        nft(&["add", "element", "ip", "podwire-hostport", "wildcard", element]);
        let wanted = Attachment::on_paper("c2", &V4, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let (code, msg, _) = wanted.add().failed();
        let expected = "host port 8080/tcp on every IPv4 address is held by an unknown owner (\"by hand\"), \
                        for 10.88.0.9:80";
        assert_eq!((code, msg.as_str()), (HELD, expected));
    });
}

#[test]
fn an_add_whose_del_was_lost_is_replaced() {
    private_host(|| {
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }, { "hostPort": 53, "containerPort": 53, "protocol": "udp" }]);
        Attachment::on_paper("c1", &BOTH, &ports).add().ok();
        let ports = json!([{ "hostPort": 8080, "containerPort": 81 }, { "hostPort": 53, "containerPort": 53, "protocol": "udp" }]);
        let again = Attachment::on_paper("c1", &["10.88.0.7/32", "fd88::2/128"], &ports);
        again.add().ok();
        let listed = ruleset();
        assert!(listed.contains("tcp . 8080 comment \"podnet c1 eth0\" : 10.88.0.7 . 81"), "{listed}");
        assert!(listed.contains("tcp . 8080 comment \"podnet c1 eth0\" : fd88::2 . 81"), "{listed}");
        assert!(listed.contains("udp . 53 comment \"podnet c1 eth0\" : 10.88.0.7 . 53"), "{listed}");
        assert!(!listed.contains("10.88.0.2 . 80"), "{listed}");
        // The same once more changes nothing, and is no failure.
        again.add().ok();
        assert_eq!(ruleset(), listed);
        again.del().ok();
        assert_eq!(ruleset(), "");
    });
}

/// Of two ADDs of the same attachment, without a DEL between them, the second one counts alone.
#[track_caller]
fn only_the_second_counts(first: &Attachment, second: &Attachment) {
    second.add().ok();
    let alone = ruleset();
    second.del().ok();
    // Somebody else's elements must survive.
    let other_ports = json!([{ "hostPort": 1, "containerPort": 1 }]);
    let other = Attachment::on_paper("c9", &["10.88.0.9/32", "fd88::9/128"], &other_ports);
    other.add().ok();
    first.add().ok();
    second.add().ok();
    second.check().ok();
    other.check().ok();
    other.del().ok();
    assert_eq!(ruleset(), alone);
    second.del().ok();
    assert_eq!(ruleset(), "");
}

#[test]
fn nothing_of_an_add_whose_del_was_lost_outlives_the_next_one() {
    private_host(|| {
        let attach = |addresses: &[&str], ports| Attachment::on_paper("c1", addresses, &ports);
        let exact = json!({ "hostPort": 8081, "containerPort": 81, "hostIP": "192.0.2.1" });
        let port = |number: u32| json!({ "hostPort": number, "containerPort": 80 });
        let first = attach(&BOTH, json!([port(8080), port(8081), exact]));
        let (moved, moved_v4) = (["10.88.0.5/32", "fd88::5/128"], ["10.88.0.5/32"]);
        for second in [
            attach(&moved, json!([port(8080)])),
            // Neither ports nor addresses tell that the attachment had others before.
            attach(&moved, json!([port(9090)])),
            attach(&moved, json!([port(9090)])).with("snat", json!(false)),
            attach(&moved_v4, json!([port(8080)])),
            attach(&moved_v4, json!([port(9090)])),
            attach(&moved, json!([])),
        ] {
            only_the_second_counts(&first, &second);
        }
        let bare = attach(&BOTH, json!([port(8080)])).with("snat", json!(false));
        only_the_second_counts(&bare, &attach(&moved, json!([port(9090)])));
    });
}

#[test]
fn an_attachment_that_lost_its_address_to_another_pod_is_still_known() {
    private_host(|| {
        let ports = |number: u32| json!([{ "hostPort": number, "containerPort": 80 }]);
        Attachment::on_paper("c1", &V4, &ports(8080)).add().ok();
        // The hairpin element is its new holder's.
        let holder = Attachment::on_paper("c2", &V4, &ports(8082));
        holder.add().ok();
        let again = Attachment::on_paper("c1", &["10.88.0.5/32"], &ports(8081));
        again.add().ok();
        assert!(!ruleset().contains("8080"), "{}", ruleset());
        again.check().ok();
        holder.check().ok();
    });
}

#[test]
fn a_pod_with_the_address_of_one_that_was_never_ended_gets_its_hairpin() {
    private_host(|| {
        let stale = Attachment::on_paper("c1", &V4, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        stale.add().ok();
        let fresh = Attachment::on_paper("c2", &V4, &json!([{ "hostPort": 9090, "containerPort": 80 }]));
        fresh.add().ok();
        let hairpin = "10.88.0.2 . 10.88.0.2 comment \"podnet c2 eth0\"";
        assert!(ruleset().contains(hairpin), "{}", ruleset());
        stale.del().ok();
        assert!(ruleset().contains(hairpin), "{}", ruleset());
        fresh.check().ok();
        fresh.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn attachments_of_one_container_are_told_apart() {
    private_host(|| {
        let first = Attachment::on_paper("c1", &V4, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let other_network =
            Attachment::on_paper("c1", &["10.88.0.3/32"], &json!([{ "hostPort": 8081, "containerPort": 80 }]))
                .with("name", json!("other"));
        let mut other_interface =
            Attachment::on_paper("c1", &["10.88.0.4/32"], &json!([{ "hostPort": 8082, "containerPort": 80 }]));
        other_interface.ifname = "net1".to_owned();
        other_interface.config["prevResult"]["interfaces"][1]["name"] = json!("net1");
        for attachment in [&first, &other_network, &other_interface] {
            attachment.add().ok();
        }
        first.del().ok();
        other_network.check().ok();
        other_interface.check().ok();
        assert!(!ruleset().contains("8080"), "{}", ruleset());
        other_network.del().ok();
        other_interface.check().ok();
        other_interface.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn del_needs_no_table_and_no_rules() {
    private_host(|| {
        let attachment = Attachment::on_paper("c1", &BOTH, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.del().ok();
        attachment.add().ok();
        nft(&["flush", "ruleset"]);
        attachment.del().ok();
        attachment.add().ok();
        for family in ["ip", "ip6"] {
            nft(&["flush", "table", family, "podwire-hostport"]);
        }
        attachment.del().ok();
        assert_eq!(ruleset(), "");
        attachment.add().ok();
        nft(&["delete", "table", "ip6", "podwire-hostport"]);
        attachment.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn add_makes_again_what_was_flushed() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        nft(&["flush", "ruleset"]);
        attachment.add().ok();
        attachment.check().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    });
}

#[test]
fn del_does_not_fail_when_the_firewall_refuses() {
    private_host(|| {
        let attachment = Attachment::on_paper("c1", &BOTH, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        let before = ruleset();
        let container = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        let output =
            crate::common::plugin::run(without_capabilities(), "DEL", &container, &attachment.config.to_string());
        let Answer::Ok { stderr, .. } = Answer::of(&output) else { panic!("{output:?}") };
        assert!(stderr.starts_with("DEL goes on despite: "), "{stderr}");
        assert_eq!(ruleset(), before);
        attachment.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn status_says_what_is_missing() {
    private_host(|| {
        let config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
        let Answer::Ok { result, stderr } = call("STATUS", &[], &config.to_string()) else { panic!("not ready") };
        assert_eq!((result, stderr.as_str()), (serde_json::Value::Null, ""));
        // What was tried out has left nothing.
        assert_eq!(ruleset(), "");
        let output = crate::common::plugin::run(without_capabilities(), "STATUS", &[], &config.to_string());
        let (code, msg, details) = Answer::of(&output).failed();
        assert_eq!((code, msg.as_str()), (50, "no host port can be mapped"));
        assert!(details.contains("nf_tables"), "{details}");
        assert!(details.contains("permitted"), "{details}");
        let mut iptables = config;
        iptables["backend"] = json!("iptables");
        assert_eq!(call("STATUS", &[], &iptables.to_string()).ok(), serde_json::Value::Null);
    });
}

#[test]
fn a_table_of_the_same_name_is_left_alone() {
    private_host(|| {
        nft(&["add", "table", "ip6", "podwire-hostport"]);
        let before = ruleset();
        let attachment = Attachment::on_paper("c1", &BOTH, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let (code, msg, details) = attachment.add().failed();
        let expected = "table ip6 podwire-hostport is not this plugin's: it has no comment \
                        instead of \"podwire-portmap layout 2\"";
        assert_eq!((code, msg.as_str()), (121, expected));
        assert!(details.contains("nft delete table ip6 podwire-hostport"), "{details}");
        assert_eq!(ruleset(), before);
        attachment.del().ok();
        assert_eq!(ruleset(), before);
        let config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
        assert_eq!(call("STATUS", &[], &config.to_string()).failed().0, 50);
        nft(&["delete", "table", "ip6", "podwire-hostport"]);
        nft(&["add", "table", "ip6", "podwire-hostport", "{ comment \"by hand\"; }"]);
        let expected = "table ip6 podwire-hostport is not this plugin's: its comment is \"by hand\" \
                        instead of \"podwire-portmap layout 2\"";
        assert_eq!(attachment.add().failed().1, expected);
    });
}

#[test]
fn a_failed_add_leaves_nothing() {
    private_host(|| {
        let (pod, other) = (pod(2), pod(3));
        Attachment::new(&other, &json!([{ "hostPort": 1, "containerPort": 1 }])).add().ok();
        let before = ruleset();
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        // Nothing of /proc/sys can be written: the last step fails.
        let output = sandbox::command("mount").args(["-o", "bind,ro", "/proc/sys", "/proc/sys"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (code, msg, details) = attachment.add().failed();
        let expected = format!("failed to access sysctl net/ipv4/conf/{}/route_localnet", pod.link);
        assert_eq!((code, msg), (5, expected), "{details}");
        assert!(details.contains("Read-only file system"), "{details}");
        assert!(details.ends_with("with \"localhost\": false it does without"), "{details}");
        assert_eq!(ruleset(), before);
        attachment.with("localhost", json!(false)).add().ok();
    });
}

#[test]
fn gc_removes_what_belongs_to_no_valid_attachment_of_its_network() {
    private_host(|| {
        let attach = |id: &str, number: u8, network: &str| {
            let addresses = [format!("10.88.0.{number}/32"), format!("fd88::{number}/128")];
            let addresses = addresses.each_ref().map(String::as_str);
            let ports = json!([{ "hostPort": 8000 + u32::from(number), "containerPort": 80 }]);
            let attachment = Attachment::on_paper(id, &addresses, &ports).with("name", json!(network));
            attachment.add().ok();
            attachment
        };
        let (valid, stale, foreign) = (attach("c1", 1, "podnet"), attach("c2", 2, "podnet"), attach("c3", 3, "other"));
        gc("podnet", &[("c1", "eth0"), ("c9", "eth0")]).ok();
        valid.check().ok();
        foreign.check().ok();
        assert!(!ruleset().contains(" c2 "), "{}", ruleset());
        assert_eq!(stale.check().failed().0, 110);
        // The same container by another interface is another attachment.
        gc("podnet", &[("c1", "net1")]).ok();
        foreign.check().ok();
        assert!(!ruleset().contains(" c1 "), "{}", ruleset());
        gc("other", &[]).ok();
        assert_eq!(ruleset(), "");
        gc("other", &[]).ok();
    });
}

/// Runs the executable without any right on the node.
fn without_capabilities() -> std::process::Command {
    let mut command = sandbox::command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_podwire-portmap")]);
    command
}
