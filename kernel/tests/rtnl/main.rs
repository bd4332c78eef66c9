//! Namespaces, rtnetlink and sysctls on the real kernel, each test in a private host. The independent
//! oracle is iproute2; where a claim is about packets, packets are sent.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

mod address;
mod delete;
mod link;
mod neighbour;
mod netns;
mod oracle;
mod packets;
mod pod;
mod qdisc;
mod route;
mod rule;
mod sysctl;
mod veth;
