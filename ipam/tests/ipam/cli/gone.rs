//! Which pods count as gone: `gc` and `release` must not take a living one for dead.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use cni_spec::CniArgs;
use ipam::{LeaseRequest, Netns};
use kernel::netns;
use serde_json::json;

use super::populated;
use crate::support::{Place, attachment, until};

const GC: [&str; 5] = ["gc", "--min-age", "0s", "--apply", "--yes"];

/// A process that lives in a network namespace; it ends when it is dropped.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(name: &str) -> Self {
        let mut process = sandbox::command("ip");
        process.args(["netns", "exec", name, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // What comes back proves that it lives there by now.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"here\n").unwrap();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self(child)
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As under a main plugin that marks no link, seen from where the pod's path does not lead: another mount namespace.
#[test]
fn a_pod_whose_processes_live_is_not_gone_when_its_path_is() {
    sandbox::private_host(|| {
        let place = Place::new();
        let path = std::path::Path::new("/run/netns/pod");
        netns::create_named(path).unwrap();
        let pod = Inhabitant::of("pod");
        let attachment = attachment("n", "living");
        let request = LeaseRequest { attachment, netns: Netns::at(path), args: CniArgs::default() };
        place.ipam("n", &json!({ "podCIDR": "10.1.2.0/24" })).lease(&request).unwrap();
        assert!(netns::remove_named(path).unwrap());
        let collected = place.cli(&GC);
        assert_eq!((collected.code, collected.stdout.as_str()), (0, ""), "{collected:?}");
        let refused = place.cli(&["release", "10.1.2.2", "--yes"]);
        assert_eq!((refused.code, refused.stderr.contains("its network namespace is there")), (7, true), "{refused:?}");
        assert_eq!(place.document(&["verify"])["items"], json!([]), "nothing to say about a living pod");
        assert_eq!(place.leases().len(), 1);
        drop(pod);
        // The kernel gives the namespace's number to the next one, which may be another test's for a while.
        until("it is gone", || {
            let found = place.document(&["gc", "--min-age", "0s"]);
            let signs = &found["items"][0]["signs"];
            assert!(signs.is_null() || *signs == json!(["its network namespace is gone", "no process lives in it"]));
            !signs.is_null()
        });
        until("its lease has ended", || place.cli(&GC).code == 0 && place.leases().is_empty());
    });
}

#[test]
fn what_cannot_be_seen_is_not_gone() {
    sandbox::private_host(|| {
        let place = populated();
        let path = place.netns("plain");
        fs::remove_file(&path).unwrap();
        // An error that is not "there is no such file", for root too.
        symlink(&path, &path).unwrap();
        let collected = place.cli(&GC);
        assert_eq!((collected.code, collected.stdout.as_str()), (0, ""), "{collected:?}");
        assert!(collected.stderr.contains("of 1 lease nobody can tell"), "{collected:?}");
        let refused = place.cli(&["release", "10.9.0.2", "--yes"]);
        assert_eq!(refused.code, 7, "{refused:?}");
        assert!(refused.stderr.contains("nobody can tell whether its network namespace is there: "), "{refused:?}");
        assert_eq!(place.leases().len(), 3);
        fs::remove_file(&path).unwrap();
        assert_eq!(place.cli(&GC).stdout, "released 10.9.0.2 of container plain, interface eth0, network blue\n");
    });
}

/// As host-local's leases are that the runtime's cache does not know.
#[test]
fn a_lease_that_does_not_know_its_namespace_is_ended_by_force_only() {
    sandbox::private_host(|| {
        let place = Place::new();
        let network = place.data_dir().with_file_name("podnet");
        fs::create_dir_all(&network).unwrap();
        fs::write(network.join("10.1.2.2"), "c1\r\neth0").unwrap();
        let cache = place.data_dir().with_file_name("results");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("other"), "{}").unwrap();
        let from = format!("host-local:{}", network.display());
        assert_eq!(place.cli(&["import", &from, "--cache-dir", cache.to_str().unwrap(), "--yes"]).code, 0);
        assert_eq!(place.cli(&GC).stdout, "");
        let found = place.document(&["verify", "--cache-dir", cache.to_str().unwrap()]);
        assert_eq!(found["items"][0]["severity"], "warning", "{found:#}");
        assert_eq!(found["items"][0]["fix"], "if the pod is gone: ipam release 10.1.2.2 --force");
        let refused = place.cli(&["release", "10.1.2.2", "--yes"]);
        assert_eq!((refused.code, refused.stderr.contains("the lease does not know it")), (7, true), "{refused:?}");
        assert_eq!(place.leases().len(), 1);
        assert_eq!(place.cli(&["release", "10.1.2.2", "--yes", "--force"]).code, 0);
        assert!(place.leases().is_empty());
    });
}

#[test]
fn from_other_namespaces_nobody_is_gone() {
    sandbox::private_host(|| {
        let place = populated();
        for container in ["0a1b2c3d4e5f60718293", "1b2c3d4e", "plain"] {
            fs::remove_file(place.netns(container)).unwrap();
        }
        for (which, unshare) in
            [("net", &["--net"][..]), ("mnt", &["--mount"]), ("pid", &["--pid", "--fork", "--mount-proc"])]
        {
            let from_there = |arguments: &[&str]| {
                let mut process = sandbox::command("unshare");
                process.args(unshare).arg(env!("CARGO_BIN_EXE_ipam")).args(arguments);
                process.args(["--conf-dir", "/nowhere", "--dir"]).arg(place.data_dir()).stdin(Stdio::null());
                let output = process.output().unwrap();
                (output.status.code(), String::from_utf8(output.stderr).unwrap())
            };
            let (code, said) = from_there(&GC);
            assert_eq!((code, said.contains("of 3 leases nobody can tell")), (Some(0), true), "{which}: {said}");
            let (code, said) = from_there(&["release", "10.1.2.2", "--yes"]);
            let expected = format!("it was seen from another {which} namespace than this one");
            assert_eq!((code, said.contains(&expected)), (Some(7), true), "{said}");
            assert_eq!(place.leases().len(), 3, "{which}");
        }
        assert_eq!(place.cli(&GC).code, 0);
        assert!(place.leases().is_empty(), "from where they were seen");
    });
}
