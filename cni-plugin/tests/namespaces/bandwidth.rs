//! How fast a pod is, by bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::common::{DEADLINE, TestPod, addresses, dual_stack, node_addresses, shown, text, traces, with};

/// 8 Mbit/s: a megabyte a second.
const RATE: u64 = 8_000_000;

/// What is sent.
const BYTES: usize = 2_000_000;

/// The bucket, what may wait behind it, and what is on its way when the clock stops: far more than any of them.
const SLACK: usize = 600_000;

fn limited(direction: &str) -> Value {
    let asked = json!({ format!("{direction}Rate"): RATE, format!("{direction}Burst"): u32::MAX });
    with(dual_stack(), &json!({ "ipMasq": false, "runtimeConfig": { "bandwidth": asked } }))
}

/// Sends from one namespace to another. The sender's clock would stop when its buffers have taken everything, so that of
/// the receiver counts.
fn transfer(from: &NetNs, to: &NetNs, address: IpAddr) -> Duration {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let target = SocketAddr::new(address, listener.local_addr().unwrap().port());
    let mut sender = from.run(|| TcpStream::connect_timeout(&target, DEADLINE)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(6 * DEADLINE)).unwrap();
    // Before the first byte: a late clock would take what waits for the receiver for fast.
    let start = Instant::now();
    let sending = std::thread::spawn(move || sender.write_all(&vec![0; BYTES]).unwrap());
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    let took = start.elapsed();
    sending.join().unwrap();
    assert_eq!(received.len(), BYTES);
    took
}

/// How long these bytes take at least at that rate.
fn at_least() -> Duration {
    Duration::from_secs_f64((BYTES - SLACK) as f64 / (RATE / 8) as f64)
}

#[test]
fn a_pod_sends_and_receives_no_faster_than_it_may() {
    sandbox::private_host(|| {
        let node_addresses = node_addresses();
        let node = NetNs::current().unwrap();
        for direction in ["ingress", "Egress"] {
            let pod = TestPod::new(&direction.to_lowercase());
            let before = traces();
            let config = limited(direction);
            let result = pod.add(&config).ok().json();
            for (own, of_node) in addresses(&result).into_iter().zip(node_addresses) {
                let slow = match direction {
                    "ingress" => transfer(&node, &pod.netns, own),
                    _ => transfer(&pod.netns, &node, of_node),
                };
                assert!(slow >= at_least(), "{direction} to or from {own}: {slow:?}");
            }
            pod.check(&config, &result).ok();
            pod.del(&config).ok();
            before.unchanged(direction);
        }
    });
}

#[test]
fn the_other_direction_is_not_limited() {
    sandbox::private_host(|| {
        let [node_address, _] = node_addresses();
        let node = NetNs::current().unwrap();
        let pod = TestPod::new("one");
        let result = pod.add(&limited("ingress")).ok().json();
        transfer(&pod.netns, &node, node_address);
        let shaped =
            shown("tc", &["-s", "-j", "qdisc", "show", "dev", result["interfaces"][0]["name"].as_str().unwrap()]);
        assert_eq!((&shaped[0]["kind"], &shaped[0]["options"]["rate"]), (&json!("tbf"), &json!(RATE / 8)));
        let in_pod = text("ip", &["netns", "exec", "one", "tc", "qdisc", "show", "dev", "eth0"]);
        assert!(!in_pod.contains("tbf"), "{in_pod}");
    });
}

#[test]
fn a_check_misses_the_limit() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let both = json!({ "IngressRate": RATE, "IngressBurst": RATE, "EgressRate": 2 * RATE, "EgressBurst": RATE });
        let config = with(dual_stack(), &json!({ "ipMasq": false, "runtimeConfig": { "bandwidth": both } }));
        let result = pod.add(&config).ok().json();
        pod.check(&config, &result).ok();
        let link = result["interfaces"][0]["name"].as_str().unwrap();
        text("tc", &["qdisc", "delete", "dev", link, "root"]);
        text(
            "ip",
            &[
                "netns", "exec", "one", "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "1gbit",
                "burst", "1mb", "limit", "1mb",
            ],
        );
        let checked = pod.check(&config, &result);
        let details = checked.json()["details"].as_str().unwrap().to_owned();
        assert_eq!(checked.error().0, 110);
        assert!(
            details.contains(&format!("tc qdisc replace dev {link} root")) && details.contains("no token bucket"),
            "{details}"
        );
        assert!(
            details.contains("ip netns exec POD tc qdisc replace dev eth0") && details.contains("rate 125000000bps"),
            "{details}"
        );
    });
}
