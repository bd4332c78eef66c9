//! Which programs an ADD and a DEL run: counted by strace(1).

use std::collections::BTreeMap;
use std::fs;

use crate::common::backend::Backend;
use crate::common::net::{Host, forward, lan, pod};
use crate::common::plugin::{Answer, Attachment, run};
use serde_json::{Value, json};

on_each_backend!(add_and_del_run_at_most_one_program_for_each_family,);

const LOG: &str = "/run/strace";

/// The programs that a request runs besides the plugin itself, and how many processes begin.
fn programs(verb: &str, attachment: &Attachment, config: &Value) -> (BTreeMap<String, usize>, usize) {
    let mut strace = sandbox::command("strace");
    strace.args([
        "--follow-forks",
        "--quiet=all",
        "--output",
        LOG,
        "--trace",
        "execve,execveat,fork,vfork,clone,clone3",
    ]);
    strace.arg(env!("CARGO_BIN_EXE_podwire-portmap"));
    let container = [
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_IFNAME", attachment.ifname.as_str()),
        ("CNI_NETNS", attachment.netns.as_str()),
    ];
    Answer::of(&run(strace, verb, &container, &config.to_string())).ok();
    let log = fs::read_to_string(LOG).unwrap();
    let is_thread = |line: &&str| line.contains("CLONE_THREAD");
    let is_process = |line: &&str| ["fork(", "clone(", "clone3("].iter().any(|call| line.contains(call));
    let processes = log.lines().filter(is_process).filter(|line| !is_thread(line)).count();
    let mut programs = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("execve(")) {
        let path = line.split('"').nth(1).unwrap();
        *programs.entry(path.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(programs.remove("podwire-portmap"), Some(1), "{log}");
    (programs, processes)
}

fn two_ports(pod: &Host, backend: Backend) -> Attachment {
    let first = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    let second = json!({ "hostPort": 8053, "containerPort": 53, "protocol": "udp" });
    Attachment::new(pod, &json!([first, second])).on(backend)
}

fn add_and_del_run_at_most_one_program_for_each_family(backend: Backend) {
    forward();
    let _lan = lan();
    let (pod, other) = (pod(2), pod(3));
    let attachment = two_ports(&pod, backend);
    let expected = match backend {
        Backend::Nftables => BTreeMap::new(),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            BTreeMap::from([("iptables-restore".to_owned(), 1), ("ip6tables-restore".to_owned(), 1)])
        }
    };
    // DEL names the flavour, whatever the administrator has chosen meanwhile.
    let flavour = backend.iptables().trim_start_matches("iptables");
    let with_flavour = |program: &String| program.replace("-restore", &format!("{flavour}-restore"));
    let at_del: BTreeMap<String, usize> =
        expected.iter().map(|(program, count)| (with_flavour(program), *count)).collect();
    // Alone, with the rules that are nobody's coming and going; and beside another pod.
    for others in [false, true] {
        if others {
            Attachment::new(&other, &json!([{ "hostPort": 1, "containerPort": 1 }])).on(backend).add().ok();
        }
        let added = programs("ADD", &attachment, &attachment.config);
        assert_eq!(added, (expected.clone(), expected.len()), "ADD, others: {others}");
        attachment.check().ok();
        let config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
        let ended = programs("DEL", &attachment, &config);
        assert_eq!(ended, (at_del.clone(), at_del.len()), "DEL, others: {others}");
        assert!(!backend.rules().contains("pod2"));
        // A pod without host ports has nothing to do with any.
        let without = Attachment::new(&pod, &json!([])).on(backend);
        assert_eq!(programs("ADD", &without, &without.config), (BTreeMap::new(), 0));
        // What is gone is looked for without any program.
        assert_eq!(programs("DEL", &attachment, &config), (BTreeMap::new(), 0));
    }
}
