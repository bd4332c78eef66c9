//! CHECK compares content: every difference is found, and told with what should be there.

use crate::common::backend::Backend;
use crate::common::net::{NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, DIFFERS, by_hand, feed, nft, ruleset};
use kernel::sysctl;
use sandbox::private_host;
use serde_json::json;

on_iptables!(
    check_tells_every_rule_that_is_not_as_it_was,
    check_tells_what_is_there_twice,
    check_tells_what_is_in_another_order,
    what_reconcile_cannot_mend_does_not_differ,
    what_is_left_in_the_other_backend_is_told,
);

/// The differences that CHECK tells, one a line.
#[track_caller]
fn differences(attachment: &Attachment) -> Vec<String> {
    match attachment.check() {
        Answer::Ok { .. } => Vec::new(),
        Answer::Failed { code, msg, details } => {
            let lines: Vec<String> = details.split('\n').map(str::to_owned).collect();
            assert_eq!(
                (code, msg),
                (DIFFERS, format!("{} of the attachment's host port rules are not as ADD left them", lines.len()))
            );
            lines
        }
    }
}

#[test]
fn what_add_left_is_as_it_should_be() {
    private_host(|| {
        forward();
        let _lan = lan();
        for (number, snat) in [(2, true), (3, false)] {
            let pod = pod(number);
            let ports = json!([
                { "hostPort": 8000 + u32::from(number), "containerPort": 80 },
                { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": format!("192.0.2.{number}") },
            ]);
            let attachment = Attachment::new(&pod, &ports).with("snat", json!(snat));
            attachment.add().ok();
            assert_eq!(differences(&attachment), Vec::<String>::new());
        }
    });
}

#[test]
fn every_difference_of_the_elements_is_told() {
    private_host(|| {
        let ports = json!([
            { "hostPort": 8080, "containerPort": 80 },
            { "hostPort": 8081, "containerPort": 81 },
            { "hostPort": 8082, "containerPort": 82, "hostIP": "192.0.2.1" },
        ]);
        let attachment = Attachment::on_paper("c1", &["10.88.0.2/32"], &ports);
        attachment.add().ok();
        let element = |action: &str, set: &str, element: &str| {
            nft(&[action, "element", "ip", "podwire-hostport", set, &format!("{{ {element} }}")]);
        };
        element("delete", "wildcard", "tcp . 8080");
        element("delete", "wildcard", "tcp . 8081");
        element("add", "wildcard", "tcp . 8081 comment \"podnet c2 eth0\" : 10.88.0.3 . 81");
        element("delete", "hairpin", "10.88.0.2 . 10.88.0.2");
        element("add", "exact", "192.0.2.9 . tcp . 9 comment \"podnet c1 eth0\" : 10.88.0.2 . 9");
        element("add", "exact", "192.0.2.9 . tcp . 10 comment \"podnet c2 eth0\" : 10.88.0.3 . 9");
        assert_eq!(
            differences(&attachment),
            [
                "ip podwire-hostport exact: expected nothing, \
                 found `192.0.2.9 . tcp . 9 comment \"podnet c1 eth0\" : 10.88.0.2 . 9`",
                "ip podwire-hostport wildcard: expected `tcp . 8080 comment \"podnet c1 eth0\" : 10.88.0.2 . 80`, \
                 found nothing",
                "ip podwire-hostport wildcard: expected `tcp . 8081 comment \"podnet c1 eth0\" : 10.88.0.2 . 81`, \
                 found `tcp . 8081 comment \"podnet c2 eth0\" : 10.88.0.3 . 81`",
                "ip podwire-hostport hairpin: expected `10.88.0.2 . 10.88.0.2 comment \"podnet c1 eth0\"`, \
                 found nothing",
            ]
        );
    });
}

#[test]
fn every_difference_of_the_frame_is_told() {
    private_host(|| {
        let attachment =
            Attachment::on_paper("c1", &["10.88.0.2/32"], &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        nft(&["flush", "chain", "ip", "podwire-hostport", "guard"]);
        nft(&["delete", "chain", "ip", "podwire-hostport", "output"]);
        nft(&["add", "chain", "ip", "podwire-hostport", "output", "{ type nat hook output priority 0; }"]);
        nft(&["add", "chain", "ip", "podwire-hostport", "mine"]);
        nft(&["insert", "rule", "ip", "podwire-hostport", "prerouting", "return"]);
        assert_eq!(
            differences(&attachment),
            [
                "ip podwire-hostport chain prerouting rule 1: expected `fib daddr type local jump hostports`, \
                 found `return`",
                "ip podwire-hostport chain prerouting rule 2: expected nothing, \
                 found `fib daddr type local jump hostports`",
                "ip podwire-hostport chain output: expected `type nat hook output priority -100; policy accept;`, \
                 found `type nat hook output priority filter; policy accept;`",
                "ip podwire-hostport chain output rule 1: expected `fib daddr type local jump hostports`, found nothing",
                "ip podwire-hostport chain guard rule 1: expected `iifname != \"lo\" ip daddr 127.0.0.0/8 drop`, \
                 found nothing",
                "ip podwire-hostport chain guard rule 2: expected `iifname != \"lo\" ip saddr 127.0.0.0/8 drop`, \
                 found nothing",
                "ip podwire-hostport: expected nothing, found `chain mine`",
            ]
        );
    });
}

#[test]
fn a_missing_table_and_a_closed_interface_are_told() {
    private_host(|| {
        let pod = pod(2);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        nft(&["delete", "table", "ip6", "podwire-hostport"]);
        let key = format!("net/ipv4/conf/{}/route_localnet", pod.link);
        sysctl::set(&key, "0").unwrap();
        assert_eq!(
            differences(&attachment),
            [
                "table ip6 podwire-hostport: expected `table ip6 podwire-hostport`, found nothing".to_owned(),
                format!("sysctl {key}: expected `112`, found `0`"),
            ]
        );
    });
}

#[test]
fn a_mapping_that_is_no_longer_asked_for_is_told() {
    private_host(|| {
        let attachment =
            Attachment::on_paper("c1", &["fd88::2/128"], &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        let without = attachment.with("runtimeConfig", json!({ "portMappings": null }));
        assert_eq!(
            differences(&without),
            [
                "ip6 podwire-hostport wildcard: expected nothing, \
                 found `tcp . 8080 comment \"podnet c1 eth0\" : fd88::2 . 80`",
                "ip6 podwire-hostport hairpin: expected nothing, found `fd88::2 . fd88::2 comment \"podnet c1 eth0\"`",
                "ip6 podwire-hostport owners: expected nothing, \
                 found `f556:ca09:fb71:3c27:951c:bed3:9213:a528 . 1e35:f7c4:9459:70c7:266a:f6aa:d9d2:9432 \
                 comment \"podnet c1 eth0\"`",
            ]
        );
        without.del().ok();
        assert_eq!(ruleset(), "");
        without.check().ok();
    });
}

/// The same on iptables: rules that are missing, and one too many, wherever they are.
fn check_tells_every_rule_that_is_not_as_it_was(backend: Backend) {
    forward();
    let (lan, pod) = (lan(), pod(2));
    pod.serve(80);
    let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    attachment.add().ok();
    assert_eq!(differences(&attachment), Vec::<String>::new());
    let run = |program: &str, arguments: &str| {
        let program = format!("{program}{}", &backend.iptables()["iptables".len()..]);
        assert!(sandbox::command(program).args(arguments.split(' ')).status().unwrap().success());
    };
    run("iptables", "-t nat -D PREROUTING 1");
    run("iptables", "-t nat -D PODWIRE-WILDCARD 1");
    run("iptables", "-t raw -D PODWIRE-GUARD 2");
    run("ip6tables", "-t nat -R PODWIRE-MASQ 1 -s fd88::2/128 -j RETURN");
    let found = differences(&attachment);
    let missing = |family: &str, table: &str, rule: &str| {
        let start = format!("{family} table {table} of iptables: expected `{rule}");
        found.iter().any(|line| line.starts_with(&start) && line.ends_with("found nothing"))
    };
    assert!(missing("ip", "nat", "-A PREROUTING -m addrtype --dst-type LOCAL"), "{found:?}");
    assert!(missing("ip", "nat", "-A PODWIRE-WILDCARD -p tcp -m tcp --dport 8080"), "{found:?}");
    assert!(missing("ip", "raw", "-A PODWIRE-GUARD -s 127.0.0.0/8"), "{found:?}");
    assert!(missing("ip6", "nat", "-A PODWIRE-MASQ -s fd88::2/128 -d fd88::2/128"), "{found:?}");
    let added = "ip6 table nat of iptables: expected nothing, found `-A PODWIRE-MASQ -s fd88::2/128 -j RETURN`";
    assert!(found.iter().any(|line| line == added), "{found:?}");
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!(differences(&attachment), Vec::<String>::new());
    // What is only added, and what is in another order, changes where packets go as well.
    run("iptables", "-t nat -I PODWIRE-HOSTPORT 1 -j RETURN");
    run("iptables", "-t raw -I PODWIRE-GUARD 1 -j RETURN");
    run("ip6tables", "-t nat -D PODWIRE-HOSTPORT 1");
    run("ip6tables", "-t nat -A PODWIRE-HOSTPORT -m comment --comment podwire-hostport -j PODWIRE-EXACT");
    let found = differences(&attachment);
    let top = |chain: &str| format!("-A PODWIRE-HOSTPORT -m comment --comment podwire-hostport -j {chain}");
    let (exact, wildcard) = (top("PODWIRE-EXACT"), top("PODWIRE-WILDCARD"));
    let expected = [
        "ip table nat of iptables: expected nothing, found `-A PODWIRE-HOSTPORT -j RETURN`".to_owned(),
        "ip table raw of iptables: expected nothing, found `-A PODWIRE-GUARD -j RETURN`".to_owned(),
        format!("ip6 table nat of iptables: expected `{exact}; {wildcard}`, found `{wildcard}; {exact}`"),
    ];
    assert_eq!(found, expected);
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!(differences(&attachment), Vec::<String>::new());
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
    run("ip6tables", "-t nat -I PODWIRE-MASQ 1 -s fd88::2/128 -j RETURN");
    // An ADD puts back what is its own, and the chains that are nobody's.
    attachment.del().ok();
    attachment.add().ok();
    assert_eq!(differences(&attachment), Vec::<String>::new());
    // A mapping of an ADD that CHECK's config does not have.
    let other = Attachment::new(&pod, &json!([{ "hostPort": 9090, "containerPort": 80 }])).on(backend);
    let found = differences(&other);
    let stray =
        |line: &String| line.contains("expected nothing, found `-A PODWIRE-WILDCARD -p tcp -m tcp --dport 8080");
    assert!(found.iter().any(stray), "{found:?}");
}

/// Two attachments of one port each: one that marks its packets, and one that takes some packets only.
fn marked_and_limited(backend: Backend) -> [Attachment; 2] {
    let port = |number: u16| json!([{ "hostPort": number, "containerPort": 80 }]);
    let marked = Attachment::on_paper("c1", &["10.88.0.2/32"], &port(8080)).on(backend);
    let limited = Attachment::on_paper("c2", &["10.88.0.3/32"], &port(8081)).on(backend);
    let limited = limited.with("name", json!("other")).with("conditionsV4", json!(["-s", "198.51.100.0/24"]));
    let both = [marked.with("markMasqBit", json!(13)), limited];
    both.iter().for_each(|attachment| drop(attachment.add().ok()));
    both
}

/// The rules of table nat that have all these words.
fn rules_with(backend: Backend, words: &[&str]) -> Vec<String> {
    let listed = sandbox::command(backend.iptables()).args(["-t", "nat", "-S"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

fn restore(backend: Backend, lines: &[String]) {
    let restore = format!("{}-restore", backend.iptables());
    feed(&restore, &["--noflush"], &format!("*nat\n{}\nCOMMIT\n", lines.join("\n")));
}

/// iptables prints quotes only where it must.
fn unquoted(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| line.replace('"', "")).collect()
}

/// Among rules of ours: those of others may stand before them and between them.
fn check_tells_what_is_there_twice(backend: Backend) {
    let both = marked_and_limited(backend);
    let clean = || both.each_ref().map(differences).concat();
    let others = ["-I PREROUTING 1 -p udp -j RETURN", "-A PREROUTING -j RETURN", "-I OUTPUT 1 -j ACCEPT"];
    restore(backend, &others.map(str::to_owned));
    assert_eq!(clean(), Vec::<String>::new());
    let one = |words: &[&str]| rules_with(backend, words).remove(0);
    let doubled = [
        one(&["-A PREROUTING", "PODWIRE"]),
        one(&["-A PODWIRE-HOSTPORT", "-j PODWIRE-EXACT"]),
        one(&["-A PODWIRE-MASQ", "c1"]),
    ];
    let changed = "-A OUTPUT -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT".to_owned();
    restore(backend, &[&doubled[..], std::slice::from_ref(&changed)].concat());
    let place = "ip table nat of iptables";
    let twice =
        unquoted(&doubled).into_iter().map(|line| format!("{place}: expected `{line}`, found `{line}; {line}`"));
    let mut expected: Vec<String> = twice.chain([format!("{place}: expected nothing, found `{changed}`")]).collect();
    let mut found = unquoted(&differences(&both[0]));
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!((clean(), rules_with(backend, &["-A OUTPUT", "PODWIRE"]).len()), (Vec::new(), 1));
    let left = [&["-A OUTPUT -j ACCEPT"][..], &["-A PREROUTING", "-j RETURN"]].map(|words| rules_with(backend, words));
    assert_eq!(left.concat().len(), others.len());
    // One that is there once, and otherwise.
    restore(backend, &[one(&["-A OUTPUT", "PODWIRE"]).replacen("-A", "-D", 1), changed]);
    assert_eq!(differences(&both[0]).len(), 2);
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!(clean(), Vec::<String>::new());
}

/// Rules that say they are ours, where none is: whoever put them there has to take them away. And a hook that leads nowhere.
fn what_reconcile_cannot_mend_does_not_differ(backend: Backend) {
    let both = marked_and_limited(backend);
    let clean = || both.each_ref().map(differences).concat();
    let ours = "-m comment --comment podwire-hostport";
    restore(backend, &[format!("-A INPUT {ours} -j RETURN")]);
    let restore_raw = format!("{}-restore", backend.iptables());
    feed(&restore_raw, &["--noflush"], &format!("*raw\n-A OUTPUT {ours} -j RETURN\nCOMMIT\n"));
    assert_eq!(clean(), Vec::<String>::new());
    let hook = rules_with(backend, &["-A OUTPUT", "PODWIRE"]).remove(0);
    restore(backend, &[hook.replacen("-A", "-D", 1), format!("-A OUTPUT {ours}")]);
    assert_eq!(differences(&both[0]).len(), 2);
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!(clean(), Vec::<String>::new());
    assert_eq!(rules_with(backend, &["-A OUTPUT"]), [hook]);
    assert_eq!(rules_with(backend, &["-A INPUT"]).len(), 1);
}

/// What is translated meets no mark any more, and what meets a rule for all packets none for some of them.
fn check_tells_what_is_in_another_order(backend: Backend) {
    let both = marked_and_limited(backend);
    let [marks, limits] = ["c1", "c2"].map(|container| rules_with(backend, &["-A PODWIRE-WILDCARD", container]));
    assert_eq!((marks.len(), limits.len()), (3, 1), "{marks:?} {limits:?}");
    let again = |rule: &String| [rule.replacen("-A", "-D", 1), rule.clone()];
    restore(backend, &[again(&marks[0]), again(&limits[0])].concat());
    let (marks, limit) = (unquoted(&marks), unquoted(&limits).remove(0));
    let moved = [&marks[1..], &marks[..1]].concat().join("; ");
    let expected = format!("ip table nat of iptables: expected `{}`, found `{moved}`", marks.join("; "));
    assert_eq!(unquoted(&differences(&both[0])), [expected]);
    let first = &marks[1];
    let expected = format!("ip table nat of iptables: expected `{limit}; {first}`, found `{first}; {limit}`");
    assert_eq!(unquoted(&differences(&both[1])), [expected]);
    assert_eq!(by_hand("reconcile").0, 0);
    assert_eq!(both.each_ref().map(differences).concat(), Vec::<String>::new());
}

/// As after somebody has put back a saved rule set.
fn what_is_left_in_the_other_backend_is_told(backend: Backend) {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    let of = |backend: Backend| Attachment::on_paper("c1", &["10.88.0.2/32"], &ports).on(backend);
    of(Backend::Nftables).add().ok();
    let saved = nft(&["list", "table", "ip", "podwire-hostport"]);
    of(backend).add().ok();
    assert_eq!(differences(&of(backend)), Vec::<String>::new());
    feed("nft", &["-f", "-"], &saved);
    let found = differences(&of(backend));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found.iter().all(|line| line.starts_with("ip podwire-hostport ") && line.contains("expected nothing")),
        "{found:#?}"
    );
    // The other way round, in words of the elements.
    let found = differences(&of(Backend::Nftables));
    assert!(
        found.iter().any(|line| line.starts_with("ip table nat of iptables (")
            && line.contains("): expected nothing, found `tcp . 8080 ")),
        "{found:#?}"
    );
}

/// As after the administrator has chosen another flavour, and put back saved rules of the one before.
#[test]
fn what_is_left_in_the_other_flavour_is_told() {
    private_host(|| {
        let attachment =
            Attachment::on_paper("c1", &["10.88.0.2/32"], &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let attachment = attachment.on(Backend::IptablesNft);
        attachment.add().ok();
        let saved = sandbox::command("iptables-nft-save").args(["-t", "nat"]).output().unwrap();
        Backend::IptablesLegacy.prepared();
        attachment.add().ok();
        assert_eq!(differences(&attachment), Vec::<String>::new());
        feed("iptables-nft-restore", &["--noflush"], &String::from_utf8(saved.stdout).unwrap());
        let found = differences(&attachment);
        let other = "ip table nat of iptables (nft): expected nothing, found `tcp . 8080 ";
        assert!(!found.is_empty() && found.iter().any(|line| line.starts_with(other)), "{found:#?}");
    });
}
