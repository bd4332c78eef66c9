//! The stage itself, and every kind of reply on it.

#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use podwire_examples::exchange::Reply;
use podwire_examples::manifest::Protocol::{self, Tcp, Udp};
use podwire_examples::server::Servers;
use podwire_examples::stage::{Stage, ask};

const PATIENCE: Duration = Duration::from_secs(30);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn every_kind_of_reply_is_told_apart() {
    sandbox::private_host(|| {
        let stage = Stage::build().unwrap();
        let from_client =
            |protocol: Protocol, to: &str, patience| ask(&stage.client, protocol, address(to), patience).unwrap();
        for (to, seen) in [("198.51.100.1:80", "192.168.50.2"), ("[2001:db8:51::1]:80", "fd50::2")] {
            let Reply::Answer(answer) = from_client(Tcp, to, PATIENCE) else { panic!("{to}") };
            assert_eq!(answer.name, "outside");
            assert_eq!(answer.peer.ip(), seen.parse::<IpAddr>().unwrap());
            assert_eq!(answer.local, address(to));
        }
        for to in ["192.168.50.1:9", "[fd50::1]:9"] {
            assert_eq!(from_client(Tcp, to, PATIENCE), Reply::Refused, "{to}");
            assert_eq!(from_client(Udp, to, PATIENCE), Reply::Refused, "{to}");
        }
        for (to, router) in [("10.244.1.2:80", "192.168.50.254"), ("[fd00:10:244:1::2]:80", "fd50::254")] {
            let expected = Reply::Unreachable { by: Some(router.parse().unwrap()) };
            assert_eq!(from_client(Tcp, to, PATIENCE), expected, "{to}");
            assert_eq!(from_client(Udp, to, PATIENCE), expected, "{to}");
        }
        let own = ask(&stage.router, Tcp, address("10.244.1.2:80"), PATIENCE).unwrap();
        assert_eq!(own, Reply::Unreachable { by: None });
    });
}

#[test]
fn udp_is_answered_from_the_address_that_was_asked_and_silence_ends_by_the_deadline() {
    sandbox::private_host(|| {
        let stage = Stage::build().unwrap();
        let addresses = [(Udp, address("192.168.50.3:53")), (Udp, address("[fd50::3]:53"))];
        let servers = Servers::start("dns", &stage.node.netns, &addresses).unwrap();
        for (_, to) in addresses {
            let Reply::Answer(answer) = ask(&stage.client, Udp, to, PATIENCE).unwrap() else { panic!("{to}") };
            assert_eq!((answer.name.as_str(), answer.local), ("dns", to));
        }
        drop(servers);
        for (_, to) in addresses {
            assert_eq!(ask(&stage.client, Udp, to, PATIENCE).unwrap(), Reply::Refused, "the port is free again");
        }
        // 192.168.50.77 is nobody's: the client asks who has it until its patience ends.
        let patience = Duration::from_millis(50);
        assert_eq!(ask(&stage.client, Tcp, address("192.168.50.77:1"), patience).unwrap(), Reply::Silence(patience));
    });
}
