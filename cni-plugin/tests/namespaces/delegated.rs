//! Other IPAM plugins, run as executables: the reference `host-local`, `static` and `dhcp`, and one that answers as
//! `whereabouts` does.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, run, text, traces, until, with};
use crate::hostile::dropped;
use kernel::netns::NetNs;
use serde_json::{Value, json};

#[test]
fn host_local_gives_and_takes_back() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({
                "cniVersion": "1.0.0",
                "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]] }
            }),
        );
        let before = traces();
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        let result = one.add(&config).ok().json();
        one.check(&config, &result).ok();
        let ips = addresses(&two.add(&config).ok().json());
        for ip in ips {
            exchange(&two.netns, &one.netns, ip).unwrap();
        }
        assert!(reserved().contains(&"10.244.1.2".to_owned()), "{:?}", reserved());
        one.del(&config).ok();
        two.del(&config).ok();
        before.unchanged("at the end");
        assert_eq!(reserved(), Vec::<String>::new());
    });
}

#[test]
fn an_add_that_fails_later_takes_the_delegates_address_back() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({ "cniVersion": "1.0.0", "ipam": { "type": "host-local", "subnet": "10.244.1.0/24" } }),
        );
        let pod = TestPod::new("one");
        // A namespace in which IPv4 forwarding cannot be switched on: /proc/sys is read-only.
        let nothing: Option<&str> = None;
        let read_only = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("/proc/sys"), "/proc/sys", nothing, nix::mount::MsFlags::MS_BIND, nothing).unwrap();
        nix::mount::mount(nothing, "/proc/sys", nothing, read_only, nothing).unwrap();
        let before = traces();
        let (code, msg) = pod.add(&config).error();
        assert_eq!(code, 5, "{msg}");
        assert!(msg.contains("sysctl -w net/ipv4/"), "{msg}");
        before.unchanged("at the end");
        assert_eq!(reserved(), Vec::<String>::new());
    });
}

/// `static` compares the gateways of its config with those of `prevResult`, which are the pod's.
#[test]
fn a_static_address_with_a_gateway_is_checked() {
    sandbox::private_host(|| {
        let addresses_of_static = json!([
            { "address": "10.9.9.9/24", "gateway": "10.9.9.1" }, { "address": "fd09::9/64", "gateway": "fd09::1" },
        ]);
        for (style, seen) in [("link-local", ["169.254.1.1", "fe80::1"]), ("range", ["10.9.9.1", "fd09::1"])] {
            let ipam = json!({ "type": "static", "addresses": addresses_of_static });
            let config = with(dual_stack(), &json!({ "cniVersion": "1.0.0", "gateway": style, "ipam": ipam }));
            let pod = TestPod::new("one");
            let result = pod.add(&config).ok().json();
            assert_eq!([&result["ips"][0]["gateway"], &result["ips"][1]["gateway"]], seen);
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
            kernel::netns::remove_named(&pod.path).unwrap();
        }
    });
}

#[test]
fn a_static_address_outside_of_any_pool() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({ "cniVersion": "1.0.0", "ipam": { "type": "static", "addresses": [{ "address": "10.9.9.9/24" }] } }),
        );
        node_addresses();
        let pod = TestPod::new("one");
        let ips = addresses(&pod.add(&config).ok().json());
        exchange(&pod.netns, &NetNs::current().unwrap(), ips[0]).unwrap();
    });
}

/// `whereabouts` (v0.6, its result of spec version 0.3.1): `version` in each address, no gateway unless one is configured,
/// no routes, and a pod's name needed. What it was asked is kept in a file.
const WHEREABOUTS: &str = r#"#!/bin/sh
input=$(cat)
case "$CNI_ARGS" in *K8S_POD_NAME=*) ;; *) echo '{"code": 999, "msg": "no pod name"}'; exit 1 ;; esac
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $input" >> /run/asked
if [ "$CNI_COMMAND" = ADD ]; then
    echo '{"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.99.0.7/16"}, {"version": "6", "address": "fd99::7/64"}], "dns": {}}'
fi
"#;

#[test]
fn an_ipam_plugin_that_answers_like_whereabouts() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        fs::create_dir("/run/plugins").unwrap();
        // Nothing below /run may be run.
        text("mount", &["-t", "tmpfs", "none", "/run/plugins"]);
        fs::write("/run/plugins/whereabouts", WHEREABOUTS).unwrap();
        fs::set_permissions("/run/plugins/whereabouts", fs::Permissions::from_mode(0o755)).unwrap();
        let ipam = json!({ "type": "whereabouts", "range": "10.99.0.0/16", "datastore": "kubernetes" });
        let config = with(dual_stack(), &json!({ "cniVersion": "0.3.1", "ipam": ipam }));
        let pod = TestPod::new("one");
        let call = |command: &str, config: &Value| {
            let mut env = pod.env(command);
            env.retain(|(name, _)| *name != "CNI_PATH");
            env.push(("CNI_PATH", "/run/plugins".to_owned()));
            env.push(("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0".to_owned()));
            run(&env, config).ok()
        };
        let result = call("ADD", &config).json();
        assert_eq!(addresses(&result), ["10.99.0.7", "fd99::7"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
        for (own, of_node) in addresses(&result).into_iter().zip(node_addresses) {
            let node = NetNs::current().unwrap();
            exchange(&pod.netns, &node, own).unwrap();
            exchange(&node, &pod.netns, of_node).unwrap();
        }
        call("DEL", &config);
        let valid = json!([{ "containerID": "another", "ifname": "eth0" }]);
        call("GC", &with(config, &json!({ "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid.clone() })));
        let asked = fs::read_to_string("/run/asked").unwrap();
        let asked: Vec<&str> = asked.lines().collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
        for (line, verb) in asked.iter().zip(["ADD", "DEL", "GC"]) {
            let (head, input) = line.split_once(" {").unwrap();
            assert!(head.starts_with(&format!("{verb} ")), "{head}");
            let input: Value = serde_json::from_str(&format!("{{{input}")).unwrap();
            assert_eq!(input["ipam"]["range"], "10.99.0.0/16", "the whole config is handed on");
            assert_eq!(input["cni.dev/valid-attachments"] == valid, verb == "GC");
        }
    });
}

/// Why `ipam.type` `dhcp` is refused: what a DHCP client has to send comes from no address, and neither that nor anything
/// else of the kind reaches a server on the node.
#[test]
fn a_dhcp_server_on_the_node_hears_nothing_of_a_pod() {
    const SOCKET: &str = "/run/dhcp.sock";
    sandbox::private_host(|| {
        node_addresses();
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        let server = UdpSocket::bind("0.0.0.0:67").unwrap();
        server.set_nonblocking(true).unwrap();
        let started = |arguments: &[&str]| {
            let mut command = sandbox::command("/usr/lib/cni/dhcp");
            command.args(arguments).envs(pod.env("ADD")).stdin(Stdio::piped());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut daemon = started(&["daemon", "-socketpath", SOCKET]);
        until(|| Path::new(SOCKET).exists(), || "the daemon does not listen".to_owned());
        let before = dropped("ip");
        let mut client = started(&[]);
        let ipam = json!({ "type": "dhcp", "daemonSocketPath": SOCKET });
        let config = json!({ "cniVersion": "1.0.0", "name": "podnet", "type": "podwire", "ipam": ipam }).to_string();
        std::io::Write::write_all(&mut client.stdin.take().unwrap(), config.as_bytes()).unwrap();
        until(|| dropped("ip") > before, || "the client sends nothing, or the guard lets it through".to_owned());
        let heard = server.recv(&mut [0; 1500]).unwrap_err();
        assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
        for child in [&mut client, &mut daemon] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

/// The addresses that host-local has files for.
fn reserved() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/var/lib/cni/networks/podnet") else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut addresses: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    addresses.sort();
    addresses
}
