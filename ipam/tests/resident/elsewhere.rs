//! An owner that lives in other namespaces than the plugins, as in a container: it must not take for gone what it cannot
//! see.

use std::path::Path;
use std::process::Stdio;

use cni_spec::CniArgs;
use ipam::{LeaseRequest, Netns};
use kernel::netns;
use serde_json::{Value, json};

use crate::support::{Owner, Place, age, attachment, ip};

/// A pool of one address.
fn conf() -> Value {
    json!({ "podCIDR": "10.1.2.0/30", "cooldownSeconds": 0 })
}

fn owner_in(place: &Place, unshare: &[&str], script: &str) -> Owner {
    let mut process = sandbox::command("unshare");
    process.args(unshare).args(["sh", "-c", &format!("{script}\nexec \"$@\""), "sh"]);
    process
        .arg(env!("CARGO_BIN_EXE_ipam"))
        .args(["serve", "--create", "--dir"])
        .arg(place.data_dir())
        .stdin(Stdio::null());
    Owner::started(process)
}

/// A lease of a pod that no process lives in, older than any ADD takes.
fn pod_at(place: &Place, path: &Path) {
    netns::create_named(path).unwrap();
    let request = LeaseRequest { attachment: attachment("n", "c1"), netns: Netns::at(path), args: CniArgs::default() };
    place.ipam("n", &conf()).lease(&request).unwrap();
    age(&place.data_dir(), "c1");
}

#[test]
fn where_links_or_processes_are_others_it_serves_no_plugin() {
    sandbox::private_host(|| {
        let place = Place::new();
        place.undisturbed(|| {
            pod_at(&place, Path::new("/run/netns/pod"));
            let conf = place.json("n", &conf());
            for (which, unshare) in
                [("net", &["--net"][..]), ("pid", &["--pid", "--fork", "--kill-child", "--mount-proc"])]
            {
                let owner = owner_in(&place, unshare, ":");
                let refused = place.run("ADD", "c2", &conf);
                let (code, message) = refused.error();
                let expected = format!("lives in another {which} namespace than this plugin");
                assert!(code == 11 && message.contains(&expected), "{refused:?}");
                assert!(refused.json["details"].as_str().unwrap().contains("hostNetwork"), "{refused:?}");
                assert_eq!(place.run("STATUS", "", &conf).error().0, 50);
                assert!(place.run("DEL", "c2", &conf).success);
                assert_eq!(place.leases().len(), 1, "{which}: the command may look");
                drop(owner);
                // With --fork it has died with its parent, a moment later.
                assert_eq!(place.run("ADD", "c2", &conf).error().0, 100, "{which}: directly, and the pod lives");
            }
        });
    });
}

/// As under `ProtectSystem=` of a unit, but that nothing is propagated.
#[test]
fn where_paths_lead_elsewhere_it_looks_as_the_plugin_does() {
    sandbox::private_host(|| {
        let place = Place::new();
        place.undisturbed(|| {
            let path = Path::new("/run/netns/pod");
            pod_at(&place, path);
            let conf = place.json("n", &conf());
            let _owner = owner_in(&place, &["--mount", "--propagation", "private"], "umount /run/netns/pod");
            let refused = place.run("ADD", "c2", &conf);
            assert_eq!(refused.error(), (100, "no free address in 10.1.2.0/30: all 1 are leased"));
            assert!(netns::remove_named(path).unwrap());
            assert!(place.run("STATUS", "", &conf).success);
            assert_eq!(place.run("ADD", "c2", &conf).addresses(), [ip("10.1.2.2")], "it is gone for the plugin");
        });
    });
}
