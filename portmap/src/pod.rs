//! The pod's addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::{CniResult, IfName, IpConfig};
use nft_model::Family;

/// Where host ports lead: the first address of each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pod {
    /// The IPv4 address, if the pod has one.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address, if the pod has one.
    pub v6: Option<Ipv6Addr>,
}

impl Pod {
    /// The addresses that earlier plugins of the chain gave to `ifname`: those of an interface of that name inside
    /// a sandbox, and those of no interface at all, as results before 0.3.0 and some plugins have them.
    #[must_use]
    pub fn of(result: &CniResult, ifname: &IfName) -> Self {
        let on_interface = |ip: &&IpConfig| match ip.interface {
            None => true,
            Some(index) => result.interfaces.get(index).is_some_and(|interface| {
                interface.name == ifname.as_str() && interface.sandbox.as_ref().is_some_and(|path| !path.is_empty())
            }),
        };
        let mut pod = Self::default();
        for ip in result.ips.iter().filter(on_interface) {
            match ip.address.ip() {
                IpAddr::V4(address) => pod.v4 = pod.v4.or(Some(address)),
                IpAddr::V6(address) => pod.v6 = pod.v6.or(Some(address)),
            }
        }
        pod
    }

    /// The address of this family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ip => self.v4.map(IpAddr::V4),
            Family::Ip6 => self.v6.map(IpAddr::V6),
        }
    }
}
