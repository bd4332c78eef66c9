//! `podwire` as a command of people, beside what `ip` and the ledger say.

use serde_json::{Value, json};

use crate::common::{Answer, TestPod, addresses, dual_stack, exchange, finish, node_addresses, run, shown, with};

/// Runs `podwire` with these arguments, as a person does.
pub fn by_hand(arguments: &[&str]) -> Answer {
    let mut podwire = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
    podwire.env_clear().args(arguments);
    finish(podwire, b"")
}

/// As `podwire-portmap` would have it: the port on one address of the node, and on all of them.
fn map_ports(pod: &str) {
    let table = format!(
        "table ip podwire-hostport {{
            map exact {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;
                elements = {{ 192.168.50.1 . tcp . 8086 : {pod} . 80 }};
            }}
            map wildcard {{ type inet_proto . inet_service : ipv4_addr . inet_service;
                elements = {{ udp . 5353 : {pod} . 53, tcp . 9 : 10.9.9.9 . 9 }};
            }}
        }}"
    );
    let mut nft = sandbox::command("nft");
    nft.args(["-f", "-"]);
    finish(nft, table.as_bytes()).ok();
}

#[test]
fn a_pod_is_shown_as_it_is() {
    sandbox::private_host(|| {
        node_addresses();
        let pod = TestPod::new("c0ffee");
        let mut env = pod.env("ADD");
        env.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0".to_owned()));
        let result = run(&env, &dual_stack()).ok().json();
        let ips = addresses(&result);
        map_ports(&ips[0].to_string());
        exchange(&pod.netns, &kernel::netns::NetNs::current().unwrap(), ips[0]).unwrap();
        TestPod::new("other").add(&dual_stack()).ok();

        let host = result["interfaces"][0]["name"].as_str().unwrap();
        let received =
            || shown("ip", &["-j", "-s", "link", "show", "dev", host])[0]["stats64"]["rx"]["packets"].as_u64();
        for target in ["shop/cart-0", "cart-0", "c0ff", &ips[1].to_string(), host] {
            let before = received();
            let document = by_hand(&["inspect", target, "-o", "json"]).ok().json();
            assert_eq!(document["items"].as_array().unwrap().len(), 1, "{target}: {document}");
            let item = &document["items"][0];
            assert_eq!((&item["pod"], &item["containerID"]), (&json!("shop/cart-0"), &json!("c0ffee")));
            assert_eq!(item["addresses"], json!(ips));
            assert_eq!(item["gateways"], json!(["169.254.1.1", "fe80::1"]));
            assert_eq!(item["inside"]["netns"], "/run/netns/c0ffee");
            assert_eq!(item["inside"]["link"]["mac"], result["interfaces"][1]["mac"]);
            assert_eq!(item["inside"]["routes"].as_array().unwrap().len(), 2, "{item}");
            let ports: Vec<(&Value, &Value, &Value)> = item["hostPorts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|port| (&port["hostIP"], &port["hostPort"], &port["containerPort"]))
                .collect();
            assert_eq!(
                ports,
                [(&json!("192.168.50.1"), &json!(8086), &json!(80)), (&Value::Null, &json!(5353), &json!(53))]
            );
            // The kernel's own packets, of multicast groups, come in between.
            let counted = item["counters"]["rxPackets"].as_u64();
            assert!(before <= counted && counted <= received(), "{before:?} {item}");
            assert!(item["counters"]["rxBytes"].as_u64() > Some(0), "{item}");
        }

        let table = by_hand(&["inspect"]).ok().stdout;
        assert_eq!(table.lines().count(), 3, "{table}");
        let drawing = by_hand(&["inspect", "cart-0"]).ok().stdout;
        let way = [
            "192.168.50.1:8086/tcp",
            "dnat to 10.244.1.2:80",
            "10.244.1.2",
            host,
            "/run/netns/c0ffee",
            "eth0",
            "pod shop/cart-0",
        ];
        let mut rest = drawing.split_once("outside").unwrap().1;
        for station in way {
            rest = rest.split_once(station).unwrap_or_else(|| panic!("no {station} in its place:\n{drawing}")).1;
        }
    });
}

/// By network, then by the pod's namespace and name; a port that leads to both families is one port.
#[test]
fn lines_are_sorted_by_pod_and_ports_are_there_once() {
    sandbox::private_host(|| {
        let other = with(dual_stack(), &json!({ "name": "another" }));
        let pods = [("c3", "a", "web-1"), ("c2", "b", "web-0"), ("c4", "a", "web-0"), ("c1", "a-b", "web-0")];
        for (id, namespace, name) in pods {
            let mut env = TestPod::new(id).env("ADD");
            env.push(("CNI_ARGS", format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}")));
            run(&env, &dual_stack()).ok();
        }
        TestPod::new("c5").add(&other).ok();
        for (family, kind, pod) in [("ip", "ipv4_addr", "10.244.1.2"), ("ip6", "ipv6_addr", "fd00:10:244:1::2")] {
            let map = format!(
                "table {family} podwire-hostport {{ map wildcard {{ type inet_proto . inet_service : {kind} . inet_service;
                    elements = {{ tcp . 8086 : {pod} . 80 }};\n }}\n }}"
            );
            let mut nft = sandbox::command("nft");
            nft.args(["-f", "-"]);
            finish(nft, map.as_bytes()).ok();
        }
        let table = by_hand(&["inspect", "--no-headers"]).ok().stdout;
        let firsts: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(firsts, ["-", "a/web-0", "a/web-1", "a-b/web-0", "b/web-0"], "{table}");
        assert_eq!(table.matches("8086/tcp").count(), 1, "{table}");
        let document = by_hand(&["inspect", "web-1", "-o", "json"]).ok().json();
        assert_eq!(document["items"][0]["hostPorts"].as_array().map(Vec::len), Some(2), "programs see both");
    });
}

#[test]
fn without_a_log_it_is_said_where_errors_are() {
    sandbox::private_host(|| {
        let answer = by_hand(&["errors", "--log", "/run/none.log"]);
        assert!(
            !answer.success && answer.stderr.contains("cannot read the log /run/none.log: there is none"),
            "{answer:?}"
        );
        for way in ["journalctl -t podwire -t podwire-portmap -p err", "--log", "\"logFile\": \"/var/log/podwire.log\""]
        {
            assert!(answer.stderr.contains(way), "{way}: {answer:?}");
        }
        let answer = by_hand(&["errors", "--log", "/run"]);
        assert!(!answer.success && answer.stderr.contains("cannot read the log /run"), "{answer:?}");
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    sandbox::private_host(|| {
        by_hand(&["inspect"]).ok();
        TestPod::new("one").add(&dual_stack()).ok();
        for asked in [&["inspect", "nosuch"][..], &["inspect", "--network", "nope"]] {
            let answer = by_hand(asked);
            assert!(!answer.success && answer.stderr.contains("no such pod here"), "{answer:?}");
            let document = by_hand(&[asked, &["-o", "json"]].concat());
            assert!(!document.success && document.json()["items"] == json!([]), "{document:?}");
        }
        by_hand(&["inspect", "--network", "podnet"]).ok();
    });
}

/// The rules of `podwire-portmap`, by their chains and comments.
fn map_ports_by_iptables(flavour: &str, pod: &str) {
    let comments = |text: &str| format!("-m comment --comment \"podnet one eth0\" -m comment --comment \"{text}\"");
    let exact = comments(&format!("192.168.50.1 . tcp . 8086 : {pod} . 80"));
    let wildcard = comments(&format!("udp . 5353 : {pod} . 53 if 0123abcd"));
    let rules = format!(
        "*nat\n:PODWIRE-EXACT - [0:0]\n:PODWIRE-WILDCARD - [0:0]\n\
         -A PODWIRE-EXACT -d 192.168.50.1 -p tcp -m tcp --dport 8086 {exact} -j DNAT --to-destination {pod}:80\n\
         -A PODWIRE-WILDCARD -p udp -m udp --dport 5353 {wildcard} -j DNAT --to-destination {pod}:53\nCOMMIT\n"
    );
    let mut restore = sandbox::command(format!("iptables-{flavour}-restore"));
    restore.arg("--noflush");
    finish(restore, rules.as_bytes()).ok();
}

#[test]
fn host_ports_in_iptables_are_shown_too() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let ips = addresses(&pod.add(&dual_stack()).ok().json());
        let mut expected = Vec::new();
        for flavour in ["nft", "legacy"] {
            map_ports_by_iptables(flavour, &ips[0].to_string());
            for (address, port, protocol, chain) in
                [(json!("192.168.50.1"), 8086, "tcp", "EXACT"), (Value::Null, 5353, "udp", "WILDCARD")]
            {
                expected.push(json!([
                    address,
                    port,
                    protocol,
                    format!("iptables-{flavour}"),
                    format!("nat PODWIRE-{chain}")
                ]));
            }
        }
        let document = by_hand(&["inspect", "one", "-o", "json"]).ok().json();
        let ports = document["items"][0]["hostPorts"].as_array().unwrap().iter();
        let keys = ["hostIP", "hostPort", "protocol", "tool", "table"];
        let found: Vec<Value> = ports.map(|port| keys.map(|key| port[key].clone()).into_iter().collect()).collect();
        assert_eq!(found, expected);
        let drawing = by_hand(&["inspect", "one"]).ok().stdout;
        assert!(drawing.contains("iptables-legacy nat PODWIRE-EXACT: dnat to 10.244.1.2:80"), "{drawing}");
    });
}

#[test]
fn the_last_error_of_each_attachment_is_found_after_its_del() {
    const LOG: &str = "/run/podwire-test.log";
    sandbox::private_host(|| {
        let config = with(dual_stack(), &json!({ "logFile": LOG }));
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        let named = |pod: &TestPod, command: &str, name: &str| {
            let mut env = pod.env(command);
            env.push(("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}")));
            env
        };
        // One fails, is deleted and is no more; the other fails twice, then lives.
        let (_, refused) = run(&named(&one, "ADD", "cart-0"), &with(config.clone(), &json!({ "mtu": 1 }))).error();
        run(&named(&one, "DEL", "cart-0"), &config).ok();
        kernel::netns::remove_named(&one.path).unwrap();
        run(&named(&two, "ADD", "cart-1"), &with(config.clone(), &json!({ "mtu": 2 }))).error();
        let (_, last) = run(&named(&two, "ADD", "cart-1"), &with(config.clone(), &json!({ "mtu": 3 }))).error();
        run(&named(&two, "ADD", "cart-1"), &config).ok();

        let document = by_hand(&["errors", "--log", LOG, "-o", "json"]).ok().json();
        let items = document["items"].as_array().unwrap().iter();
        let told: Vec<(&Value, &Value, &Value)> =
            items.map(|item| (&item["pod"], &item["code"], &item["msg"])).collect();
        let expected =
            [(json!("shop/cart-0"), json!(7), json!(refused)), (json!("shop/cart-1"), json!(7), json!(last))];
        assert_eq!(told, expected.iter().map(|(pod, code, msg)| (pod, code, msg)).collect::<Vec<_>>());

        let table = by_hand(&["errors", "cart-0", "--log", LOG]).ok().stdout;
        assert!(table.lines().count() == 2 && table.contains("podwire ADD") && table.contains("mtu=1:"), "{table}");
        let document = by_hand(&["inspect", "cart-1", "--log", LOG, "-o", "json"]).ok().json();
        assert_eq!(document["items"][0]["lastError"]["msg"], json!(last));
        let drawing = by_hand(&["inspect", "cart-1", "--log", LOG]).ok().stdout;
        assert!(drawing.contains("last error: ") && drawing.contains("mtu=3:"), "{drawing}");
        let gone = by_hand(&["inspect", "cart-0", "--log", LOG]);
        assert!(!gone.success && gone.stderr.contains("mtu=1:"), "{gone:?}");
        let elsewhere = by_hand(&["errors", "--network", "nosuch", "--log", LOG]);
        assert!(!elsewhere.success && elsewhere.stderr.contains("no such errors in"), "{elsewhere:?}");
        let nothing = by_hand(&["errors", "--log", "/run/nowhere.log"]);
        assert!(!nothing.success && nothing.stderr.contains("journalctl -t podwire"), "{nothing:?}");
    });
}

#[test]
fn what_cannot_be_known_is_left_out() {
    sandbox::private_host(|| {
        assert_eq!(by_hand(&["inspect"]).ok().stdout, "");
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        kernel::netns::remove_named(&pod.path).unwrap();
        let document = by_hand(&["inspect", "-o", "json"]).ok().json();
        assert_eq!((&document["items"][0]["inside"], &document["items"][0]["hostPorts"]), (&Value::Null, &json!([])));
        // A ledger elsewhere knows nothing of it; the kernel does.
        let elsewhere =
            by_hand(&["inspect", "one", "-o", "json", "--ledger", "/run/nowhere", "--log", "/run/no.log"]).ok();
        assert_eq!(elsewhere.json()["items"][0]["pod"], Value::Null);
        for named in ["there is no ledger /run/nowhere: ", "there is no log /run/no.log: "] {
            assert!(elsewhere.stderr.contains(named), "{elsewhere:?}");
        }
        // A node need not have what nobody names.
        assert_eq!(by_hand(&["inspect", "one"]).ok().stderr, "");
        assert!(!by_hand(&["inspect", "nobody"]).success);
    });
}

#[test]
fn a_runtimes_call_is_never_taken_for_a_persons() {
    sandbox::private_host(|| {
        let mut podwire = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
        podwire.env_clear().env("CNI_COMMAND", "VERSION").args(["inspect"]);
        assert!(finish(podwire, b"{}").ok().json()["supportedVersions"].is_array());
        let introduction = by_hand(&[]).ok();
        assert!(
            introduction.stderr.contains("podwire 0.1.0: CNI main plugin")
                && introduction.stderr.contains("nftables: the kernel has it")
                && introduction.stdout.is_empty()
        );
        assert!(by_hand(&["--version"]).ok().stdout.starts_with("podwire 0."));
    });
}

#[test]
fn every_help_has_examples() {
    for command in [&[][..], &["inspect"], &["errors"], &["reconcile"]] {
        for option in ["--help", "-h"] {
            let help = by_hand(&[command, &[option]].concat()).ok().stdout;
            let example = format!("Examples:\n  {} ", [&["podwire"], command].concat().join(" "));
            assert!(help.contains(&example), "{command:?} {option}: {help}");
        }
    }
    let help = by_hand(&["--help"]).ok().stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["inspect", "errors", "reconcile"], "the list above has all of them");
}
