//! As the IPAM plugin of the reference main plugins, which run the executable.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use cni_spec::SpecVersion;
use kernel::netns;
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
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), conf.to_string().as_bytes()).unwrap();
    child
}

fn run(plugin: &str, verb: &str, container: &str, conf: &Value) -> Answer {
    Answer::of(&start(plugin, verb, container, conf).wait_with_output().unwrap())
}

fn addresses_in(container: &str) -> String {
    let output = sandbox::command("ip").args(["-n", container, "-o", "addr", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Every version that the reference plugins of Debian speak, and both families.
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
        for container in &containers {
            let _netns = netns::create_named(format!("/run/netns/{container}")).unwrap();
            let added = run(plugin, "ADD", container, &conf);
            let leases = place.leases();
            let lease = leases.iter().find(|lease| lease.attachment.container_id.as_str() == container).unwrap();
            let held: Vec<_> = lease.ips().collect();
            assert_eq!(added.addresses(), held, "{plugin} {version:?}");
            let seen = addresses_in(container);
            for recorded in &lease.addresses {
                assert!(seen.contains(&recorded.address.ip().to_string()), "{plugin} {version:?}: {seen}");
            }
            if version >= SpecVersion::V0_4_0 {
                let mut check = conf.clone();
                check["prevResult"] = added.json;
                let checked = run(plugin, "CHECK", container, &check);
                assert!(checked.success, "{checked:?}");
            }
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
