//! What is refused, with which code and which words; and that nothing is touched then.

use crate::common::plugin::{Answer, Attachment, call, ruleset};
use sandbox::private_host;
use serde_json::{Value, json};

const BOTH: [&str; 2] = ["10.88.0.2/32", "fd88::2/128"];

fn mapping(key: &str, value: Value) -> Value {
    let mut mapping = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    mapping[key] = value;
    mapping
}

/// What a pod of these addresses is told about these mappings.
fn refusal(addresses: &[&str], mappings: &Value) -> (u64, String) {
    let (code, msg, _) = Attachment::on_paper("c1", addresses, mappings).add().failed();
    (code, msg)
}

/// Something to be refused: code and message.
struct Case {
    input: String,
    expected: (u64, String),
    found: (u64, String),
}

/// Collects every case that is not as it should be, so that one run shows them all.
fn compare(cases: Vec<Case>) {
    let wrong: Vec<String> = cases
        .into_iter()
        .filter(|case| case.expected != case.found)
        .map(|Case { input, expected, found }| format!("{input}\n  expected {expected:?}\n  found    {found:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(ruleset(), "");
}

#[test]
fn a_value_that_cannot_be_is_named() {
    private_host(|| {
        let port = "must be 1 to 65535";
        let address = "must be an IP address of the node; leave it out for every address";
        let cases = [
            ("hostPort", json!(0), port),
            ("hostPort", json!(-1), port),
            ("hostPort", json!(65536), port),
            ("containerPort", json!(0), port),
            ("containerPort", json!(-8080), port),
            ("containerPort", json!(70000), port),
            ("protocol", json!("icmp"), "must be tcp, udp or sctp"),
            ("protocol", json!("tcp "), "must be tcp, udp or sctp"),
            ("hostIP", json!("node1"), address),
            ("hostIP", json!("10.0.0.1/24"), address),
            ("hostIP", json!("010.0.0.1"), address),
            ("hostIP", json!("fe80::1%eth0"), address),
            ("hostIP", json!("224.0.0.1"), "must be a unicast address"),
            ("hostIP", json!("255.255.255.255"), "must be a unicast address"),
            ("hostIP", json!("ff02::1"), "must be a unicast address"),
        ];
        compare(
            cases
                .into_iter()
                .map(|(key, value, flaw)| {
                    let path = format!("runtimeConfig.portMappings[1].{key}");
                    let expected = (7, format!("invalid network config: {path}={value}: {flaw}"));
                    let good = json!({ "hostPort": 1, "containerPort": 1 });
                    let found = refusal(&BOTH, &json!([good, mapping(key, value.clone())]));
                    Case { input: format!("{key}={value}"), expected, found }
                })
                .collect(),
        );
    });
}

/// Where it is mapped all the same, a client waits until it gives up.
#[test]
fn a_loopback_that_the_operator_keeps_is_named() {
    private_host(|| {
        let cases = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(|host_ip| {
            let ports = json!([{ "hostPort": 1, "containerPort": 1 }, mapping("hostIP", json!(host_ip))]);
            let attachment = Attachment::on_paper("c1", &BOTH, &ports).with("localhost", json!(false));
            let (code, msg, _) = attachment.add().failed();
            let plain = host_ip.trim_start_matches("::ffff:");
            let msg_expected = format!(
                "invalid network config: runtimeConfig.portMappings[1].hostIP=\"{plain}\": no pod is reached there: \
                 \"localhost\" is false"
            );
            Case { input: host_ip.to_owned(), expected: (7, msg_expected), found: (code, msg) }
        });
        compare(cases.into());
    });
}

#[test]
fn a_missing_port_is_port_0() {
    private_host(|| {
        let found = refusal(&BOTH, &json!([{ "containerPort": 80 }]));
        let msg = "invalid network config: runtimeConfig.portMappings[0].hostPort=0: must be 1 to 65535";
        assert_eq!(found, (7, msg.to_owned()));
    });
}

#[test]
fn two_mappings_of_one_port_are_refused() {
    private_host(|| {
        let pairs = [
            ("", "", true),
            ("", "0.0.0.0", true),
            ("::", "", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:0db8:0::1", true),
            ("0.0.0.0", "::", false),
            ("", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        let (mut cases, mut accepted) = (Vec::new(), Vec::new());
        for (one, two, refused) in pairs {
            let mappings = json!([mapping("hostIP", json!(one)), mapping("hostIP", json!(two))]);
            let case = format!("{one:?} and {two:?}");
            if refused {
                let msg = "invalid network config: runtimeConfig.portMappings[1].hostPort=8080: \
                           the same address, protocol and port as in runtimeConfig.portMappings[0]";
                cases.push(Case { input: case, expected: (7, msg.to_owned()), found: refusal(&BOTH, &mappings) });
            } else {
                accepted.push((case, mappings));
            }
        }
        compare(cases);
        for (case, mappings) in accepted {
            let attachment = Attachment::on_paper("c1", &BOTH, &mappings);
            assert!(matches!(attachment.add(), Answer::Ok { .. }), "{case}");
            attachment.del().ok();
        }
        let protocols = json!([mapping("protocol", json!("tcp")), mapping("protocol", json!("udp"))]);
        Attachment::on_paper("c1", &BOTH, &protocols).add().ok();
    });
}

#[test]
fn a_family_that_the_pod_lacks_is_named() {
    private_host(|| {
        let (v4, v6) = ("10.88.0.2/32", "fd88::2/128");
        let cases = [
            (vec![v6], "0.0.0.0", "IPv4 "),
            (vec![v6], "192.0.2.1", "IPv4 "),
            (vec![v4], "::", "IPv6 "),
            (vec![v4], "2001:db8::1", "IPv6 "),
            (vec![], "", ""),
        ];
        compare(
            cases
                .into_iter()
                .map(|(addresses, host_ip, family)| {
                    let msg = format!(
                        "invalid network config: runtimeConfig.portMappings[0].hostIP={host_ip:?}: \
                         prevResult has no {family}address on eth0 in the pod that it could lead to"
                    );
                    let found = refusal(&addresses, &json!([mapping("hostIP", json!(host_ip))]));
                    Case { input: format!("{host_ip:?} for {addresses:?}"), expected: (7, msg), found }
                })
                .collect(),
        );
    });
}

#[test]
fn a_key_that_cannot_be_honoured_is_refused() {
    private_host(|| {
        let narrow = "a condition is a source, a destination or an incoming interface";
        let elsewhere =
            "a chain of iptables cannot be jumped to from nftables; leave out backend, or set it to \"iptables\"";
        let marks = "must be 0 to 31";
        let chain = "must be the name of a chain of iptables: at most 28 letters, digits, \"-\", \"_\" and \".\"";
        let mappings = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let cases = [
            (2, "conditionsV4", json!(["-j", "ACCEPT"]), format!("\"-j\" is not supported; {narrow}")),
            (2, "conditionsV6", json!(["ip6 nexthdr tcp"]), format!("\"ip6 nexthdr\" is not supported; {narrow}")),
            (2, "externalSetMarkChain", json!("KUBE-MARK-MASQ"), elsewhere.to_owned()),
            (7, "backend", json!("ipvs"), "must be \"nftables\" or \"iptables\"".to_owned()),
            (7, "markMasqBit", json!(32), marks.to_owned()),
            (7, "markMasqBit", json!(-1), marks.to_owned()),
            (7, "externalSetMarkChain", json!("-j ACCEPT"), chain.to_owned()),
            (7, "externalSetMarkChain", json!("A-CHAIN-OF-TWENTY-NINE-LETTERS"), chain.to_owned()),
            (7, "conditionsV4", json!(["-s", "10.0.0.0/33"]), "\"10.0.0.0/33\" is no address or network".to_owned()),
            (7, "conditionsV6", json!(["-s", "10.0.0.0/8"]), "\"10.0.0.0/8\" is not of this family".to_owned()),
        ];
        let mut found = Vec::new();
        for (code, key, value, flaw) in cases {
            let kind = if code == 2 { "unsupported" } else { "invalid" };
            let expected = (code, format!("{kind} network config: {key}={value}: {flaw}"));
            let add = Attachment::on_paper("c1", &BOTH, &mappings).with(key, value).with("backend", json!("nftables"));
            let add = if key == "backend" { add.with("backend", json!("ipvs")) } else { add };
            let (code, msg, _) = add.add().failed();
            found.push(Case { input: expected.1.clone(), expected, found: (code, msg) });
        }
        let both = Attachment::on_paper("c1", &BOTH, &mappings).with("markMasqBit", json!(5));
        let (code, msg, _) = both.with("externalSetMarkChain", json!("X")).add().failed();
        let expected = "invalid network config: externalSetMarkChain=\"X\": cannot be set together with markMasqBit";
        found.push(Case { input: "both".to_owned(), expected: (7, expected.to_owned()), found: (code, msg) });
        compare(found);
    });
}

#[test]
fn every_key_of_the_reference_is_taken() {
    private_host(|| {
        let mappings = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let harmless = [
            ("backend", json!("nftables")),
            ("backend", json!("iptables")),
            ("backend", Value::Null),
            ("masqAll", json!(true)),
            ("masqAll", json!(false)),
            ("markMasqBit", json!(13)),
            ("markMasqBit", json!(0)),
            ("externalSetMarkChain", Value::Null),
            ("conditionsV4", json!(["!", "-d", "192.0.2.0/24"])),
            ("conditionsV4", json!(["ip", "daddr", "!=", "192.0.2.0/24"])),
            ("conditionsV4", json!([])),
            ("conditionsV6", json!(["!", "-d", "fc00::/7"])),
            ("conditionsV6", Value::Null),
            ("snat", Value::Null),
        ];
        for (key, value) in harmless {
            let attachment = Attachment::on_paper("c1", &BOTH, &mappings).with(key, value.clone());
            assert!(matches!(attachment.add(), Answer::Ok { .. }), "{key}={value}");
            assert!(matches!(attachment.check(), Answer::Ok { .. }), "{key}={value}");
            attachment.del().ok();
            assert!(!ruleset().contains("odwire"), "{key}={value}: {}", ruleset());
        }
    });
}

#[test]
fn a_key_of_another_type_is_named() {
    private_host(|| {
        let add =
            |key: &str, value: Value| Attachment::on_paper("c1", &BOTH, &json!([])).with(key, value).add().failed();
        for (key, value) in [("snat", json!("yes")), ("markMasqBit", json!("13")), ("conditionsV4", json!("-i eth0"))] {
            let (code, msg, _) = add(key, value.clone());
            assert_eq!(code, 7, "{msg}");
            assert!(msg.starts_with(&format!("invalid network config: {key}={value}: ")), "{msg}");
        }
        let (code, msg, _) = add("runtimeConfig", json!({ "portMappings": [{ "hostPort": "8080" }] }));
        assert_eq!(code, 7, "{msg}");
        assert!(msg.contains("runtimeConfig.portMappings[0].hostPort=\"8080\""), "{msg}");
    });
}

/// As Go takes them. What is wrong shows that a key was read.
#[test]
fn keys_are_taken_in_any_case() {
    private_host(|| {
        let mappings = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let cases = [
            ("Backend", "backend", json!("ipvs"), "must be \"nftables\" or \"iptables\""),
            ("SNAT", "snat", json!("no"), "invalid type: string \"no\", expected a boolean"),
            ("masqall", "masqAll", json!(1), "invalid type: integer `1`, expected a boolean"),
            ("MARKMASQBIT", "markMasqBit", json!(32), "must be 0 to 31"),
            ("externalsetmarkchain", "externalSetMarkChain", json!(7), "invalid type: integer `7`, expected a string"),
            ("conditionsv4", "conditionsV4", json!([1]), "invalid type: integer `1`, expected a string"),
            ("ConditionsV6", "conditionsV6", json!([1]), "invalid type: integer `1`, expected a string"),
            ("Localhost", "localhost", json!("no"), "invalid type: string \"no\", expected a boolean"),
            ("Conflict", "conflict", json!("x"), "must be \"takeover\" or \"refuse\""),
            ("hostlisteners", "hostListeners", json!("x"), "must be \"warn\", \"refuse\" or \"ignore\""),
            (
                "HostPortRange",
                "hostPortRange",
                json!("x"),
                "must be a port or a range of ports, as 22 or \"10250-10259\"",
            ),
            ("RESERVEDHOSTPORTS", "reservedHostPorts", json!(1), "invalid type: integer `1`, expected a sequence"),
        ];
        let found = cases.map(|(written, key, value, flaw)| {
            let add = Attachment::on_paper("c1", &BOTH, &mappings).with(written, value.clone()).add();
            let place = if value.is_array() { format!("{key}[0]=1") } else { format!("{key}={value}") };
            let expected = (7, format!("invalid network config: {place}: {flaw}"));
            let (code, msg, _) = add.failed();
            Case { input: written.to_owned(), expected, found: (code, msg) }
        });
        compare(found.into());
        // Of two spellings that of the documents counts.
        let both = Attachment::on_paper("c1", &BOTH, &mappings).with("SNAT", json!("no")).with("snat", json!(false));
        both.add().ok();
        assert!(!ruleset().contains("10.88.0.2 . 10.88.0.2"), "{}", ruleset());
        both.del().ok();
    });
}

#[test]
fn a_plugin_without_one_before_it_says_so() {
    private_host(|| {
        for mappings in [json!([]), json!([mapping("hostPort", json!(8080))])] {
            let attachment = Attachment::on_paper("c1", &BOTH, &mappings).with("prevResult", Value::Null);
            let (code, msg, _) = attachment.add().failed();
            let expected = "invalid network config: prevResult is missing: must be called as a chained plugin, \
                            after one that gives the pod an address";
            assert_eq!((code, msg.as_str()), (7, expected));
        }
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn names_that_the_kernel_would_cut_are_refused() {
    private_host(|| {
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        // "podnet", a blank, the id, a blank and "eth0" make 251 bytes, which is the most.
        let longest = Attachment::on_paper(&"a".repeat(239), &BOTH, &ports);
        longest.add().ok();
        assert!(ruleset().contains(&format!("comment \"podnet {} eth0\"", longest.container)), "{}", ruleset());
        longest.del().ok();
        assert_eq!(ruleset(), "");
        let longer = Attachment::on_paper(&"a".repeat(240), &BOTH, &ports);
        let (code, msg, _) = longer.add().failed();
        let expected = format!(
            "CNI_CONTAINERID=\"{}\" is too long: with network \"podnet\" and CNI_IFNAME \"eth0\" it makes a mark of \
             252 bytes, and the firewall keeps 251",
            longer.container
        );
        assert_eq!((code, msg), (4, expected));
        longer.del().ok();
        let mut quoted = Attachment::on_paper("c1", &BOTH, &ports);
        quoted.ifname = "eth\"0".to_owned();
        quoted.config["prevResult"]["interfaces"][1]["name"] = json!("eth\"0");
        let (code, msg, _) = quoted.add().failed();
        let expected = "CNI_IFNAME=\"eth\\\"0\" has a quote or a backslash, which a comment in nft(8) cannot have";
        assert_eq!((code, msg.as_str()), (4, expected));
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn no_ports_touch_nothing_and_pass_the_result_through() {
    private_host(|| {
        for mappings in [json!([]), Value::Null] {
            let attachment = Attachment::on_paper(&"a".repeat(300), &BOTH, &mappings);
            assert_eq!(attachment.add().ok(), attachment.config["prevResult"]);
            attachment.check().ok();
            attachment.del().ok();
        }
        let without = json!({ "cniVersion": "1.0.0", "name": "podnet", "prevResult": { "ips": [] } });
        let container = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/none")];
        assert_eq!(call("ADD", &container, &without.to_string()).ok()["cniVersion"], "1.0.0");
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn a_condition_that_iptables_would_lose_is_refused() {
    private_host(|| {
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let words = json!(["-i", "eth+", "!", "-i", "eth1"]);
        let attach =
            |key: &str| Attachment::on_paper("c1", &["10.88.0.2/32", "fd88::2/128"], &ports).with(key, words.clone());
        for key in ["conditionsV4", "conditionsV6"] {
            let (code, msg, _) = attach(key).with("backend", json!("iptables")).add().failed();
            assert_eq!(code, 2, "{msg}");
            let expected = format!(
                "unsupported network config: {key}=[\"iifname \\\"eth*\\\"\",\"iifname != \\\"eth1\\\"\"]: iptables takes one"
            );
            assert!(msg.starts_with(&expected), "{msg}");
            assert_eq!(ruleset(), "");
        }
        attach("conditionsV4").add().ok();
        let rules = ruleset();
        assert!(rules.contains("iifname \"eth*\" iifname != \"eth1\" fib daddr type local"), "{rules}");
    });
}
