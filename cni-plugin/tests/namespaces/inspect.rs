//! `podwire` as a command of people, beside what `ip` and the ledger say.

use serde_json::{Value, json};

use crate::common::{Answer, TestPod, addresses, dual_stack, exchange, finish, node_addresses, run, shown};

/// Runs `podwire` with these arguments, as a person does.
fn by_hand(arguments: &[&str]) -> Answer {
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
        let document = by_hand(&["inspect", "one", "-o", "json", "--ledger", "/run/nowhere"]).ok().json();
        assert_eq!(document["items"][0]["pod"], Value::Null);
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
        assert!(introduction.stderr.contains("podwire 0.1.0: CNI main plugin") && introduction.stdout.is_empty());
        assert!(by_hand(&["--version"]).ok().stdout.starts_with("podwire 0."));
    });
}
