//! Which flows a filter takes, and that no other is touched.

use std::net::IpAddr;

use kernel::conntrack::{Conntrack, Filter};
use nft_model::{Family, Proto};
use sandbox::private_host;

use crate::oracle::{conntrack, source_ports};

/// A flow as conntrack(8) makes one: from the client at `sport` to `dst`, answered by `pod`.
fn insert(protocol: &str, sport: u16, dst: (&str, u16), pod: (&str, u16)) {
    let client = if dst.0.contains(':') { "2001:db8::9" } else { "192.0.2.9" };
    let state = if protocol == "tcp" { "--state ESTABLISHED" } else { "" };
    conntrack(&format!(
        "-I -p {protocol} -s {client} -d {} --sport {sport} --dport {} -r {} -q {client} \
         --reply-port-src {} --reply-port-dst {sport} -t 600 -u SEEN_REPLY,ASSURED {state}",
        dst.0, dst.1, pod.0, pod.1
    ));
}

/// Flows that differ from the first in one thing each.
fn flows() {
    insert("udp", 1, ("192.0.2.1", 53), ("10.88.0.2", 5353));
    insert("udp", 2, ("192.0.2.2", 53), ("10.88.0.2", 5353));
    insert("udp", 3, ("192.0.2.1", 54), ("10.88.0.2", 5353));
    insert("udp", 4, ("192.0.2.1", 53), ("10.88.0.3", 5353));
    insert("udp", 5, ("192.0.2.1", 53), ("10.88.0.2", 5354));
    insert("tcp", 6, ("192.0.2.1", 53), ("10.88.0.2", 5353));
    insert("udp", 7, ("192.0.2.1", 53), ("192.0.2.1", 53));
    insert("udp", 8, ("2001:db8::1", 53), ("fd88::2", 5353));
    insert("udp", 9, ("2001:db8::1", 53), ("fd88::3", 5353));
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Filters, and the source ports of the flows that each takes.
fn cases() -> Vec<(Filter, Vec<u16>)> {
    let v4 = Filter::of(Family::Ip);
    let udp = Filter { protocol: Some(Proto::Udp), ..v4 };
    let v6 = Filter { protocol: Some(Proto::Udp), ..Filter::of(Family::Ip6) };
    vec![
        (v4, vec![1, 2, 3, 4, 5, 6, 7]),
        (udp, vec![1, 2, 3, 4, 5, 7]),
        (Filter { original_port: Some(53), ..udp }, vec![1, 2, 4, 5, 7]),
        (Filter { original_dst: address("192.0.2.1"), original_port: Some(53), ..udp }, vec![1, 4, 5, 7]),
        (Filter { reply_src: address("10.88.0.2"), ..v4 }, vec![1, 2, 3, 5, 6]),
        (
            Filter { original_port: Some(53), reply_src: address("10.88.0.2"), reply_port: Some(5353), ..udp },
            vec![1, 2],
        ),
        (Filter { protocol: Some(Proto::Tcp), original_port: Some(53), ..v4 }, vec![6]),
        (Filter { protocol: Some(Proto::Sctp), ..v4 }, vec![]),
        (Filter { original_port: Some(53), ..v4 }, vec![1, 2, 4, 5, 6, 7]),
        (Filter { reply_src: address("fd88::2"), ..v6 }, vec![8]),
        (Filter { original_dst: address("2001:db8::1"), ..v6 }, vec![8, 9]),
    ]
}

#[test]
fn what_a_filter_takes_is_listed_and_deleted_and_nothing_else() {
    private_host(|| {
        let mut tracking = Conntrack::open().unwrap();
        for (filter, expected) in cases() {
            flows();
            let mut listed: Vec<u16> =
                tracking.flows(&filter).unwrap().iter().map(|flow| flow.original.src.port()).collect();
            listed.sort_unstable();
            assert_eq!(listed, expected, "{filter}");
            tracking.delete_matching(&filter).unwrap();
            let left: Vec<u16> = (1..=9).filter(|port| !expected.contains(port)).collect();
            assert_eq!([source_ports("ipv4"), source_ports("ipv6")].concat(), left, "{filter}");
            conntrack("-F");
        }
    });
}

#[test]
fn one_flow_is_deleted_once() {
    private_host(|| {
        let mut tracking = Conntrack::open().unwrap();
        flows();
        let all = tracking.flows(&Filter::of(Family::Ip)).unwrap();
        let one = all.iter().find(|flow| flow.original.src.port() == 4).unwrap();
        assert!(tracking.delete(one).unwrap());
        assert!(!tracking.delete(one).unwrap());
        assert_eq!(source_ports("ipv4"), [1, 2, 3, 5, 6, 7]);
    });
}

#[test]
fn where_nothing_is_tracked_nothing_is_found() {
    private_host(|| {
        let mut tracking = Conntrack::open().unwrap();
        assert_eq!(tracking.flows(&Filter::of(Family::Ip)).unwrap(), []);
        tracking.delete_matching(&Filter::of(Family::Ip6)).unwrap();
    });
}
