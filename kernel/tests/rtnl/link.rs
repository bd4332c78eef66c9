use kernel::Error;
use kernel::netns;
use kernel::rtnl::Rtnl;
use nix::errno::Errno;
use sandbox::private_host;

use crate::oracle::{index_of, ip, ip_one, set};

#[test]
fn links_are_what_iproute2_shows() {
    private_host(|| {
        set("link add br0 address 0a:00:00:00:00:09 mtu 1400 type bridge");
        set("link add left address 0a:00:00:00:00:01 type veth peer name right");
        set("link set left alias one\u{a0}word");
        set("link set right up");
        let rtnl = Rtnl::open().unwrap();
        let links = rtnl.links().unwrap();
        let shown = ip("link show");
        assert_eq!(links.len(), shown.as_array().unwrap().len());
        for (link, shown) in links.iter().zip(shown.as_array().unwrap()) {
            assert_eq!(link.name, shown["ifname"]);
            assert_eq!(link.index, shown["ifindex"]);
            assert_eq!(link.mtu, shown["mtu"]);
            assert_eq!(link.mac.unwrap().to_string().to_lowercase(), shown["address"]);
            assert_eq!(link.alias.as_deref(), shown["ifalias"].as_str());
            assert_eq!(link.kind.as_deref(), shown["linkinfo"]["info_kind"].as_str());
            let flags = shown["flags"].as_array().unwrap();
            assert_eq!(link.carrier, shown["operstate"] == "UP");
            assert_eq!(link.up, flags.iter().any(|flag| flag == "UP"), "{flags:?}");
            assert_eq!(rtnl.link(&link.name).unwrap().as_ref(), Some(link));
            assert_eq!(rtnl.link_by_index(link.index).unwrap().as_ref(), Some(link));
        }
        let left = rtnl.link("left").unwrap().unwrap();
        assert_eq!(left.link_index, Some(index_of("right")));
        assert_eq!(left.link_netnsid, None);
        let veths: Vec<_> = rtnl.links_of_kind("veth").unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(veths, ["right", "left"]);
        assert_eq!(rtnl.links_of_kind("no-such-kind").unwrap(), []);
    });
}

#[test]
fn links_are_changed_and_deleted() {
    private_host(|| {
        set("link add left type veth peer name right");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        rtnl.set_up(left).unwrap();
        rtnl.set_mtu(left, 1234).unwrap();
        rtnl.set_alias(left, "podwire net id eth0").unwrap();
        let shown = ip_one("link show dev left");
        assert!(shown["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"));
        assert_eq!(shown["mtu"], 1234);
        assert_eq!(shown["ifalias"], "podwire net id eth0");
        rtnl.set_alias(left, "").unwrap();
        assert_eq!(rtnl.link("left").unwrap().unwrap().alias, None);

        assert!(rtnl.delete_link(left).unwrap());
        assert_eq!(ip("link show").as_array().unwrap().len(), 1);
        assert!(!rtnl.delete_link(left).unwrap());
    });
}

#[test]
fn a_missing_link_is_none_and_changing_it_an_error_with_its_index() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        assert_eq!(rtnl.link("missing").unwrap(), None);
        assert_eq!(rtnl.link_by_index(4711).unwrap(), None);
        assert!(!rtnl.delete_link(4711).unwrap());
        let error = rtnl.set_up(4711).unwrap_err();
        assert_eq!(error.to_string(), "cannot change the state of the interface with index 4711");
        assert!(
            matches!(error, Error::ChangeLink { index: 4711, ref source, .. } if source.errno() == Some(Errno::ENODEV))
        );
        let error = rtnl.link("a-name-beyond-15-bytes").unwrap_err();
        assert!(matches!(error, Error::ReadLink { ref link, .. } if link == "a-name-beyond-15-bytes"), "{error:?}");
    });
}

#[test]
fn a_carrier_comes_with_the_peer() {
    private_host(|| {
        set("link add left type veth peer name right");
        set("link set left up");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        assert!(!rtnl.link("left").unwrap().unwrap().carrier);
        let error = rtnl.wait_for_carrier(left).unwrap_err();
        assert_eq!(error.to_string(), format!("the interface with index {left} got no carrier within 3000 ms"));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Rtnl::open().unwrap().wait_for_carrier(left));
            set("link set right up");
            waiting.join().unwrap().unwrap();
        });
        assert!(rtnl.link("left").unwrap().unwrap().carrier);
        let error = rtnl.wait_for_carrier(4711).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the interface with index 4711");
    });
}

#[test]
fn a_refusal_has_the_kernels_own_words() {
    private_host(|| {
        set("link add left type veth peer name right");
        let rtnl = Rtnl::open().unwrap();
        let Err(Error::ChangeLink { source, .. }) = rtnl.set_mtu(index_of("left"), 1_000_000) else {
            panic!("veth takes no such MTU");
        };
        assert_eq!(source.errno(), Some(Errno::EINVAL));
        assert_eq!(source.to_string(), "Invalid argument: mtu greater than device maximum");
    });
}

#[test]
fn an_interface_is_renamed_while_it_is_up() {
    private_host(|| {
        set("link add left type veth peer name right");
        set("link set left up");
        let rtnl = Rtnl::open().unwrap();
        let left = index_of("left");
        rtnl.rename_link(left, "other").unwrap();
        assert_eq!(index_of("other"), left);
        assert!(rtnl.link("other").unwrap().unwrap().up);
        assert!(matches!(rtnl.rename_link(left, "right"), Err(Error::ChangeLink { .. })));
    });
}

/// Interfaces of two namespaces have the same numbers, and the links that lead there tell them apart.
#[test]
fn the_other_end_is_told_by_its_number_and_its_namespace() {
    private_host(|| {
        let namespaces = ["blue", "red"].map(|name| netns::create_named(format!("/run/netns/{name}")).unwrap());
        let rtnl = Rtnl::open().unwrap();
        assert_eq!(rtnl.netns_id(&namespaces[0]).unwrap(), None, "nothing leads there yet");
        for name in ["blue", "red"] {
            set(&format!("link add to-{name} type veth peer name eth0 index 7 netns {name}"));
        }
        let links = ["to-blue", "to-red"].map(|name| rtnl.link(name).unwrap().unwrap());
        let ids = namespaces.each_ref().map(|netns| rtnl.netns_id(netns).unwrap());
        assert!(ids.iter().all(Option::is_some) && ids[0] != ids[1], "{ids:?}");
        assert_eq!(rtnl.netns_id(netns::NetNs::current().unwrap()).unwrap(), None);
        for (at, (link, netns)) in links.iter().zip(&namespaces).enumerate() {
            let inside = netns.run(Rtnl::open).unwrap().unwrap();
            let end = inside.link("eth0").unwrap().unwrap();
            assert!(link.leads_to(&end, ids[at]) && !link.leads_to(&end, ids[1 - at]) && !link.leads_to(&end, None));
            for (rtnl, link, other) in [(&rtnl, link, &end), (&inside, &end, link)] {
                let found = rtnl.other_end(link).unwrap().unwrap();
                assert_eq!((&found.name, found.index, found.mac), (&other.name, other.index, other.mac));
            }
        }
        set("link del to-red");
        assert_eq!(rtnl.other_end(&links[1]).unwrap(), None);
        set("link add left type veth peer name right");
        let (left, right) = (rtnl.link("left").unwrap().unwrap(), rtnl.link("right").unwrap().unwrap());
        assert_eq!(rtnl.other_end(&left).unwrap(), Some(right));
        assert_eq!(rtnl.other_end(&rtnl.link("lo").unwrap().unwrap()).unwrap(), None);
    });
}
