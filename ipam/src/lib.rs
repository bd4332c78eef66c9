//! The CNI IPAM plugin podwire-ipam and the ipam command over one sled ledger.
