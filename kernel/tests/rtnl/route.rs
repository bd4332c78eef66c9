use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::Error;
use kernel::rtnl::{Family, Resolved, Route, RouteFilter, Rtnl};
use nix::errno::Errno;
use sandbox::private_host;
use serde_json::Value;

use crate::oracle::{index_of, ip, ip_one, set};
use crate::pod::PROTOCOL;

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A link that is up, with a carrier, and has 192.0.2.1/24 and 2001:db8::1/64.
fn link() -> u32 {
    set("link add left type veth peer name right");
    set("link set right up");
    set("link set left up");
    set("address add 192.0.2.1/24 dev left");
    set("address add 2001:db8::1/64 dev left nodad");
    index_of("left")
}

fn ours() -> RouteFilter {
    RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() }
}

/// One of every kind of route that the plugins need.
fn routes(oif: u32) -> Vec<Route> {
    let route = |dst| Route::new(network(dst), oif, PROTOCOL);
    vec![
        route("10.88.0.2/32"),
        Route { gateway: Some(address("169.254.1.1")), onlink: true, ..route("0.0.0.0/0") },
        Route { gateway: Some(address("192.0.2.9")), metric: Some(77), mtu: Some(1400), ..route("10.1.0.0/16") },
        Route { advmss: Some(1200), prefsrc: Some(address("192.0.2.1")), ..route("10.2.0.0/16") },
        Route { table: Some(100), ..route("10.3.0.0/16") },
        Route { table: Some(70_000), scope: Some(0), ..route("10.4.0.0/16") },
        Route { gateway: Some(address("fe80::9")), onlink: true, ..route("10.5.0.0/16") },
        route("fd88::2/128"),
        Route { gateway: Some(address("fe80::1")), onlink: true, ..route("::/0") },
        Route { gateway: Some(address("2001:db8::9")), metric: Some(77), mtu: Some(1400), ..route("fd01::/64") },
        Route { advmss: Some(1200), prefsrc: Some(address("2001:db8::1")), ..route("fd02::/64") },
        Route { table: Some(70_000), ..route("fd03::/64") },
    ]
}

#[test]
fn every_route_is_read_as_it_was_written_and_deleted_once() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        for route in routes(oif) {
            rtnl.replace_route(&route).unwrap();
            assert_eq!(rtnl.routes(&ours()).unwrap(), std::slice::from_ref(&route), "{route}");
            assert_eq!(route.canonical(), route);
            assert!(rtnl.delete_route(&route).unwrap(), "{route}");
            assert_eq!(rtnl.routes(&ours()).unwrap(), [], "{route}");
            assert!(!rtnl.delete_route(&route).unwrap(), "{route}");
        }
    });
}

#[test]
fn iproute2_shows_what_was_written() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        for route in routes(link()) {
            rtnl.replace_route(&route).unwrap();
        }
        let find = |args: &str, dst: &str| -> Value {
            let list = ip(args);
            let found = list.as_array().unwrap().iter().find(|route| route["dst"] == dst && route["protocol"] == "112");
            found.unwrap_or_else(|| panic!("ip {args}: no {dst}: {list}")).clone()
        };
        let pod = find("-4 route show", "10.88.0.2");
        assert_eq!((&pod["dev"], &pod["scope"]), (&"left".into(), &"253".into()), "{pod}");
        let default = find("-4 route show", "default");
        assert_eq!(default["gateway"], "169.254.1.1", "{default}");
        assert_eq!(default["flags"][0], "onlink", "{default}");
        let metrics = find("-4 route show", "10.1.0.0/16");
        assert_eq!((&metrics["metric"], &metrics["metrics"][0]["mtu"]), (&77.into(), &1400.into()), "{metrics}");
        let source = find("-4 route show", "10.2.0.0/16");
        assert_eq!((&source["prefsrc"], &source["metrics"][0]["advmss"]), (&"192.0.2.1".into(), &1200.into()));
        find("-4 route show table 100", "10.3.0.0/16");
        let far = find("-4 route show table 70000", "10.4.0.0/16");
        assert_eq!(far.get("scope"), Some(&"0".into()), "{far}");
        let via = find("-4 route show", "10.5.0.0/16");
        assert_eq!((&via["via"]["family"], &via["via"]["host"]), (&"inet6".into(), &"fe80::9".into()), "{via}");
        let default = find("-6 route show", "default");
        assert_eq!((&default["gateway"], &default["flags"][0]), (&"fe80::1".into(), &"onlink".into()), "{default}");
        assert_eq!(find("-6 route show", "fd88::2")["metric"], 1024);
        find("-6 route show table 70000", "fd03::/64");
    });
}

#[test]
fn what_iproute2_wrote_is_read() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        let written = [
            (
                "-4 route add 10.9.0.0/16 via 192.0.2.7 proto 112 metric 5",
                "10.9.0.0/16 via 192.0.2.7 dev OIF proto 112 metric 5",
            ),
            ("-4 route add 10.8.0.0/16 dev left proto 112 scope host", "10.8.0.0/16 dev OIF proto 112 scope 254"),
            (
                "-4 route add default via inet6 fe80::7 dev left proto 112",
                "default via inet6 fe80::7 dev OIF proto 112",
            ),
            (
                "-6 route add fd09::/48 via fe80::7 dev left proto 112 table 9",
                "fd09::/48 via fe80::7 dev OIF proto 112 table 9",
            ),
        ];
        for (args, expected) in written {
            set(args);
            let read: Vec<_> = rtnl.routes(&ours()).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(read, [expected.replace("OIF", &oif.to_string())]);
            set(&args.replace("route add", "route del"));
        }
    });
}

#[test]
fn a_route_is_replaced_whoever_made_it() {
    private_host(|| {
        let left = link();
        let right = index_of("right");
        let rtnl = Rtnl::open().unwrap();
        for (dst, foreign) in
            [("10.88.0.2/32", "-4 route add 10.88.0.2 dev right"), ("fd88::2/128", "-6 route add fd88::2 dev right")]
        {
            set(foreign);
            let all = RouteFilter { table: Some(254), ..RouteFilter::default() };
            let of = |rtnl: &Rtnl| -> Vec<Route> {
                rtnl.routes(&all).unwrap().into_iter().filter(|route| route.dst == network(dst)).collect()
            };
            assert_eq!(of(&rtnl).len(), 1);
            assert_eq!(of(&rtnl)[0].oif, right);
            let route = Route::new(network(dst), left, PROTOCOL);
            for _ in 0..2 {
                rtnl.replace_route(&route).unwrap();
                assert_eq!(of(&rtnl), std::slice::from_ref(&route));
            }
        }
    });
}

#[test]
fn a_route_that_differs_is_not_deleted() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        for dst in ["10.88.0.2/32", "fd88::2/128"] {
            let route = Route { metric: Some(50), ..Route::new(network(dst), oif, PROTOCOL) };
            rtnl.replace_route(&route).unwrap();
            let others = [
                Route { protocol: 4, ..route.clone() },
                Route { metric: Some(51), ..route.clone() },
                Route { oif: index_of("right"), ..route.clone() },
                Route { oif: 4711, ..route.clone() },
                Route { table: Some(100), ..route.clone() },
            ];
            for other in others {
                assert!(!rtnl.delete_route(&other).unwrap(), "{other}");
            }
            assert!(rtnl.delete_route(&route).unwrap());
        }
    });
}

#[test]
fn filters_are_kept() {
    private_host(|| {
        let left = link();
        let right = index_of("right");
        let rtnl = Rtnl::open().unwrap();
        set("address add 198.51.100.1/24 dev right");
        set("-4 route add blackhole 10.66.0.0/16 proto 112");
        set("-4 route add unreachable 10.67.0.0/16 proto 112");
        for (dst, oif, table) in [
            ("10.1.0.0/16", left, None),
            ("10.2.0.0/16", right, None),
            ("10.3.0.0/16", left, Some(100)),
            ("fd01::/64", left, None),
        ] {
            rtnl.replace_route(&Route { table, ..Route::new(network(dst), oif, PROTOCOL) }).unwrap();
        }
        let read = |filter| -> Vec<String> {
            let mut read: Vec<_> = rtnl.routes(&filter).unwrap().iter().map(|route| route.dst.to_string()).collect();
            read.sort();
            read
        };
        assert_eq!(read(ours()), ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd01::/64"]);
        assert_eq!(read(RouteFilter { family: Some(Family::Inet6), ..ours() }), ["fd01::/64"]);
        assert_eq!(read(RouteFilter { oif: Some(left), ..ours() }), ["10.1.0.0/16", "10.3.0.0/16", "fd01::/64"]);
        assert_eq!(read(RouteFilter { table: Some(100), ..ours() }), ["10.3.0.0/16"]);
        assert_eq!(
            read(RouteFilter { table: Some(254), family: Some(Family::Inet), ..ours() }),
            ["10.1.0.0/16", "10.2.0.0/16"]
        );
        let kernel = RouteFilter { protocol: Some(2), oif: Some(right), family: Some(Family::Inet), table: None };
        assert_eq!(read(kernel), ["198.51.100.0/24"]);
        assert_eq!(read(RouteFilter { oif: Some(4711), ..ours() }), [""; 0]);
        assert_eq!(read(RouteFilter { table: Some(4711), ..ours() }), [""; 0]);
    });
}

#[test]
fn defaults_and_host_bits_are_canonical() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        for dst in ["10.1.2.3/16", "fd01::9/64"] {
            let long = Route {
                scope: Some(if dst.starts_with('1') { 253 } else { 77 }),
                metric: Some(if dst.starts_with('1') { 0 } else { 1024 }),
                table: Some(254),
                ..Route::new(network(dst), oif, PROTOCOL)
            };
            rtnl.replace_route(&long).unwrap();
            let short =
                Route::new(network(if dst.starts_with('1') { "10.1.0.0/16" } else { "fd01::/64" }), oif, PROTOCOL);
            assert_eq!(rtnl.routes(&ours()).unwrap(), std::slice::from_ref(&short));
            assert_eq!(long.canonical(), short);
            assert!(rtnl.delete_route(&long).unwrap());
        }
    });
}

#[test]
fn a_refused_route_is_printed_with_the_kernels_words() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        let route =
            Route { gateway: Some(address("203.0.113.1")), ..Route::new(network("10.1.0.0/16"), oif, PROTOCOL) };
        let error = rtnl.replace_route(&route).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot replace the route 10.1.0.0/16 via 203.0.113.1 dev {oif} proto 112")
        );
        let Error::ReplaceRoute { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.errno(), Some(Errno::ENETUNREACH));
        assert_eq!(source.to_string(), "Network is unreachable: Nexthop has invalid gateway");
    });
}

#[test]
fn route_to_is_what_iproute2_gets() {
    private_host(|| {
        let oif = link();
        let rtnl = Rtnl::open().unwrap();
        set("-4 route add default via 192.0.2.254 mtu 1300");
        set("-6 route add default via 2001:db8::fe mtu 1400");
        set("-4 route add 10.5.0.0/16 via inet6 fe80::9 dev left");
        set("-4 route add unreachable 10.66.0.0/16");
        set("-4 route add blackhole 10.67.0.0/16");
        set("-4 route add prohibit 10.68.0.0/16");
        set("-6 route add unreachable fd66::/64");
        set("-6 route add blackhole fd67::/64");
        let resolved = |to: &str| rtnl.route_to(address(to)).unwrap();
        for to in ["8.8.8.8", "192.0.2.77", "2001:db8::77", "2a00::1"] {
            let shown = ip_one(&format!("route get {to}"));
            let parse = |value: &Value| value.as_str().map(address);
            let mtu = shown["metrics"][0]["mtu"].as_u64().map(|mtu| mtu.try_into().unwrap());
            assert_eq!(mtu.is_some(), shown["gateway"].is_string(), "{shown}");
            let expected = Resolved { oif, prefsrc: parse(&shown["prefsrc"]), gateway: parse(&shown["gateway"]), mtu };
            assert_eq!(resolved(to), Some(expected), "{to}: {shown}");
        }
        let via = Resolved { oif, prefsrc: Some(address("192.0.2.1")), gateway: Some(address("fe80::9")), mtu: None };
        assert_eq!(resolved("10.5.0.1"), Some(via));
        assert_eq!(resolved("127.0.0.1").unwrap().oif, 1);
        assert_eq!(resolved("192.0.2.1").unwrap().oif, 1);
        for to in ["10.66.0.1", "10.67.0.1", "10.68.0.1", "fd66::1", "fd67::1", "0.0.0.0", "::"] {
            assert_eq!(resolved(to), None, "{to}");
        }
        set("-4 route del default");
        set("-6 route del default");
        assert_eq!(resolved("8.8.8.8"), None);
        assert_eq!(resolved("2a00::1"), None);
    });
}

#[test]
fn a_local_route_comes_and_goes_by_its_interface() {
    private_host(|| {
        let left = link();
        let right = index_of("right");
        let rtnl = Rtnl::open().expect("a socket");
        for own in ["192.0.2.200", "::1"].map(address) {
            let has = |oif| rtnl.has_local_route(own, oif).expect("readable");
            assert!(!has(left) && !has(right));
            assert!(rtnl.add_local_route(own, left, PROTOCOL).expect("possible"));
            assert!(!rtnl.add_local_route(own, left, PROTOCOL).expect("there already"));
            assert!(rtnl.add_local_route(own, right, PROTOCOL).expect("another interface"));
            assert!(has(left) && has(right));
            assert!(rtnl.delete_local_route(own, left, PROTOCOL).expect("possible"));
            assert!(!rtnl.delete_local_route(own, left, PROTOCOL).expect("gone already"));
            assert!(!has(left) && has(right));
        }
        assert!(!rtnl.has_local_route(address("::1"), 999).expect("no such interface"));
        assert!(!rtnl.delete_local_route(address("::1"), 999, PROTOCOL).expect("no such interface"));
    });
}
