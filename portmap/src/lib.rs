//! Chained CNI plugin: hostPort by nftables maps.
