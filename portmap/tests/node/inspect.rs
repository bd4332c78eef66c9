//! What people run: list and trace.

use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use crate::common::backend::Backend;
use crate::common::net::{Host, NODE_V4, PATIENCE, forward, lan, pod};
use crate::common::plugin::{Attachment, by_hand, nft};
use kernel::sysctl;
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    host_ports_are_listed_with_what_goes_through_them,
    a_trace_tells_of_networks_with_conditions,
    a_trace_knows_whose_loopback_is_kept,
    a_trace_names_filters_that_drop,
);

on_iptables!(a_trace_ends_where_packets_do_on_iptables,);

/// An attachment of a pod that a Kubernetes runtime speaks of.
fn named(pod: &Host, name: &str, mappings: &Value) -> Attachment {
    let mut attachment = Attachment::new(pod, mappings);
    attachment.args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
    attachment
}

/// The lines of what `podwire-portmap ARGS` prints, white space made one space.
#[track_caller]
fn lines(args: &str, code: i32) -> Vec<String> {
    let (found, stdout, stderr) = by_hand(args);
    assert_eq!(found, code, "{args}: {stdout}{stderr}");
    stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What is printed where no host port fits these filters.
fn nothing(filters: &str) -> (i32, String, String) {
    (3, String::new(), format!("no host ports with {filters}: podwire-portmap list shows all\n"))
}

fn host_ports_are_listed_with_what_goes_through_them(backend: Backend) {
    forward();
    assert_eq!(by_hand("list"), (0, String::new(), "no host ports on this node\n".to_owned()));
    assert_eq!(by_hand("list --port 9"), nothing("--port 9"));
    sysctl::set("net/netfilter/nf_conntrack_acct", "1").unwrap();
    let (lan, web, dns) = (lan(), pod(2), pod(3));
    web.serve(80);
    dns.serve(5353);
    named(&web, "web-0", &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    let ports = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1" }]);
    Attachment::new(&dns, &ports).on(backend).add().ok();
    lan.tcp(NODE_V4[0], 8080).unwrap();
    lan.tcp(NODE_V4[1], 8080).unwrap();
    lan.udp(NODE_V4[0], 53).unwrap();
    let document: Value = serde_json::from_str(&by_hand("list -o json").1).unwrap();
    assert_eq!(document["kind"], "MappingList");
    let items = document["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    let udp = &items[0];
    assert_eq!((&udp["hostIP"], &udp["hostPort"], &udp["protocol"]), (&json!("192.0.2.1"), &json!(53), &json!("udp")));
    assert_eq!((&udp["containerID"], &udp["podName"], &udp["flows"]), (&json!("pod3"), &Value::Null, &json!(1)));
    // One byte there, "pod3 192.0.2.9" back, and two headers of 28 bytes.
    assert_eq!((&udp["packets"], &udp["bytes"]), (&json!(2), &json!(1 + 14 + 56)));
    let tcp = &items[1];
    assert_eq!(
        (&tcp["hostIP"], &tcp["podNamespace"], &tcp["podName"]),
        (&json!("0.0.0.0"), &json!("shop"), &json!("web-0"))
    );
    assert_eq!(
        (&tcp["podIP"], &tcp["containerPort"], &tcp["flows"], &tcp["answered"]),
        (&json!("10.88.0.2"), &json!(80), &json!(2), &json!(2))
    );
    assert!(tcp["packets"].as_u64().unwrap() > 8, "{tcp}");
    assert_eq!((&items[2]["hostIP"], &items[2]["flows"]), (&json!("::"), &json!(0)));
    let table = lines("list", 0);
    assert_eq!(table[0], "HOST PORT POD POD-ADDRESS FLOWS PACKETS BYTES");
    assert_eq!(table[1], "192.0.2.1 53/udp pod3 10.88.0.3:5353 1 2 71");
    assert_eq!(table[3], ":: 8080/tcp shop/web-0 [fd88::2]:80 0 - -");
    assert_eq!(lines("ports --pod web-0 --no-headers", 0).len(), 2);
    for filters in ["--network other", "--pod nosuch", "--port 9", "--network podnet --pod shop/web-0 --port 53"] {
        assert_eq!(by_hand(&format!("ls {filters} --no-headers")), nothing(filters));
        let (code, stdout, stderr) = by_hand(&format!("list -o json {filters}"));
        let document: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &document["kind"], &document["items"]), (3, &json!("MappingList"), &json!([])));
        assert_eq!(stderr, nothing(filters).2);
    }
    assert_eq!(
        lines("list --port 53 --no-headers -o wide", 0),
        [format!("192.0.2.1 53/udp pod3 10.88.0.3:5353 1 2 71 1 {} podnet pod3 eth0", backend.key().as_str().unwrap())]
    );
}

#[test]
fn a_runtime_is_never_taken_for_a_person() {
    private_host(|| {
        let output = sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap"))
            .arg("list")
            .env("CNI_COMMAND", "VERSION")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(answer["supportedVersions"].is_array(), "{answer}");
        let (code, stdout, stderr) = by_hand("lisst");
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains("list"), "{stderr}");
        assert_eq!(by_hand("trace 192.0.2.1").0, 2);
        // They have no more columns than they show.
        for command in ["trace 192.0.2.1:80", "reconcile", "adopt"] {
            assert_eq!(by_hand(&format!("{command} -o wide")).0, 2, "{command}");
        }
        assert!(by_hand("--help").1.contains("reconcile"));
    });
}

#[test]
fn every_help_has_examples() {
    for command in ["", "list", "trace", "reconcile", "adopt"] {
        for option in ["--help", "-h"] {
            let (code, help, _) = by_hand(&format!("{command} {option}"));
            assert_eq!(code, 0, "{command} {option}");
            let example = format!("Examples:\n  podwire-portmap {command}");
            assert!(help.contains(&example), "{command} {option}: {help}");
        }
    }
    let listed = by_hand("--help").1;
    let commands = listed.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(commands, ["list", "trace", "reconcile", "adopt"], "the list above has all of them");
}

/// The step that stopped a trace, and what was seen there.
#[track_caller]
fn stopped(to: &str) -> (String, String) {
    let (code, stdout, stderr) = by_hand(&format!("trace {to} -o json"));
    assert_eq!(code, 4, "{stdout}{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["reaches"], false);
    let last = document["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(last["verdict"], "stop");
    assert!(last["next"].is_string(), "{last}");
    (last["name"].as_str().unwrap().to_owned(), last["seen"].as_str().unwrap().to_owned())
}

fn ip(args: &str) {
    assert!(sandbox::command("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

#[test]
fn a_trace_ends_where_packets_do() {
    private_host(|| {
        ip("link set lo up");
        let (_lan, pod) = (lan(), pod(2));
        let attachment = named(&pod, "web-0", &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let stop = |to: &str, name: &str, seen: &str| {
            let found = stopped(to);
            assert!(found.0 == name && found.1.contains(seen), "{found:?}");
        };
        let port = "192.0.2.1:8080/tcp";
        stop("192.0.2.9:8080", "address", "192.0.2.9 is not an address of this node");
        stop("198.51.100.1:8080", "address", "no route leads to it");
        stop("0.0.0.0:8080", "address", "0.0.0.0 stands for every address of the node");
        stop("[::]:8080", "address", ":: stands for every address of the node");
        stop(port, "owner", "no pod has 192.0.2.1:8080/tcp");
        attachment.add().ok();
        stop("192.0.2.1:8080/udp", "owner", "there is 0.0.0.0:8080/tcp");
        stop(port, "forwarding", "net.ipv4.ip_forward is off");
        // The node's own packets need no forwarding.
        stop("127.0.0.1:8080", "application", "nothing in the pod listens on 80/tcp");
        forward();
        stop(port, "application", "nothing in the pod listens on 80/tcp");
        let _local = pod.netns.run(|| TcpListener::bind("127.0.0.1:80").unwrap()).unwrap();
        stop(port, "application", "only 127.0.0.1:80 listens on 80/tcp, which 10.88.0.2 is not");
        let _listener = pod.netns.run(|| TcpListener::bind("10.88.0.2:80").unwrap()).unwrap();
        assert_eq!(by_hand(&format!("trace {port}")).0, 0);
        assert_eq!(by_hand("trace 127.0.0.1:8080").0, 0);
        stop("[2001:db8::1]:8080", "application", "127.0.0.1:80");
        sysctl::set("net/ipv4/conf/to-pod2/route_localnet", "0").unwrap();
        stop("127.0.0.1:8080", "rules", "route_localnet: expected `112`, found `0`");
        sysctl::set("net/ipv4/conf/to-pod2/route_localnet", "1").unwrap();
        nft(&["flush", "chain", "ip", "podwire-hostport", "prerouting"]);
        stop(port, "rules", "chain prerouting rule 1: expected `fib daddr type local jump hostports`, found nothing");
        nft(&["flush", "ruleset"]);
        stop(port, "owner", "podnet pod2 eth0 asked for 192.0.2.1:8080/tcp, and the firewall has nothing for it");
        attachment.add().ok();
        ip("route del 10.88.0.2");
        stop(port, "route", "no route leads to 10.88.0.2");
        ip("route add 10.88.0.2 dev to-pod2");
        ip("link set to-pod2 down");
        stop(port, "route", "no route leads to 10.88.0.2");
        ip("link set to-pod2 up");
        ip("route add 10.88.0.2 dev to-pod2");
        pod.netns.run(|| ip("address del 10.88.0.2/32 dev eth0")).unwrap();
        stop(port, "pod", "no interface in /run/netns/pod2 has the address 10.88.0.2");
        pod.die();
        stop(port, "owner", "its interface to-pod2 is gone, its network namespace /run/netns/pod2 is gone");
    });
}

#[test]
fn a_trace_shows_listeners_of_the_node_and_silent_flows() {
    private_host(|| {
        forward();
        let (lan, pod) = (lan(), pod(2));
        let _listener = pod.netns.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).add().ok();
        let _node = TcpListener::bind("0.0.0.0:8080").unwrap();
        pod.netns.run(|| ip("route del default")).unwrap();
        let client = lan.netns.run(|| {
            TcpStream::connect_timeout(&(NODE_V4[0], 8080).into(), std::time::Duration::from_millis(50)).map(drop)
        });
        assert!(client.unwrap().is_err());
        // A busy kernel may take longer to see the packet than the client has waited.
        let end = Instant::now() + PATIENCE;
        let shown = loop {
            let shown = lines("trace 192.0.2.1:8080", 0).join("\n");
            if shown.contains("note flows ") || Instant::now() > end {
                break shown;
            }
        };
        assert!(shown.contains("note node "), "{shown}");
        assert!(shown.contains("listens on 0.0.0.0:8080/tcp"), "{shown}");
        assert!(shown.contains("note flows 1 live connections, 0 of them answered; one is tcp 192.0.2.9:"), "{shown}");
    });
}

fn a_trace_ends_where_packets_do_on_iptables(backend: Backend) {
    let (_lan, pod) = (lan(), pod(2));
    let attachment = named(&pod, "web-0", &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    let port = "192.0.2.1:8080/tcp";
    let stop = |name: &str, seen: &str| {
        let found = stopped(port);
        assert!(found.0 == name && found.1.contains(seen), "{found:?}");
    };
    stop("owner", "no pod has 192.0.2.1:8080/tcp");
    attachment.add().ok();
    stop("forwarding", "net.ipv4.ip_forward is off");
    forward();
    stop("application", "nothing in the pod listens on 80/tcp");
    let _listener = pod.netns.run(|| TcpListener::bind("10.88.0.2:80").unwrap()).unwrap();
    assert_eq!(by_hand(&format!("trace {port}")).0, 0);
    let change = |arguments: &[&str]| {
        let done = sandbox::command(backend.iptables()).args(["-t", "nat"]).args(arguments).status().unwrap();
        assert!(done.success());
    };
    change(&["-I", "PODWIRE-HOSTPORT", "1", "-j", "RETURN"]);
    stop("rules", "found `-A PODWIRE-HOSTPORT -j RETURN`");
    assert_eq!(by_hand("reconcile --quiet").0, 0);
    assert_eq!(by_hand(&format!("trace {port}")).0, 0);
    backend.flush();
    stop("owner", "podnet pod2 eth0 asked for 192.0.2.1:8080/tcp, and the firewall has nothing for it");
    attachment.add().ok();
    pod.die();
    stop("owner", "its interface to-pod2 is gone, its network namespace /run/netns/pod2 is gone");
}

fn a_trace_tells_of_networks_with_conditions(backend: Backend) {
    forward();
    let (_lan, open, limited) = (lan(), pod(2), pod(3));
    let _listeners = [&open, &limited].map(|pod| pod.netns.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap());
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0" }]);
    let limited = Attachment::new(&limited, &ports).with("name", json!("vpn")).on(backend);
    limited.with("conditionsV4", json!(["-s", "10.9.0.0/16"])).add().ok();
    let shown = lines("trace 192.0.2.1:8080", 0).join("\n");
    let told = "note owner 0.0.0.0:8080/tcp -> 10.88.0.3:80, held by container pod3 (eth0) of network vpn, for packets that \
                meet ip saddr 10.9.0.0/16";
    assert!(shown.contains(told) && shown.contains("10.88.0.3 and is up"), "{shown}");
    Attachment::new(&open, &ports).on(backend).add().ok();
    let shown = lines("trace 192.0.2.1:8080", 0).join("\n");
    assert!(shown.contains(told) && shown.contains("10.88.0.2 and is up"), "{shown}");
    assert_eq!(shown.matches("note owner").count(), 1, "{shown}");
}

/// Also where the interface is open for another pod's sake, as that of a bridge is.
fn a_trace_knows_whose_loopback_is_kept(backend: Backend) {
    forward();
    let (_lan, pod) = (lan(), pod(2));
    pod.serve(80);
    for key in ["localhost", "snat"] {
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
        attachment.with(key, json!(false)).add().ok();
        sysctl::set("net/ipv4/conf/to-pod2/route_localnet", "1").unwrap();
        for to in ["127.0.0.1:8080", "[::1]:8080"] {
            let (name, seen) = stopped(to);
            assert_eq!(name, "localhost");
            assert!(seen.starts_with(&format!("the pod's network has \"{key}\": false")), "{seen}");
        }
        assert_eq!(lines("trace 192.0.2.1:8080", 0).last().unwrap(), "Packets get through to the pod.");
    }
}

fn a_trace_names_filters_that_drop(backend: Backend) {
    forward();
    let (_lan, pod) = (lan(), pod(2));
    pod.serve(80);
    Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend).add().ok();
    for (family, to) in [("ip", "192.0.2.1:8080"), ("ip6", "[2001:db8::1]:8080")] {
        let before = lines(&format!("trace {to}"), 0);
        assert_eq!(before.last().unwrap(), "Packets get through to the pod.");
        let chain = if backend == Backend::Nftables {
            nft(&["add", "table", family, "mine"]);
            nft(&["add", "chain", family, "mine", "out", "{ type filter hook output priority 0; policy drop; }"]);
            nft(&["add", "chain", family, "mine", "way", "{ type filter hook forward priority 0; policy drop; }"]);
            format!("chain way of table {family} mine")
        } else {
            let program = backend.iptables().replacen("ip", family, 1);
            for arguments in ["-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT", "-P INPUT DROP", "-P FORWARD DROP"] {
                assert!(sandbox::command(&program).args(arguments.split(' ')).status().unwrap().success());
            }
            match backend {
                Backend::IptablesLegacy => format!("chain FORWARD of {family} table filter of iptables (legacy)"),
                _ => format!("chain FORWARD of table {family} filter"),
            }
        };
        let shown = lines(&format!("trace {to}"), 0);
        let told = format!("note forwarding {chain} drops what none of its rules accepts");
        assert_eq!(shown.iter().filter(|line| line.starts_with("note forwarding")).collect::<Vec<_>>(), [&told]);
        assert_eq!(shown.last().unwrap(), "Nothing that was looked at keeps packets from the pod; see the notes.");
    }
}
