//! Which piece of the kernel is missing: of nf_tables, from the part of our rules that the kernel does not take, and what
//! all extensions of iptables are part of. Nothing here does any I/O.

use nft_model::Family;

/// What stands in a refused part, and the module (and setting of the kernel's build) that is missing then. The first one
/// that fits counts.
const PIECES: [(&str, &str); 8] = [
    ("masquerade", "nft_masq (CONFIG_NFT_MASQ)"),
    ("dnat", "nft_nat (CONFIG_NFT_NAT)"),
    ("fib daddr", "nft_fib_ipv4 and nft_fib_ipv6 (CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6)"),
    ("ct ", "nft_ct (CONFIG_NFT_CT)"),
    ("add set", "sets with concatenated keys (nf_tables of Linux 4.1 or later)"),
    ("add chain", "nft_chain_nat (CONFIG_NFT_NAT, CONFIG_NF_NAT)"),
    ("add rule", "an expression of nf_tables"),
    ("add table", "nf_tables for this family (CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6)"),
];

/// The piece that a refused change needs.
#[must_use]
pub fn missing(change: &str) -> &'static str {
    let fits = PIECES.iter().find(|(words, _)| change.contains(words));
    fits.map_or("nf_tables (CONFIG_NF_TABLES)", |(_, piece)| piece)
}

/// What matches and targets of iptables are part of, in nf_tables or without.
#[must_use]
pub fn extensions(family: Family, in_nftables: bool) -> &'static str {
    match (in_nftables, family) {
        (true, _) => "nft_compat (CONFIG_NFT_COMPAT)",
        (false, Family::Ip) => "ip_tables (CONFIG_IP_NF_IPTABLES_LEGACY, or CONFIG_IP_NF_IPTABLES in older kernels)",
        (false, Family::Ip6) => {
            "ip6_tables (CONFIG_IP6_NF_IPTABLES_LEGACY, or CONFIG_IP6_NF_IPTABLES in older kernels)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_piece_is_told_by_what_is_refused() {
        for (change, piece) in [
            ("add rule ip podwire-hostport postrouting ip saddr . ip daddr @hairpin masquerade", "nft_masq"),
            ("add rule ip podwire-hostport prerouting fib daddr type local jump hostports", "nft_fib_ipv4"),
            ("add rule ip t hostports dnat ip to meta l4proto . th dport map @wildcard", "nft_nat"),
            ("add chain ip podwire-hostport prerouting", "nft_chain_nat"),
            ("add table ip6 podwire-hostport", "nf_tables for this family"),
            ("whatever", "nf_tables (CONFIG_NF_TABLES)"),
        ] {
            assert!(missing(change).starts_with(piece), "{change}: {}", missing(change));
        }
    }
}
