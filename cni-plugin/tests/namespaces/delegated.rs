//! Other IPAM plugins, run as executables: the reference `host-local` and `static`.

use crate::common::{TestPod, addresses, dual_stack, exchange, node_addresses, traces, with};
use kernel::netns::NetNs;
use serde_json::json;

#[test]
fn host_local_gives_and_takes_back() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({
                "cniVersion": "1.0.0",
                "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]] }
            }),
        );
        let before = traces();
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        let result = one.add(&config).ok().json();
        one.check(&config, &result).ok();
        let ips = addresses(&two.add(&config).ok().json());
        for ip in ips {
            exchange(&two.netns, &one.netns, ip).unwrap();
        }
        assert!(reserved().contains(&"10.244.1.2".to_owned()), "{:?}", reserved());
        one.del(&config).ok();
        two.del(&config).ok();
        before.unchanged("at the end");
        assert_eq!(reserved(), Vec::<String>::new());
    });
}

#[test]
fn an_add_that_fails_later_takes_the_delegates_address_back() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({ "cniVersion": "1.0.0", "ipam": { "type": "host-local", "subnet": "10.244.1.0/24" } }),
        );
        let pod = TestPod::new("one");
        // A namespace in which IPv4 forwarding cannot be switched on: /proc/sys is read-only.
        let nothing: Option<&str> = None;
        let read_only = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("/proc/sys"), "/proc/sys", nothing, nix::mount::MsFlags::MS_BIND, nothing).unwrap();
        nix::mount::mount(nothing, "/proc/sys", nothing, read_only, nothing).unwrap();
        let before = traces();
        let (code, msg) = pod.add(&config).error();
        assert_eq!(code, 5, "{msg}");
        assert!(msg.contains("sysctl -w net/ipv4/"), "{msg}");
        before.unchanged("at the end");
        assert_eq!(reserved(), Vec::<String>::new());
    });
}

#[test]
fn a_static_address_outside_of_any_pool() {
    sandbox::private_host(|| {
        let config = with(
            dual_stack(),
            &json!({ "cniVersion": "1.0.0", "ipam": { "type": "static", "addresses": [{ "address": "10.9.9.9/24" }] } }),
        );
        node_addresses();
        let pod = TestPod::new("one");
        let ips = addresses(&pod.add(&config).ok().json());
        exchange(&pod.netns, &NetNs::current().unwrap(), ips[0]).unwrap();
    });
}

/// The addresses that host-local has files for.
fn reserved() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/var/lib/cni/networks/podnet") else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut addresses: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    addresses.sort();
    addresses
}
