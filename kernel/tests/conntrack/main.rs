//! Connection tracking of a real kernel; conntrack(8) is the witness.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

mod oracle;
mod packets;
mod select;
