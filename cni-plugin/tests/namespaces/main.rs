//! The plugin's executable on private nodes: what it does to the kernel, by packets and by other tools' eyes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod attach;
mod bad_input;
mod bandwidth;
mod chained;
mod common;
mod delegated;
#[macro_use]
mod flavour;
mod frames;
mod hostile;
mod ill_fate;
mod in_use;
mod inspect;
mod keys;
mod lacking;
mod layer2;
mod leftovers;
mod log;
mod masquerade;
mod masquerade_iptables;
mod networks;
mod pairs;
mod reconcile;
mod residue;
mod reuse;
mod scale;
mod surroundings;
mod wishes;
