//! What an ADD and a DEL ask of the kernel does not grow with the number of host ports: counted by strace(1).

use std::fs;

use crate::common::net::{forward, lan, pod};
use crate::common::plugin::{Answer, Attachment, ruleset, run};
use sandbox::private_host;
use serde_json::{Value, json};

const LOG: &str = "/run/strace";
/// Ports of each pod on paper; enough of them that the answers to a question about all come in several messages.
const PORTS: u16 = 100;

/// How many messages to and from the kernel a request takes.
fn messages(verb: &str, attachment: &Attachment, config: &Value) -> usize {
    let mut strace = sandbox::command("strace");
    strace.args(["--quiet=all", "--output", LOG, "--trace", "sendto,recvfrom"]);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let container = [
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_IFNAME", attachment.ifname.as_str()),
        ("CNI_NETNS", attachment.netns.as_str()),
    ];
    Answer::of(&run(strace, verb, &container, &config.to_string())).ok();
    fs::read_to_string(LOG).unwrap().lines().filter(|line| !line.contains("exited with")).count()
}

fn on_paper(number: u16) -> Attachment {
    let ports: Vec<Value> =
        (0..PORTS).map(|port| json!({ "hostPort": 20_000 + number * PORTS + port, "containerPort": 80 })).collect();
    let addresses = [format!("10.88.9.{number}/32"), format!("fd88::9:{number}/128")];
    Attachment::on_paper(&format!("other{number}"), &addresses.each_ref().map(String::as_str), &json!(ports))
}

#[test]
fn add_and_del_ask_for_no_more_beside_a_thousand_host_ports() {
    private_host(|| {
        forward();
        let _lan = lan();
        let pod = pod(2);
        let ports = json!([
            { "hostPort": 8080, "containerPort": 80 },
            { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1" },
        ]);
        let attachment = Attachment::new(&pod, &ports);
        let without = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
        let round = || {
            let add = messages("ADD", &attachment, &attachment.config);
            assert!(ruleset().contains("pod2"));
            let del = messages("DEL", &attachment, &without);
            assert!(!ruleset().contains("pod2"));
            (add, del)
        };
        // What the kernel tells of IPv6 addresses that become usable meanwhile only adds to it.
        let least = || {
            let rounds = [round(), round(), round(), round(), round()];
            (rounds.map(|(add, _)| add).into_iter().min(), rounds.map(|(_, del)| del).into_iter().min())
        };
        on_paper(0).add().ok();
        let beside_one = least();
        (1..10).for_each(|number| drop(on_paper(number).add().ok()));
        assert_eq!(least(), beside_one);
    });
}
