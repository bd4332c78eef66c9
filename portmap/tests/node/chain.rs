//! The whole chain as it is shipped - podwire, podwire-ipam, podwire-portmap - with a lease and an ifalias of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::backend::Backend;
use crate::common::net::{NEIGHBOUR_V4, NODE_V4, from, lan, serve};
use crate::common::plugin::{Answer, Attachment, HELD, by_hand, run};
use kernel::netns;
use kernel::rtnl::Rtnl;
use serde_json::{Value, json};

on_each_backend!(a_lost_del_of_the_chain_keeps_no_port,);

/// Beside podwire-portmap, where the whole workspace is built.
fn executables() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_podwire-portmap")).parent().unwrap().to_owned()
}

/// A pod by podwire and podwire-ipam, and its request to podwire-portmap.
fn attach(pod: &str, port: u16) -> Attachment {
    let path = format!("/run/netns/{pod}");
    let netns = netns::create_named(&path).unwrap();
    let conf = json!({
        "cniVersion": "1.1.0", "name": "podnet", "type": "podwire",
        "ipam": { "type": "podwire-ipam", "podCIDR": "10.88.7.0/24" },
    });
    let folder = executables();
    let program = folder.join("podwire");
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    let path_of_plugins = folder.display().to_string();
    let container =
        [("CNI_CONTAINERID", pod), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", &path), ("CNI_PATH", &path_of_plugins)];
    let output = run(sandbox::command(program), "ADD", &container, &conf.to_string());
    let result = Answer::of(&output).ok();
    let name = pod.to_owned();
    netns.run(move || serve(&name, 80)).unwrap();
    let mut attachment =
        Attachment::on_paper(pod, &[], &json!([{ "hostPort": port, "containerPort": 80 }])).with("prevResult", result);
    attachment.netns = path;
    attachment
}

/// The interface on the node.
fn host_end(attachment: &Attachment) -> String {
    let interfaces = attachment.config["prevResult"]["interfaces"].as_array().unwrap();
    let on_node = interfaces.iter().find(|link| link["sandbox"].as_str().unwrap_or_default().is_empty());
    on_node.unwrap()["name"].as_str().unwrap().to_owned()
}

fn record(pod: &str) -> Value {
    let text = fs::read_to_string(format!("/run/podwire/portmap/podnet:{pod}:eth0")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn a_lost_del_of_the_chain_keeps_no_port(backend: Backend) {
    let lan = lan();
    let holder = attach("old", 8080).on(backend);
    holder.add().ok();
    let lease = record("old")["lease"].as_str().unwrap().to_owned();
    assert!(lease.starts_with("/run/podwire/ipam/leases/"), "{lease}");
    let newcomer = attach("new", 8080).on(backend);
    let link = host_end(&holder);
    let (code, _, details) = newcomer.add().failed();
    assert_eq!(code, HELD);
    let signs = format!(
        "its interface {link} is there, its network namespace /run/netns/old is there, its lease {lease} is there;"
    );
    assert!(details.starts_with(&signs), "{details}");
    // Under another name it is told by its ifalias alone.
    let node = Rtnl::open().unwrap();
    let ip = |args: &[&str]| assert!(sandbox::command("ip").args(args).status().unwrap().success(), "{args:?}");
    ip(&["link", "set", &link, "down"]);
    ip(&["link", "set", &link, "name", "renamed"]);
    assert!(netns::remove_named("/run/netns/old").unwrap());
    let (code, _, details) = newcomer.add().failed();
    assert_eq!(code, HELD);
    assert!(
        details.starts_with("its interface renamed is there, its network namespace /run/netns/old is gone,"),
        "{details}"
    );
    // Its pod dies, and nobody tells any plugin: the address is still leased.
    assert!(node.delete_link(node.link("renamed").unwrap().unwrap().index).unwrap());
    assert!(fs::exists(&lease).unwrap());
    let planned = by_hand("reconcile --dry-run").1;
    let expected = format!(
        "podnet old eth0: to be removed: its interface {link} is gone, its network namespace /run/netns/old is gone, its lease {lease} is there\n"
    );
    assert_eq!(planned, expected);
    newcomer.add().ok();
    newcomer.check().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("new", NEIGHBOUR_V4));
    let listed = by_hand("list -o json").1;
    assert!(listed.contains("\"new\"") && !listed.contains("\"old\""), "{listed}");
    // Its DEL comes late.
    holder.del().ok();
    assert_eq!(lan.tcp(NODE_V4[0], 8080), from("new", NEIGHBOUR_V4));
}
