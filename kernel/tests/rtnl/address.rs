use ipnetwork::IpNetwork;
use kernel::Error;
use kernel::rtnl::{Address, Rtnl};
use nix::errno::Errno;
use sandbox::private_host;
use serde_json::Value;

use crate::oracle::{index_of, ip_one, set};
use crate::pod::Pod;

/// "ADDRESS/PREFIX" of every address that iproute2 shows.
fn shown(args: &str) -> Vec<String> {
    let addresses = &ip_one(args)["addr_info"];
    let text = |address: &Value| format!("{}/{}", address["local"].as_str().expect("a text"), address["prefixlen"]);
    addresses.as_array().expect("a list").iter().map(text).collect()
}

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

#[test]
fn addresses_are_what_iproute2_shows() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        for address in ["10.88.0.2/32", "10.99.1.7/24", "fd88::2/128", "fd99::7/64"] {
            pod.rtnl.add_address(pod.veth.peer, network(address)).unwrap();
        }
        let shown = shown("-n blue address show dev eth0");
        let mut read: Vec<_> =
            pod.rtnl.addresses(pod.veth.peer).unwrap().iter().map(|address| address.network.to_string()).collect();
        for address in ["10.88.0.2/32", "10.99.1.7/24", "fd88::2/128", "fd99::7/64"] {
            assert!(read.iter().any(|found| found == address), "{address}: {read:?}");
        }
        read.sort();
        let mut sorted = shown;
        sorted.sort();
        assert_eq!(read, sorted);
        let lo: Vec<_> = pod.rtnl.addresses(1).unwrap().iter().map(|address| address.network.to_string()).collect();
        assert_eq!(lo, ["127.0.0.1/8", "::1/128"]);
        pod.rtnl.add_address(1, network("fd00::1/128")).unwrap();
        assert!(pod.rtnl.addresses(1).unwrap().iter().any(|address| address.network == network("fd00::1/128")));
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_has_no_duplicate_detection() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        pod.rtnl.add_address(pod.veth.peer, network("fd88::2/128")).unwrap();
        let expected = Address { network: network("fd88::2/128"), tentative: false };
        assert!(pod.rtnl.addresses(pod.veth.peer).unwrap().contains(&expected));
        let shown = ip_one("-n blue address show dev eth0 to fd88::2");
        assert_eq!(shown["addr_info"][0]["nodad"], true, "{shown}");
        assert_eq!(shown["addr_info"][0].get("tentative"), None, "{shown}");
    });
}

#[test]
fn a_tentative_address_is_told_as_such() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        set("-n blue address add fd88::2/64 dev eth0");
        let addresses = pod.rtnl.addresses(pod.veth.peer).unwrap();
        assert!(addresses.contains(&Address { network: network("fd88::2/64"), tentative: true }), "{addresses:?}");
    });
}

#[test]
fn an_address_that_is_there_is_a_typed_error() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        for address in ["10.88.0.2/32", "fd88::2/128"] {
            pod.rtnl.add_address(pod.veth.peer, network(address)).unwrap();
            let error = pod.rtnl.add_address(pod.veth.peer, network(address)).unwrap_err();
            assert!(matches!(error, Error::AddressExists { .. }), "{address}: {error:?}");
        }
    });
}

#[test]
fn addresses_are_deleted() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        for address in ["10.88.0.2/32", "fd88::2/128"] {
            pod.rtnl.add_address(pod.veth.peer, network(address)).unwrap();
            assert!(pod.rtnl.delete_address(pod.veth.peer, network(address)).unwrap());
            assert!(!shown("-n blue address show dev eth0").contains(&address.to_owned()));
            assert!(!pod.rtnl.delete_address(pod.veth.peer, network(address)).unwrap());
        }
        assert!(!pod.rtnl.delete_address(4711, network("10.88.0.2/32")).unwrap());
        assert!(!pod.rtnl.delete_address(4711, network("fd88::2/128")).unwrap());
    });
}

#[test]
fn a_missing_interface_has_no_addresses_and_takes_none() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        assert_eq!(rtnl.addresses(4711).unwrap(), []);
        for address in ["10.88.0.2/32", "fd88::2/128"] {
            let error = rtnl.add_address(4711, network(address)).unwrap_err();
            assert!(
                matches!(error, Error::AddAddress { index: 4711, ref source, .. } if source.errno() == Some(Errno::ENODEV)),
                "{address}: {error:?}"
            );
        }
    });
}

#[test]
fn ipv6_that_is_switched_off_is_refused_without_waiting() {
    private_host(|| {
        set("link add left type veth peer name right");
        kernel::sysctl::set("net/ipv6/conf/left/disable_ipv6", "1").unwrap();
        let rtnl = Rtnl::open().unwrap();
        let error = rtnl.add_address(index_of("left"), network("fd88::2/128")).unwrap_err();
        assert!(
            matches!(error, Error::AddAddress { ref source, .. } if source.errno() == Some(Errno::EACCES)),
            "{error:?}"
        );
    });
}

#[test]
fn an_interface_that_is_down_takes_addresses() {
    private_host(|| {
        set("link add left type veth peer name right");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        for address in ["10.88.0.2/32", "fd88::2/128"] {
            rtnl.add_address(left, network(address)).unwrap();
        }
        assert_eq!(shown("address show dev left"), ["10.88.0.2/32", "fd88::2/128"]);
    });
}

#[test]
fn many_addresses_in_a_row_are_each_waited_for() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let pod = Pod::new(&rtnl, "blue");
        // More announcements than waiting needs: every address after the first finds those of others.
        for number in 1..=300_u32 {
            pod.rtnl.add_address(pod.veth.peer, network(&format!("fd88::{number:x}/128"))).unwrap();
        }
        let addresses = pod.rtnl.addresses(pod.veth.peer).unwrap();
        assert_eq!(addresses.iter().filter(|address| address.network.prefix() == 128).count(), 300);
    });
}
