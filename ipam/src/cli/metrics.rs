//! Metrics in the text format of Prometheus, version 0.0.4: those of `ipam metrics`, and those that the resident owner
//! tells at its socket, are made here.

use std::fmt::{Display, Write as _};

use super::contract::Count;
use super::gauges::Gauges;
use super::pools::Usage;

/// Name, help and value of what there is of each pool.
type OfPools = (&'static str, &'static str, fn(&Usage) -> Count);

/// What a resident owner has counted since it was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    pub answered: u64,
    pub refused: u64,
    /// Of those who may not ask.
    pub strangers: u64,
}

/// All metrics of a ledger, and of its owner if that is who tells.
pub(crate) fn print(gauges: &Gauges, requests: Option<Requests>) -> String {
    let mut text = String::new();
    let of_pools: [OfPools; 5] = [
        ("pool_size", "Addresses that the pool can lease.", |usage| usage.capacity),
        ("pool_leased", "Addresses leased from the pool, by all networks.", |usage| usage.used),
        ("pool_cooling", "Released addresses that cool down.", |usage| usage.cooling),
        ("pool_reserved", "Addresses that are set aside and not leased.", |usage| usage.reserved),
        ("pool_free", "Addresses that can be leased now.", |usage| usage.free),
    ];
    for (name, help, value) in of_pools {
        head(&mut text, name, "gauge", help);
        for usage in &gauges.pools {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "cni_ipam_{name}{{{}}} {}", labels(usage), value(usage).0);
        }
    }
    let single: [(&str, &str, &str, &dyn Display); 8] = [
        ("leases", "gauge", "Leases in the ledger.", &gauges.leases),
        ("tombstones", "gauge", "Attachments deleted lately, of which no late ADD is served.", &gauges.tombstones),
        ("reservations", "gauge", "Reservations that hold.", &gauges.reservations),
        ("pending_releases", "gauge", "Releases that are still to be carried out.", &gauges.pending_releases),
        ("quarantined_ledgers", "gauge", "Damaged ledgers that were put aside.", &gauges.quarantined),
        ("changes_total", "counter", "Changes of leases since the ledger was made.", &gauges.generation),
        ("database_bytes", "gauge", "Size of the database.", &gauges.database_bytes),
        (
            "read_seconds",
            "gauge",
            "How long it took to read the ledger, the wait for it included.",
            &gauges.read_seconds,
        ),
    ];
    for (name, kind, help, value) in single {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "cni_ipam_{name} {value}");
    }
    if let Some(Requests { answered, refused, strangers }) = requests {
        head(&mut text, "requests_total", "counter", "Requests to the resident owner since it was started.");
        for (outcome, count) in [("answered", answered), ("refused", refused), ("stranger", strangers)] {
            let _ = writeln!(text, "cni_ipam_requests_total{{outcome=\"{outcome}\"}} {count}");
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP cni_ipam_{name} {help}\n# TYPE cni_ipam_{name} {kind}");
}

/// Network names and addresses have nothing to escape.
fn labels(usage: &Usage) -> String {
    let family = if usage.pool.contains(':') { "ipv6" } else { "ipv4" };
    format!("network=\"{}\",family=\"{family}\",pool=\"{}\"", usage.network, usage.pool)
}
