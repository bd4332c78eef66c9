//! Metrics in the text format of Prometheus, version 0.0.4. Pure.

use std::fmt::{Display, Write as _};

use super::stats::{Counts, by_state};

/// All metrics of a ledger.
pub(super) fn print(counts: &Counts) -> String {
    let mut text = String::new();
    let single: [(&str, &str, &str, &dyn Display); 9] = [
        ("leases", "gauge", "Leases that stand.", &counts.leases),
        ("leased_addresses", "gauge", "Addresses of these leases.", &counts.addresses),
        ("cooling_addresses", "gauge", "Released addresses at rest.", &counts.cooling),
        ("reservations", "gauge", "Reservations that hold.", &counts.reservations),
        ("pending_releases", "gauge", "Releases that are still to be carried out.", &counts.pending_releases),
        ("quarantined_ledgers", "gauge", "Damaged ledgers that were put aside.", &counts.quarantined),
        ("changes_total", "counter", "Changes of leases since the ledger was made.", &counts.generation),
        ("database_bytes", "gauge", "Size of the database.", &counts.database_bytes),
        ("read_seconds", "gauge", "How long it took to read the ledger, its lock included.", &counts.read_seconds),
    ];
    for (name, kind, help, value) in single {
        head(&mut text, name, kind, help);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "podwire_ipam_{name} {value}");
    }
    head(&mut text, "pool_addresses", "gauge", "Addresses of a pool, by what they are.");
    for pool in &counts.pools {
        let labels = labels(&pool.usage.network, &pool.usage.cidrs);
        for (state, count) in by_state(&pool.usage) {
            let _ = writeln!(text, "podwire_ipam_pool_addresses{{{labels},state=\"{state}\"}} {count}");
        }
    }
    head(&mut text, "pool_capacity", "gauge", "Addresses of a pool that can be leased.");
    for pool in &counts.pools {
        let labels = labels(&pool.usage.network, &pool.usage.cidrs);
        let _ = writeln!(text, "podwire_ipam_pool_capacity{{{labels}}} {}", pool.usage.capacity.0);
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP podwire_ipam_{name} {help}\n# TYPE podwire_ipam_{name} {kind}");
}

fn labels(network: &str, pool: &str) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("network=\"{}\",pool=\"{}\"", escaped(network), escaped(pool))
}
