//! Metrics in the text format of Prometheus, version 0.0.4. Pure. What the resident owner tells, too, has the same
//! names and labels there.

use std::fmt::{Display, Write as _};

use super::contract::Count;
use super::pools::Usage;
use super::stats::Counts;

/// Name, help and value of what there is of each pool.
type OfPools = (&'static str, &'static str, fn(&Usage) -> Count);

/// All metrics of a ledger.
pub(super) fn print(counts: &Counts) -> String {
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
        for pool in &counts.pools {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "cni_ipam_{name}{{{}}} {}", labels(&pool.usage), value(&pool.usage).0);
        }
    }
    let single: [(&str, &str, &str, &dyn Display); 7] = [
        ("leases", "gauge", "Leases in the ledger.", &counts.leases),
        ("reservations", "gauge", "Reservations that hold.", &counts.reservations),
        ("pending_releases", "gauge", "Releases that are still to be carried out.", &counts.pending_releases),
        ("quarantined_ledgers", "gauge", "Damaged ledgers that were put aside.", &counts.quarantined),
        ("changes_total", "counter", "Changes of leases since the ledger was made.", &counts.generation),
        ("database_bytes", "gauge", "Size of the database.", &counts.database_bytes),
        ("read_seconds", "gauge", "How long it took to read the ledger, its lock included.", &counts.read_seconds),
    ];
    for (name, kind, help, value) in single {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "cni_ipam_{name} {value}");
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
