//! nf_tables on the real kernel, each test in a private host. The independent oracle is nft(8); where a claim is about
//! packets, packets are sent.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

mod commit;
mod models;
mod oracle;
mod packets;
mod race;
mod random;
mod read;
mod shifting;
mod size;
mod text;
