//! As the IPAM plugin of the reference main plugins, which run the executable.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cni_spec::SpecVersion;
use kernel::netns::{self, NetNs};
use serde_json::{Value, json};

use crate::support::{Answer, Place};

const REFERENCE: &str = "/usr/lib/cni";

/// The folder with podwire-ipam, and the reference plugins'.
fn cni_path() -> String {
    let own = Path::new(env!("CARGO_BIN_EXE_podwire-ipam")).parent().unwrap();
    format!("{}:{REFERENCE}", own.display())
}

fn start(plugin: &str, verb: &str, container: &str, conf: &Value) -> Child {
    let mut process: Command = sandbox::command(format!("{REFERENCE}/{plugin}"));
    process.envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")]);
    process.env("CNI_NETNS", format!("/run/netns/{container}")).env("CNI_PATH", cni_path());
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    child
}

fn run(plugin: &str, verb: &str, container: &str, conf: &Value) -> Answer {
    Answer::of(&start(plugin, verb, container, conf).wait_with_output().unwrap())
}

fn addresses_in(container: &str) -> String {
    let output = sandbox::command("ip").args(["-n", container, "-o", "addr", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The address that a pod sees another come from, by a connection between them.
fn seen_by(server: (&NetNs, IpAddr), client: &NetNs) -> IpAddr {
    let (pod, address) = server;
    let listener = pod.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        // A bridge's port and a neighbour may take their time.
        match client.run(|| TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(5))).unwrap() {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
    };
    let (mut accepted, peer) = listener.accept().unwrap();
    stream.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    accepted.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    peer.ip()
}

/// Every version that the reference plugins of Debian speak, both families, and packets from pod to pod.
fn serves(plugin: &str, keys: &Value) {
    let place = Place::new();
    for version in [SpecVersion::V0_3_1, SpecVersion::V0_4_0, SpecVersion::V1_0_0] {
        let mut conf = place.json(
            "n",
            &json!({
                "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "fd00::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            }),
        );
        conf["cniVersion"] = version.as_str().into();
        conf["type"] = plugin.into();
        conf.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let containers = ["p1", "p2"].map(|pod| format!("{plugin}-{pod}-{}", version.as_str().replace('.', "")));
        let mut pods: Vec<(NetNs, Vec<IpAddr>)> = Vec::new();
        for container in &containers {
            let netns = netns::create_named(format!("/run/netns/{container}")).unwrap();
            let added = run(plugin, "ADD", container, &conf);
            let leases = place.leases();
            let lease = leases.iter().find(|lease| lease.attachment.container_id.as_str() == container).unwrap();
            let held: Vec<_> = lease.ips().collect();
            assert_eq!(added.addresses(), held, "{plugin} {version:?}");
            let seen = addresses_in(container);
            for recorded in &lease.addresses {
                assert!(seen.contains(&recorded.address.ip().to_string()), "{plugin} {version:?}: {seen}");
            }
            pods.push((netns, held));
            if version >= SpecVersion::V0_4_0 {
                let mut check = conf.clone();
                check["prevResult"] = added.json;
                let checked = run(plugin, "CHECK", container, &check);
                assert!(checked.success, "{checked:?}");
            }
        }
        let [(one, addresses), (other, others)] = &pods[..] else { panic!("two pods") };
        for (address, others) in addresses.iter().zip(others) {
            assert_eq!(seen_by((other, *others), one), *address, "{plugin} {version:?}");
            assert_eq!(seen_by((one, *address), other), *others, "{plugin} {version:?}");
        }
        for container in &containers {
            assert!(run(plugin, "DEL", container, &conf).success, "{plugin} {version:?}");
        }
        assert_eq!(place.leases(), [], "{plugin} {version:?}");
    }
}

#[test]
fn ptp_runs_it() {
    sandbox::private_host(|| serves("ptp", &json!({})));
}

#[test]
fn bridge_runs_it() {
    sandbox::private_host(|| serves("bridge", &json!({ "bridge": "br0", "isGateway": true })));
}

/// The pods are stations of their own on the node's link.
#[test]
fn macvlan_runs_it() {
    sandbox::private_host(|| {
        for words in ["link add uplink type veth peer name wire", "link set uplink up", "link set wire up"] {
            assert!(sandbox::command("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        }
        serves("macvlan", &json!({ "master": "uplink", "mode": "bridge" }));
    });
}
