use std::net::IpAddr;

use kernel::Error;
use kernel::rtnl::{Neighbour, Rtnl};
use nix::errno::Errno;
use sandbox::private_host;

use crate::oracle::{index_of, ip, set};
use crate::pod::{HOST_MAC, POD_MAC};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn neighbours_are_permanent_and_replaced() {
    private_host(|| {
        set("link add left type veth peer name right");
        set("link set left up");
        set("link set right up");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        for to in ["169.254.1.1", "fe80::1"] {
            for mac in [HOST_MAC, POD_MAC] {
                rtnl.replace_neighbour(left, address(to), mac).unwrap();
                let shown = ip(&format!("neighbour show dev left to {to}"));
                assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
                assert_eq!(shown[0]["lladdr"], mac.to_string().to_lowercase(), "{shown}");
                assert_eq!(shown[0]["state"][0], "PERMANENT", "{shown}");
                let expected = Neighbour { index: left, address: address(to), mac: Some(mac), permanent: true };
                assert!(rtnl.neighbours(left).unwrap().contains(&expected));
            }
        }
        // Somebody else's entry that came first is taken over.
        set("neighbour add 10.88.0.2 lladdr 0a:00:00:00:00:07 nud reachable dev left");
        let read = |rtnl: &Rtnl| rtnl.neighbours(left).unwrap().into_iter().find(|n| n.address == address("10.88.0.2"));
        assert_eq!(read(&rtnl).map(|neighbour| neighbour.permanent), Some(false));
        rtnl.replace_neighbour(left, address("10.88.0.2"), POD_MAC).unwrap();
        let expected = Neighbour { index: left, address: address("10.88.0.2"), mac: Some(POD_MAC), permanent: true };
        assert_eq!(read(&rtnl), Some(expected));
    });
}

#[test]
fn only_the_interface_that_was_asked_for_is_listed() {
    private_host(|| {
        set("link add left type veth peer name right");
        set("link set left up");
        set("link set right up");
        let rtnl = Rtnl::open().unwrap();
        rtnl.replace_neighbour(index_of("left"), address("10.0.0.1"), HOST_MAC).unwrap();
        rtnl.replace_neighbour(index_of("right"), address("10.0.0.2"), POD_MAC).unwrap();
        let of = |name| -> Vec<IpAddr> {
            let neighbours = rtnl.neighbours(index_of(name)).unwrap();
            neighbours.into_iter().filter(|n| n.permanent).map(|n| n.address).collect()
        };
        assert_eq!(of("left"), [address("10.0.0.1")]);
        assert_eq!(of("right"), [address("10.0.0.2")]);
        assert_eq!(rtnl.neighbours(4711).unwrap(), []);
        let all = rtnl.all_neighbours().unwrap();
        for name in ["left", "right"] {
            let of_one = rtnl.neighbours(index_of(name)).unwrap();
            // The kernel's own, of multicast groups, come in between.
            let mut set_here = of_one.iter().filter(|neighbour| neighbour.permanent);
            assert!(set_here.all(|neighbour| all.contains(neighbour)), "{of_one:?} {all:?}");
        }
    });
}

#[test]
fn a_missing_interface_takes_no_neighbour() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let error = rtnl.replace_neighbour(4711, address("10.0.0.1"), HOST_MAC).unwrap_err();
        assert!(
            matches!(error, Error::ReplaceNeighbour { ref source, .. } if source.errno() == Some(Errno::ENODEV)),
            "{error:?}"
        );
    });
}
