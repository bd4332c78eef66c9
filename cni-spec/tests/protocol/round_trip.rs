//! Any result, written in any version and read again: the same, but for what that version cannot say.

use cni_spec::{CniResult, Dns, Interface, IpConfig, Route, SpecVersion};
use ipnetwork::IpNetwork;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What is left of a result in a version: the losses that `CniResult::to_json` documents, and no others.
fn said_in(mut result: CniResult, version: SpecVersion) -> CniResult {
    if version < SpecVersion::V1_1_0 {
        for interface in &mut result.interfaces {
            (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
        }
        for route in &mut result.routes {
            *route = Route { dst: route.dst, gw: route.gw, ..crate::results::route("::/0", None) };
        }
    }
    if version < SpecVersion::V0_3_0 {
        let first = |ipv4: bool| result.ips.iter().find(move |ip| ip.address.is_ipv4() == ipv4);
        let ips: Vec<IpConfig> = [first(true), first(false)]
            .into_iter()
            .flatten()
            .map(|ip| IpConfig { interface: None, ..ip.clone() })
            .collect();
        let routes = ips.iter().flat_map(|ip| result.routes.iter().filter(|route| of_one_family(ip, route)));
        return CniResult { routes: routes.cloned().collect(), ips, interfaces: Vec::new(), dns: result.dns };
    }
    result
}

fn of_one_family(ip: &IpConfig, route: &Route) -> bool {
    ip.address.is_ipv4() == route.dst.is_ipv4()
}

fn network() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(address, prefix)| IpNetwork::new(address.into(), prefix)),
        (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(address, prefix)| IpNetwork::new(address.into(), prefix)),
    ]
    .prop_map(|network| network.expect("a prefix length of the family"))
}

/// Any text but the empty one, which stands for none.
fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("empty", |text| !text.is_empty())
}

prop_compose! {
    fn interface()(name in any::<String>(), mac in option::of(text()), mtu in any::<Option<u32>>(),
        sandbox in option::of(text()), socket_path in option::of(text()), pci_id in option::of(text())) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn ip_config()(address in network(), gateway in any::<Option<std::net::IpAddr>>(),
        interface in option::of(0..10_usize)) -> IpConfig {
        IpConfig { address, gateway, interface }
    }
}

prop_compose! {
    fn route()(dst in network(), gw in any::<Option<std::net::IpAddr>>(), mtu in any::<Option<u32>>(),
        advmss in any::<Option<u32>>(), priority in any::<Option<u32>>(), table in any::<Option<u32>>(),
        scope in any::<Option<u8>>()) -> Route {
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

prop_compose! {
    fn dns()(nameservers in vec(any::<String>(), 0..3), domain in option::of(text()),
        search in vec(any::<String>(), 0..3), options in vec(any::<String>(), 0..3)) -> Dns {
        Dns { nameservers, domain, search, options }
    }
}

prop_compose! {
    fn result()(interfaces in vec(interface(), 0..4), ips in vec(ip_config(), 0..5), routes in vec(route(), 0..5),
        dns in dns()) -> CniResult {
        CniResult { interfaces, ips, routes, dns }
    }
}

proptest! {
    #[test]
    fn the_newest_version_loses_nothing(result in result()) {
        let json = result.to_json(SpecVersion::V1_1_0).expect("a document");
        let text = json.to_string();
        let again = CniResult::from_json(&serde_json::from_str(&text).expect("JSON"), SpecVersion::V0_1_0);
        prop_assert_eq!(again, Ok(result));
    }

    #[test]
    fn older_versions_lose_what_they_cannot_say(result in result()) {
        for version in SpecVersion::ALL {
            match result.to_json(version) {
                Ok(json) => {
                    let again = CniResult::from_json(&json, SpecVersion::LATEST);
                    prop_assert_eq!(again, Ok(said_in(result.clone(), version)), "{}", version);
                }
                Err(_) => prop_assert!(version < SpecVersion::V0_3_0 && result.ips.is_empty()),
            }
        }
    }

    #[test]
    fn converting_twice_loses_no_more(result in result()) {
        for version in SpecVersion::ALL {
            let Ok(json) = result.to_json(version) else { continue };
            let once = CniResult::from_json(&json, SpecVersion::LATEST).expect("a result");
            prop_assert_eq!(once.to_json(version), Ok(json), "{}", version);
        }
    }
}
