use std::os::fd::AsFd;

use kernel::Error;
use kernel::netns;
use kernel::rtnl::{Rtnl, VethPair};
use nix::errno::Errno;
use sandbox::private_host;
use serde_json::Value;

use crate::oracle::{index, ip, ip_one, set};
use crate::pod::{HOST_MAC, POD_MAC};

fn is_up(link: &Value) -> bool {
    link["flags"].as_array().expect("flags").iter().any(|flag| flag == "UP")
}

#[test]
fn the_pair_is_complete_with_the_peer_inside() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        let rtnl = Rtnl::open().unwrap();
        let pair = VethPair {
            host: "pwhost",
            host_mac: HOST_MAC,
            peer: "eth0",
            peer_mac: POD_MAC,
            peer_netns: blue.as_fd(),
            mtu: Some(1400),
            arp: true,
            alias: "podwire net id eth0",
        };
        let made = rtnl.create_veth(&pair).unwrap();
        let (host, peer) = (ip_one("link show dev pwhost"), ip_one("-n blue link show dev eth0"));
        assert_eq!((made.host, made.peer), (index(&host), index(&peer)));
        assert_eq!(host["address"], "0a:00:00:00:00:01");
        assert_eq!(peer["address"], "0a:00:00:00:00:02");
        assert_eq!((&host["mtu"], &peer["mtu"]), (&1400.into(), &1400.into()));
        assert_eq!(host["ifalias"], "podwire net id eth0");
        assert_eq!(host["link_index"], made.peer);
        assert_eq!(peer["link_index"], made.host);
        assert!(is_up(&host) && !is_up(&peer));
        assert_eq!(ip("link show").as_array().unwrap().len(), 2);
        assert_eq!(rtnl.link("pwhost").unwrap().unwrap().link_netnsid, Some(0));
    });
}

#[test]
fn mtu_and_alias_may_be_left_out_and_the_peer_may_be_in_the_same_namespace() {
    private_host(|| {
        let own = netns::NetNs::current().unwrap();
        let rtnl = Rtnl::open().unwrap();
        let pair = VethPair {
            host: "left",
            host_mac: HOST_MAC,
            peer: "right",
            peer_mac: POD_MAC,
            peer_netns: own.as_fd(),
            mtu: None,
            arp: true,
            alias: "",
        };
        let made = rtnl.create_veth(&pair).unwrap();
        let (left, right) = (ip_one("link show dev left"), ip_one("link show dev right"));
        assert_eq!((made.host, made.peer), (index(&left), index(&right)));
        assert_eq!(left["mtu"], 1500);
        assert_eq!(left.get("ifalias"), None);
    });
}

#[test]
fn a_taken_name_is_named_and_what_has_it_is_left_alone() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        set("link add pwhost type veth peer name other");
        set("-n blue link add eth0 type veth peer name other");
        let rtnl = Rtnl::open().unwrap();
        let (before, inside) = (ip("link show"), ip("-n blue link show"));
        for (host, taken) in [("pwhost", "pwhost"), ("pwfree", "eth0")] {
            let pair = VethPair {
                host,
                host_mac: HOST_MAC,
                peer: "eth0",
                peer_mac: POD_MAC,
                peer_netns: blue.as_fd(),
                mtu: Some(1400),
                arp: true,
                alias: "podwire net id eth0",
            };
            let error = rtnl.create_veth(&pair).unwrap_err();
            assert!(matches!(error, Error::LinkExists { ref name } if name == taken), "{host}: {error:?}");
        }
        assert_eq!(ip("link show"), before);
        assert_eq!(ip("-n blue link show"), inside);
    });
}

#[test]
fn a_refused_pair_leaves_nothing() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        let rtnl = Rtnl::open().unwrap();
        let good = VethPair {
            host: "pwhost",
            host_mac: HOST_MAC,
            peer: "eth0",
            peer_mac: POD_MAC,
            peer_netns: blue.as_fd(),
            mtu: None,
            arp: true,
            alias: "",
        };
        let long = "x".repeat(300);
        let not_a_namespace = std::fs::File::open("/dev/null").unwrap();
        let refused = [
            (VethPair { mtu: Some(1_000_000), ..good }, Errno::EINVAL),
            (VethPair { alias: &long, ..good }, Errno::ERANGE),
            (VethPair { peer: "a/b", ..good }, Errno::EINVAL),
            (VethPair { peer_netns: not_a_namespace.as_fd(), ..good }, Errno::EINVAL),
        ];
        for (pair, errno) in refused {
            let error = rtnl.create_veth(&pair).unwrap_err();
            assert!(
                matches!(error, Error::CreateVeth { ref source, .. } if source.errno() == Some(errno)),
                "{pair:?}: {error:?}"
            );
            assert_eq!(ip("link show").as_array().unwrap().len(), 1, "{pair:?}");
            assert_eq!(ip("-n blue link show").as_array().unwrap().len(), 1, "{pair:?}");
        }
        rtnl.create_veth(&good).unwrap();
    });
}
