//! Kernel settings that plugins touch and that outlive interfaces. Not forwarding: it is the node's, every plugin that
//! routes needs it on, and whoever switches it off with the last pod takes it from others. (A first pod of the other
//! family switches it on for that one.)

use std::collections::BTreeMap;
use std::fs;

/// Values by their paths below `/proc/sys/net`.
pub type Settings = BTreeMap<String, String>;

/// Of the folders `all`, `default` and `lo` of each family; those of other interfaces go with them.
const OF_INTERFACES: [(&str, &[&str]); 2] = [
    ("ipv4", &["arp_ignore", "arp_announce", "arp_notify", "proxy_arp", "route_localnet", "rp_filter"]),
    ("ipv6", &["accept_dad", "accept_ra", "disable_ipv6", "proxy_ndp"]),
];

/// Of the whole host.
const OF_HOST: [&str; 3] =
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables", "ipv4/ip_nonlocal_bind"];

/// What they are now; what the kernel does not have is left out.
#[must_use]
pub fn read() -> Settings {
    let of_interfaces = OF_INTERFACES.iter().flat_map(|(family, names)| {
        names.iter().flat_map(move |name| ["all", "default", "lo"].map(|link| format!("{family}/conf/{link}/{name}")))
    });
    let paths = of_interfaces.chain(OF_HOST.map(str::to_owned));
    paths
        .filter_map(|path| fs::read_to_string(format!("/proc/sys/net/{path}")).ok().map(|value| (path, value)))
        .collect()
}

/// Lines for those that are not as they were.
pub fn changed(before: &Settings) -> impl Iterator<Item = String> {
    let now = read().into_iter().filter(|(path, value)| before.get(path) != Some(value));
    now.map(|(path, value)| format!("sysctl net.{} = {}", path.replace('/', "."), value.trim()))
}
