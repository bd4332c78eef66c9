use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kernel::Error;
use kernel::netns::{self, NetNs};
use kernel::rtnl::Rtnl;
use sandbox::private_host;

use crate::oracle::{ip, set};

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).expect("exists").ino()
}

#[test]
fn open_finds_what_iproute2_made() {
    private_host(|| {
        set("netns add blue");
        let blue = NetNs::open("/run/netns/blue").unwrap();
        assert_eq!(blue.inode(), inode("/run/netns/blue"));
        assert!(blue.is_same_as(&NetNs::open("/run/netns/blue").unwrap()));
        let own = NetNs::current().unwrap();
        assert_eq!(own.inode(), inode("/proc/self/ns/net"));
        assert!(own.is_same_as(&NetNs::open("/proc/self/ns/net").unwrap()));
        assert!(!own.is_same_as(&blue));
    });
}

#[test]
fn open_tells_apart_what_is_no_network_namespace() {
    private_host(|| {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("file"), "").unwrap();
        nix::unistd::mkfifo(&place("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();

        for path in [place("missing"), place("file/below"), "/proc/4194305/ns/net".into()] {
            let error = NetNs::open(&path).unwrap_err();
            assert!(matches!(&error, Error::NetnsMissing { path: named } if *named == path), "{path:?}: {error:?}");
            assert_eq!(
                error.to_string(),
                format!("there is no network namespace at {}: the path does not exist", path.display())
            );
        }
        let others: [PathBuf; 6] = [
            place("file"),
            place("fifo"),
            place("socket"),
            folder.path().into(),
            "/dev/null".into(),
            "/proc/self/status".into(),
        ];
        for path in others {
            let error = NetNs::open(&path).unwrap_err();
            assert!(
                matches!(&error, Error::NetnsNotANamespace { path: named } if *named == path),
                "{path:?}: {error:?}"
            );
        }
        for kind in ["mnt mount", "pid pid", "user user", "uts uts", "ipc ipc", "cgroup cgroup", "time time"] {
            let (file, kind) = kind.split_once(' ').unwrap();
            let path = format!("/proc/self/ns/{file}");
            let error = NetNs::open(&path).unwrap_err();
            assert_eq!(error.to_string(), format!("{path} is a {kind} namespace, not a network namespace"));
        }
    });
}

#[test]
fn run_is_inside_and_the_caller_stays_outside() {
    private_host(|| {
        let outside = inode("/proc/thread-self/ns/net");
        let blue = netns::create_named("/run/netns/blue").unwrap();
        let mut borrowed = 0;
        let inside = blue.run(|| {
            borrowed += 1;
            inode("/proc/thread-self/ns/net")
        });
        assert_eq!((inside.unwrap(), borrowed), (blue.inode(), 1));
        assert_eq!(inode("/proc/thread-self/ns/net"), outside);

        let panic = std::panic::catch_unwind(|| blue.run(|| panic!("the work failed"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the work failed"));
        assert_eq!(inode("/proc/thread-self/ns/net"), outside);
    });
}

#[test]
fn what_is_opened_inside_goes_on_working_outside() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        set("-n blue link set lo up");
        let (rtnl, listener) =
            blue.run(|| (Rtnl::open().unwrap(), TcpListener::bind("127.0.0.1:8080").unwrap())).unwrap();
        set("-n blue link add inside type veth peer name inside-too");
        let names: Vec<_> = rtnl.links().unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["lo", "inside-too", "inside"]);
        assert!(rtnl.link("inside").unwrap().is_some());
        assert!(Rtnl::open().unwrap().link("inside").unwrap().is_none());
        // A connection that waits for an address waits inside, too.
        let index = rtnl.link("inside").unwrap().unwrap().index;
        rtnl.set_up(index).unwrap();
        rtnl.add_address(index, "fd00::1/64".parse().unwrap()).unwrap();
        assert!(std::net::TcpStream::connect("127.0.0.1:8080").is_err());
        blue.run(|| std::net::TcpStream::connect("127.0.0.1:8080").unwrap()).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn a_namespace_outlives_its_path() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        assert!(netns::remove_named("/run/netns/blue").unwrap());
        assert_eq!(blue.run(|| inode("/proc/thread-self/ns/net")).unwrap(), blue.inode());
        assert!(blue.as_fd().try_clone_to_owned().is_ok());
    });
}

#[test]
fn named_namespaces_are_those_of_iproute2() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        assert_eq!(ip("netns list")[0]["name"], "blue");
        assert_eq!(blue.inode(), inode("/run/netns/blue"));
        assert_eq!(ip("-n blue link show")[0]["ifname"], "lo");

        let error = netns::create_named("/run/netns/blue").unwrap_err();
        assert!(matches!(error, Error::NetnsFile { .. }), "{error:?}");
        assert_eq!(blue.inode(), inode("/run/netns/blue"));

        assert!(netns::remove_named("/run/netns/blue").unwrap());
        assert!(!fs::exists("/run/netns/blue").unwrap());
        assert!(!netns::remove_named("/run/netns/blue").unwrap());
        assert!(!netns::remove_named("/run/nowhere/blue").unwrap());

        let elsewhere = netns::create_named("/run/pods/deep/blue").unwrap();
        assert!(elsewhere.is_same_as(&NetNs::open("/run/pods/deep/blue").unwrap()));
        assert!(netns::remove_named("/run/pods/deep/blue").unwrap());
    });
}

#[test]
fn remove_named_takes_namespaces_and_their_empty_files_only() {
    private_host(|| {
        fs::write("/run/netns/unmounted", "").unwrap();
        assert!(netns::remove_named("/run/netns/unmounted").unwrap());
        assert!(!fs::exists("/run/netns/unmounted").unwrap());

        fs::write("/run/netns/notes", "mine").unwrap();
        let error = netns::remove_named("/run/netns/notes").unwrap_err();
        assert!(matches!(error, Error::NetnsNotANamespace { .. }), "{error:?}");
        assert_eq!(fs::read_to_string("/run/netns/notes").unwrap(), "mine");
    });
}

#[test]
fn a_failed_creation_leaves_nothing() {
    private_host(|| {
        fs::write("/run/file", "").unwrap();
        let error = netns::create_named("/run/file/blue").unwrap_err();
        assert!(matches!(error, Error::NetnsFile { .. }), "{error:?}");
        assert_eq!(fs::read_dir("/run/netns").unwrap().count(), 0);
    });
}
