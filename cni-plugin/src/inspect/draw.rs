//! The way of a packet from the outside into a pod, drawn for a terminal. Pure.

use std::fmt::Write as _;

use kernel::rtnl::Link;

use super::{Attached, Failure};
use crate::step::lower;

/// Draws it: the node's ports, the route, the pair, the pod.
#[must_use]
pub fn draw(attached: &Attached) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        let _ = writeln!(text, "{}", words.trim_end());
    };
    let link = &attached.link;
    line("  outside");
    line("     |");
    if attached.addresses.is_empty() {
        line("     |          the node has no route to the pod: nothing gets there but by its link, at layer 2");
    } else if attached.host_ports.is_empty() {
        line("     |          no host port leads here: from the outside, only by a route to the pod's address");
    }
    for port in &attached.host_ports {
        line(&format!("     |  {port}"));
        let place = format!("{} {}", port.tool, port.table);
        line(&format!("     |          {place}: dnat to {}", std::net::SocketAddr::from(port.pod)));
    }
    line("     v");
    line("  node");
    for address in &attached.addresses {
        line(&format!("     |  {address}"));
        line(&format!("     |          ip route: dev {}", link.name));
    }
    line("     v");
    line(&format!("  {}  {}", link.name, state(link)));
    line(&format!(
        "     |          from the pod {}",
        packets(attached.counters.rx_packets, attached.counters.rx_bytes, attached.counters.rx_dropped)
    ));
    line(&format!(
        "     |          to the pod   {}",
        packets(attached.counters.tx_packets, attached.counters.tx_bytes, attached.counters.tx_dropped)
    ));
    line("     |  veth pair");
    match &attached.inside {
        None => line(&format!("     v\n  {}  in a namespace that is not known here", attached.attachment.ifname)),
        Some(inside) => {
            line(&format!("     v          {}", inside.netns.display()));
            line(&format!("  {}  {}", inside.link.name, state(&inside.link)));
            for address in inside.addresses.iter().filter(|address| attached.addresses.contains(&address.ip())) {
                line(&format!("     |          {address}"));
            }
            for route in inside.routes.iter().filter(|route| route.dst.prefix() == 0) {
                if let Some(gateway) = route.gateway {
                    line(&format!("     |          answers leave by default via {gateway}"));
                }
            }
            line("     v");
        }
    }
    let container = attached.attachment.container_id.as_str();
    line(&format!("  pod {}", attached.pod.as_deref().unwrap_or(container)));
    if let Some(failure) = &attached.last_error {
        let Failure { timestamp, plugin, verb, code, msg, .. } = failure;
        line(&format!("\n  last error: {timestamp} {plugin} {verb}: {msg} (code {code})"));
    }
    text
}

fn state(link: &Link) -> String {
    let mac = link.mac.map(lower).unwrap_or_default();
    let state = match (link.up, link.carrier) {
        (true, true) => "up",
        (true, false) => "up, no carrier",
        (false, _) => "down",
    };
    format!("{mac}  mtu {}  {state}", link.mtu)
}

fn packets(packets: u64, bytes: u64, dropped: u64) -> String {
    let dropped = if dropped == 0 { String::new() } else { format!(", {dropped} dropped") };
    format!("{packets} packets, {bytes} bytes{dropped}")
}
