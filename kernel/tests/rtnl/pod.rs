//! A named namespace with an end of a veth pair, as a pod has it.

use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnetwork::IpNetwork;
use kernel::netns::{self, NetNs};
use kernel::rtnl::{Route, Rtnl, VethIndexes, VethPair};
use macaddr::MacAddr6;

pub const HOST_MAC: MacAddr6 = MacAddr6::new(0x0a, 0, 0, 0, 0, 0x01);
pub const POD_MAC: MacAddr6 = MacAddr6::new(0x0a, 0, 0, 0, 0, 0x02);
/// The route protocol of the tests.
pub const PROTOCOL: u8 = 112;

/// A pod whose `eth0` is up and has no address yet. Its host end is called "veth-NAME".
pub struct Pod {
    pub netns: NetNs,
    /// Opened inside, used from outside.
    pub rtnl: Rtnl,
    pub veth: VethIndexes,
}

impl Pod {
    pub fn new(host: &Rtnl, name: &str) -> Self {
        let netns = netns::create_named(format!("/run/netns/{name}")).expect("a fresh name");
        let rtnl = netns.run(Rtnl::open).expect("can be entered").expect("a socket");
        let pair = VethPair {
            host: &format!("veth-{name}"),
            host_mac: HOST_MAC,
            peer: "eth0",
            peer_mac: POD_MAC,
            peer_netns: netns.as_fd(),
            mtu: None,
            arp: true,
            alias: "",
        };
        let veth = host.create_veth(&pair).expect("fresh names");
        for index in [1, veth.peer] {
            rtnl.set_up(index).expect("lo and eth0 exist");
        }
        host.wait_for_carrier(veth.host).expect("both ends are up");
        rtnl.wait_for_carrier(veth.peer).expect("both ends are up");
        Self { netns, rtnl, veth }
    }

    /// Default route and neighbour inside, host route and neighbour outside; all but the pod's address.
    pub fn connect(&self, host: &Rtnl, address: IpAddr) {
        let (gateway, default): (IpAddr, &str) = match address {
            IpAddr::V4(_) => ("169.254.1.1".parse().expect("an address"), "0.0.0.0/0"),
            IpAddr::V6(_) => ("fe80::1".parse().expect("an address"), "::/0"),
        };
        let default = default.parse().expect("a network");
        self.rtnl
            .replace_route(&Route {
                gateway: Some(gateway),
                onlink: true,
                ..Route::new(default, self.veth.peer, PROTOCOL)
            })
            .expect("eth0 is up");
        self.rtnl.replace_neighbour(self.veth.peer, gateway, HOST_MAC).expect("eth0 is there");
        host.replace_route(&Route::new(IpNetwork::from(address), self.veth.host, PROTOCOL))
            .expect("the host end is up");
        host.replace_neighbour(self.veth.host, address, POD_MAC).expect("the host end is there");
    }
}
