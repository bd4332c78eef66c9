use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};

use kernel::conntrack::{Conntrack, Filter};
use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft_model::{Family, Proto};
use sandbox::private_host;

use crate::missing;
use crate::parts::list;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET` (linux/netfilter/nfnetlink_conntrack.h).
const GET: u16 = 1 << 8 | 1;
/// An `nfgenmsg` of IPv4.
const IPV4: [u8; 4] = [2, 0, 0, 0];

/// The destination port of a flow as it began.
fn port_in(message: &[u8]) -> Option<u16> {
    let inside = |attributes: &[u8], wanted: u16| {
        let mut all = NlasIterator::new(attributes).map_while(Result::ok);
        all.find(|attribute| attribute.kind() == wanted).map(|attribute| attribute.value().to_vec())
    };
    let [tuple_orig, tuple_proto, dst_port] = [1, 2, 3];
    let port = inside(&inside(&inside(&message[20..], tuple_orig)?, tuple_proto)?, dst_port)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

/// The kernel remembers which flow is next, not which place it has (`ctnetlink_dump_table`).
#[test]
fn lists_of_flows_are_whole_whichever_go() {
    private_host(|| {
        for line in [
            "add table ip t",
            "add chain ip t c { type filter hook output priority 0 ; }",
            "add rule ip t c ct state new accept",
        ] {
            assert!(sandbox::command("nft").args(line.split(' ')).status().expect("nft").success());
        }
        // Nobody answers, and the kernel's half a minute for that may be over before all are deleted.
        kernel::sysctl::set("net/netfilter/nf_conntrack_udp_timeout", "600").expect("set");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let all: BTreeSet<u16> = (20_001..=21_000).collect();
        for port in &all {
            socket.send_to(b"", (Ipv4Addr::LOCALHOST, *port)).expect("sent");
        }
        let gone: BTreeSet<u16> = all.iter().filter(|port| **port % 4 == 0).copied().collect();
        let mut tracking = Conntrack::open().expect("a socket");
        let listed = list(NETLINK_NETFILTER, GET, &IPV4, port_in, |_| {
            for port in &gone {
                let (protocol, original_port) = (Some(Proto::Udp), Some(*port));
                let filter = Filter { protocol, original_port, ..Filter::of(Family::Ip) };
                tracking.delete_matching(&filter).expect("deleted");
            }
        });
        assert!(listed.all.len() < all.len(), "the list was over before the first went");
        assert_eq!(missing(&all, &gone, listed.all), Vec::<u16>::new());
    });
}
