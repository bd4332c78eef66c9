//! Whose a host port is: the living keep it, the dead do not.

use std::fs;
use std::net::{TcpListener, UdpSocket};

use crate::common::backend::Backend;
use crate::common::net::{Host, NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, HELD, by_hand, gc, ruleset};
use portmap::Error;
use portmap::firewall::Firewall;
use portmap::liveness::Dead;
use portmap::record::Records;
use sandbox::private_host;
use serde_json::{Value, json};

on_each_backend!(
    a_living_holder_is_named_and_keeps_its_port,
    a_dead_holder_is_taken_over_from_whole,
    a_holder_that_was_begun_anew_is_no_dead_one,
    a_lease_is_missed_only_where_an_add_saw_it,
    one_sign_of_death_is_not_enough,
    nobody_is_taken_over_from_where_the_operator_says_so,
    a_process_that_listens_is_reported,
    an_operator_keeps_ports,
);

on_iptables!(rules_behind_a_flushed_chain_hold_their_port,);

const RECORDS: &str = "/run/podwire/portmap";

fn port(number: u16) -> Value {
    json!({ "hostPort": number, "containerPort": 80 })
}

/// The names of all records, sorted.
fn records() -> Vec<String> {
    let Ok(entries) = fs::read_dir(RECORDS) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An attachment of a pod that a Kubernetes runtime speaks of.
fn named(pod: &Host, name: &str, mappings: &Value) -> Attachment {
    let mut attachment = Attachment::new(pod, mappings);
    attachment.args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=1");
    attachment
}

fn a_living_holder_is_named_and_keeps_its_port(backend: Backend) {
    let (holder, newcomer) = (pod(2), pod(3));
    named(&holder, "cart-0", &json!([port(8080)])).on(backend).add().ok();
    let before = (backend.rules(), records());
    let (code, msg, details) = named(&newcomer, "cart-1", &json!([port(8080)])).on(backend).add().failed();
    assert_eq!(code, HELD);
    let expected = "host port 8080/tcp on every IPv4 address is held by pod shop/cart-0, container pod2 (eth0) of \
                    network podnet, for 10.88.0.2:80";
    assert_eq!(msg, expected);
    let expected = "its interface to-pod2 is there, its network namespace /run/netns/pod2 is there; it keeps the \
                    port until it is deleted";
    assert_eq!(details, expected);
    assert_eq!((backend.rules(), records()), before);
}

/// Its DEL was lost, and its next ADD came after it was looked at and before its port was taken.
fn a_holder_that_was_begun_anew_is_no_dead_one(backend: Backend) {
    let first = Attachment::new(&pod(2), &json!([port(8080)])).on(backend);
    first.add().ok();
    let attachment: cni_spec::Attachment = "podnet pod2 eth0".parse().unwrap();
    let record = Records::default().read(&attachment);
    let dead = [Dead { attachment, record }];
    let again = Attachment::new(&pod(3), &json!([port(8080)])).on(backend);
    let again = Attachment { container: "pod2".to_owned(), ..again };
    again.add().ok();
    let before = backend.rules();
    let newcomer = Attachment::new(&pod(4), &json!([port(8080)])).on(backend);
    let config = newcomer.checked();
    let refused = Firewall::of(&config.settings).unwrap().claim(&config, &dead);
    assert!(matches!(refused, Err(Error::BegunAnew(_))), "{refused:?}");
    assert_eq!(newcomer.add().failed().0, HELD);
    assert_eq!(backend.rules(), before);
    again.check().ok();
}

/// Packets do not meet them until `reconcile` puts the chain back that leads to them.
fn rules_behind_a_flushed_chain_hold_their_port(backend: Backend) {
    let holder = Attachment::new(&pod(2), &json!([port(8080)])).on(backend);
    holder.add().ok();
    for program in [backend.iptables().to_owned(), backend.iptables().replacen("ip", "ip6", 1)] {
        let flushed = sandbox::command(program).args(["-t", "nat", "-F", "PODWIRE-HOSTPORT"]).status().unwrap();
        assert!(flushed.success());
    }
    let newcomer = Attachment::new(&pod(3), &json!([port(8080)])).on(Backend::Nftables);
    assert_eq!(newcomer.add().failed().0, HELD);
    assert_eq!(by_hand("reconcile").0, 0);
    holder.check().ok();
    assert_eq!(newcomer.add().failed().0, HELD);
}

fn a_dead_holder_is_taken_over_from_whole(backend: Backend) {
    forward();
    let (lan, holder, newcomer) = (lan(), pod(2), pod(3));
    newcomer.serve(80);
    Attachment::new(&holder, &json!([port(8080), port(8081)])).on(backend).add().ok();
    holder.die();
    let attachment = Attachment::new(&newcomer, &json!([port(8080)])).on(backend);
    attachment.add().ok();
    attachment.check().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
    // What else it had went too.
    assert!(!backend.rules().contains("pod2"), "{}", backend.rules());
    assert_eq!(records(), ["podnet:pod3:eth0"]);
    // Its DEL comes late, and takes nothing from the new holder.
    Attachment::new(&holder, &json!([])).del().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
}

fn one_sign_of_death_is_not_enough(backend: Backend) {
    let (holder, newcomer) = (pod(2), pod(3));
    Attachment::new(&holder, &json!([port(8080)])).on(backend).add().ok();
    // As after somebody pulled the cable: the pod is still there.
    let ip = sandbox::command("ip").args(["link", "del", "to-pod2"]).status().unwrap();
    assert!(ip.success());
    let attachment = Attachment::new(&newcomer, &json!([port(8080)])).on(backend);
    let (code, _, details) = attachment.add().failed();
    assert_eq!(code, HELD);
    assert!(
        details.starts_with("its interface to-pod2 is gone, its network namespace /run/netns/pod2 is there"),
        "{details}"
    );
}

/// As where a pod has its interface from somewhere else, and its namespace cannot be seen from here: what speaks against it
/// is one sign, unless its ADD saw a lease that is gone now.
fn a_lease_is_missed_only_where_an_add_saw_it(backend: Backend) {
    const LEASE: &str = "/var/lib/cni/networks/podnet/10.88.0.2";
    // Others have leases here.
    fs::create_dir_all("/run/podwire/ipam/leases").unwrap();
    fs::create_dir_all("/var/lib/cni/networks/podnet").unwrap();
    let (holder, newcomer) = (pod(2), pod(3));
    let mut attachment = Attachment::new(&holder, &json!([port(8080)])).on(backend);
    attachment.config["prevResult"]["interfaces"][0]["sandbox"] = json!("/run/netns/pod2");
    attachment.add().ok();
    assert!(kernel::netns::remove_named("/run/netns/pod2").unwrap());
    let next = Attachment::new(&newcomer, &json!([port(8080)])).on(backend);
    let (code, _, details) = next.add().failed();
    let expected = "its network namespace /run/netns/pod2 is gone; it keeps the port until it is deleted";
    assert_eq!((code, details.as_str()), (HELD, expected));
    assert_eq!(by_hand("reconcile --dry-run").1, "podnet pod2 eth0: as it should be\n");
    // As the reference host-local keeps it.
    fs::write(LEASE, "pod2\r\neth0").unwrap();
    assert!(kernel::netns::create_named("/run/netns/pod2").is_ok());
    attachment.add().ok();
    assert!(kernel::netns::remove_named("/run/netns/pod2").unwrap());
    let (_, _, details) = next.add().failed();
    assert!(details.contains(&format!("its lease {LEASE} is there;")), "{details}");
    // Given to somebody else.
    fs::write(LEASE, "pod9\r\neth0").unwrap();
    next.add().ok();
}

fn nobody_is_taken_over_from_where_the_operator_says_so(backend: Backend) {
    let (holder, newcomer) = (pod(2), pod(3));
    Attachment::new(&holder, &json!([port(8080)])).on(backend).add().ok();
    holder.die();
    let attachment = Attachment::new(&newcomer, &json!([port(8080)])).on(backend).with("conflict", json!("refuse"));
    let (code, _, details) = attachment.add().failed();
    assert_eq!(code, HELD);
    assert!(details.ends_with("\"conflict\" is \"refuse\", so DEL or GC has to end it"), "{details}");
    gc("podnet", &[("pod3", "eth0")]).ok();
    attachment.add().ok();
}

#[test]
fn a_record_comes_and_goes_with_its_mappings() {
    private_host(|| {
        let pod = pod(2);
        let attachment = Attachment::new(&pod, &json!([port(8080)]));
        attachment.add().ok();
        assert_eq!(records(), ["podnet:pod2:eth0"]);
        let text = fs::read_to_string(format!("{RECORDS}/podnet:pod2:eth0")).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["netns"]["path"], "/run/netns/pod2");
        assert_eq!(record["config"]["runtimeConfig"]["portMappings"][0]["hostPort"], 8080);
        attachment.del().ok();
        assert_eq!(records(), Vec::<String>::new());
        // An ADD without ports ends what an earlier one had.
        attachment.add().ok();
        Attachment::new(&pod, &json!([])).add().ok();
        assert_eq!(records(), Vec::<String>::new());
        // One that is refused keeps what an earlier one had.
        attachment.add().ok();
        Attachment::new(&self::pod(3), &json!([port(9090)])).add().ok();
        Attachment::new(&pod, &json!([port(9090)])).add().failed();
        assert_eq!(records(), ["podnet:pod2:eth0", "podnet:pod3:eth0"]);
        let text = fs::read_to_string(format!("{RECORDS}/podnet:pod2:eth0")).unwrap();
        assert!(text.contains("8080") && !text.contains("9090"), "{text}");
        gc("podnet", &[("pod3", "eth0")]).ok();
        assert_eq!(records(), ["podnet:pod3:eth0"]);
    });
}

#[test]
fn records_that_cannot_be_read_are_no_trouble_for_gc() {
    private_host(|| {
        let pod = pod(2);
        Attachment::new(&pod, &json!([port(8080)])).add().ok();
        for name in ["podnet:c8:eth0", "~podnet:c9:eth0", "other:c8:eth0"] {
            fs::write(format!("{RECORDS}/{name}"), "{").unwrap();
        }
        gc("podnet", &[("pod2", "eth0")]).ok();
        // Those of other networks are theirs.
        assert_eq!(records(), ["other:c8:eth0", "podnet:pod2:eth0"]);
        gc("other", &[]).ok();
        gc("podnet", &[]).ok();
        assert_eq!(records(), Vec::<String>::new());
        assert!(!fs::exists("/run/podwire").unwrap());
    });
}

#[test]
fn an_add_without_a_place_for_its_record_goes_on_and_says_so() {
    private_host(|| {
        fs::create_dir_all("/run/podwire").unwrap();
        fs::write(RECORDS, "in the way").unwrap();
        let Answer::Ok { stderr, .. } = Attachment::new(&pod(2), &json!([port(8080)])).add() else { panic!("refused") };
        assert!(
            stderr.contains("ADD goes on despite: failed to write /run/podwire/portmap/podnet:pod2:eth0"),
            "{stderr}"
        );
        assert!(ruleset().contains("8080"), "{}", ruleset());
    });
}

fn a_process_that_listens_is_reported(backend: Backend) {
    assert!(sandbox::command("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let pod = pod(2);
    let _tcp = TcpListener::bind("0.0.0.0:8080").unwrap();
    let _udp = UdpSocket::bind("127.0.0.1:53").unwrap();
    let _other = UdpSocket::bind("127.0.0.1:54").unwrap();
    let mappings = json!([port(8080), { "hostPort": 53, "containerPort": 53, "protocol": "udp" }]);
    let attachment = Attachment::new(&pod, &mappings).on(backend);
    let Answer::Ok { stderr, .. } = attachment.add() else { panic!("refused") };
    let pid = std::process::id();
    for expected in [
        "ADD goes on despite: host port 0.0.0.0:8080/tcp is in use on the node itself: ".to_owned(),
        format!("(PID {pid}) listens on 0.0.0.0:8080/tcp"),
        format!("(PID {pid}) listens on 127.0.0.1:53/udp"),
    ] {
        assert!(stderr.contains(&expected), "{expected}: {stderr}");
    }
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    attachment.del().ok();
    let refused = attachment.with("hostListeners", json!("refuse"));
    let (code, msg, _) = refused.add().failed();
    assert_eq!(code, HELD);
    assert!(msg.starts_with("host port 0.0.0.0:8080/tcp is in use on the node itself: "), "{msg}");
    assert_eq!((backend.rules(), records()), (String::new(), Vec::new()));
    let exact = json!([{ "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1" }]);
    let elsewhere = Attachment::new(&pod, &exact).on(backend).with("hostListeners", json!("refuse"));
    elsewhere.add().ok();
    let Answer::Ok { stderr, .. } =
        Attachment::new(&pod, &mappings).on(backend).with("hostListeners", json!("ignore")).add()
    else {
        panic!("refused")
    };
    assert_eq!(stderr, "");
}

fn an_operator_keeps_ports(backend: Backend) {
    let attach = |number: u16| {
        Attachment::on_paper("c1", &["10.88.0.2/32"], &json!([port(number)]))
            .with("reservedHostPorts", json!([22, "6443", "10250-10259"]))
            .with("hostPortRange", json!("20-32767"))
            .on(backend)
    };
    for (number, reason) in [
        (22, "is reserved: reservedHostPorts has 22"),
        (6443, "is reserved: reservedHostPorts has 6443"),
        (10255, "is reserved: reservedHostPorts has 10250-10259"),
        (19, "is outside of hostPortRange, 20-32767"),
        (40000, "is outside of hostPortRange, 20-32767"),
    ] {
        let (code, msg, _) = attach(number).add().failed();
        let path = "runtimeConfig.portMappings[0].hostPort";
        assert_eq!((code, msg), (7, format!("invalid network config: {path}={number}: {reason}")));
    }
    attach(8080).add().ok();
    attach(10249).add().ok();
    for (key, value, shown) in [
        ("reservedHostPorts", json!([0]), "reservedHostPorts[0]=0: must be a port or a range"),
        ("reservedHostPorts", json!(["9-1"]), "reservedHostPorts[0]=\"9-1\": must be a port or a range"),
        ("reservedHostPorts", json!([70000]), "reservedHostPorts[0]=70000: must be a port or a range"),
        ("hostPortRange", json!(true), "hostPortRange=true: must be a port or a range"),
        ("conflict", json!("fight"), "conflict=\"fight\": must be \"takeover\" or \"refuse\""),
        ("hostListeners", json!("kill"), "hostListeners=\"kill\": must be \"warn\", \"refuse\" or \"ignore\""),
    ] {
        let (code, msg, _) = attach(8080).with(key, value).add().failed();
        assert_eq!(code, 7);
        assert!(msg.contains(shown), "{msg}");
    }
}
