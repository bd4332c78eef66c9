//! The ledger in numbers, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::operation::{Contents, KnownPool, Rest};

/// All metrics. `counters` are the requests answered, refused, and of those who may not ask.
pub(super) fn text(contents: &Contents, counters: [u64; 3]) -> String {
    let mut text = String::new();
    let mut leased: BTreeMap<&str, u64> = BTreeMap::new();
    for address in contents.leases.iter().flat_map(|lease| &lease.addresses) {
        *leased.entry(&address.pool).or_default() += 1;
    }
    let mut gauge = |name: &str, help: &str, lines: Vec<Line>| family(&mut text, name, "gauge", help, lines);
    let of_pools = |value: &dyn Fn(&KnownPool) -> String| -> Vec<Line> {
        contents.pools.iter().map(|known| (labels(known), value(known))).collect()
    };
    gauge(
        "cni_ipam_pool_size",
        "Addresses that the pool can lease.",
        of_pools(&|known| approximately(known.pool.capacity()).to_string()),
    );
    gauge(
        "cni_ipam_pool_leased",
        "Addresses leased from the pool, by all networks.",
        of_pools(&|known| leased.get(known.name.as_str()).copied().unwrap_or(0).to_string()),
    );
    gauge(
        "cni_ipam_pool_cooling",
        "Released addresses that cool down.",
        of_pools(&|known| cooling(contents, known).to_string()),
    );
    let one = |value: u64| vec![(String::new(), value.to_string())];
    gauge("cni_ipam_leases", "Leases in the ledger.", one(contents.leases.len() as u64));
    gauge("cni_ipam_tombstones", "Attachments deleted before they were known.", one(contents.tombstones.len() as u64));
    let [answered, refused, strangers] = counters;
    let mut counter = |name: &str, help: &str, lines| family(&mut text, name, "counter", help, lines);
    counter("cni_ipam_changes_total", "Changes of leases since the ledger was made.", one(contents.generation));
    let outcome = |name: &str, value: u64| (format!("outcome={name:?}"), value.to_string());
    counter(
        "cni_ipam_requests_total",
        "Requests to the resident owner since it was started.",
        vec![outcome("answered", answered), outcome("refused", refused), outcome("stranger", strangers)],
    );
    text
}

/// Labels and value.
type Line = (String, String);

fn labels(known: &KnownPool) -> String {
    let family = if known.pool.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("network={:?},family={family:?},pool={:?}", known.network.as_str(), known.name)
}

fn cooling(contents: &Contents, known: &KnownPool) -> usize {
    let cools = |rest: &&Rest| {
        let rested = contents.now_boottime_ms.saturating_sub(rest.released_boottime_ms);
        rest.pool == known.name && rested < known.cooldown_ms
    };
    contents.released.iter().filter(cools).count()
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, lines: Vec<Line>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in lines {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers, and half a /64 is a fine figure")]
fn approximately(count: u128) -> f64 {
    count as f64
}
