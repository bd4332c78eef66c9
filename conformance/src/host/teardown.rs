//! How far the kernel is with taking namespaces down.

use std::thread;
use std::time::{Duration, Instant};

use super::exec::tool;
use super::{observe, pod};
use crate::verdict::Verdict;

/// An interface of the suite's, whose peer is in a namespace that is removed at once.
const NAME: &str = "scafend";

/// As many markers as have to go before what is still there is taken for left. One is too few: a namespace is given up with the
/// last socket in it, and netlink sockets go by RCU, later than their process.
pub const MARKERS: u32 = 3;

/// Waits until the kernel has taken down all namespaces that were given up before this was called: it does so batch after batch
/// (`cleanup_net`, net/core/net_namespace.c), so that a marker, which is given up now, is in the last. False if it has not by
/// the deadline.
///
/// # Errors
/// Trouble if ip(8) fails.
pub fn has_caught_up(deadline: Instant) -> Verdict<bool> {
    tool("ip", &["netns", "add", NAME])?;
    let pair = format!("link add {NAME} type veth peer name {NAME} netns {NAME}");
    pod::tool_batch(&[], &[pair])?;
    pod::remove(NAME)?;
    let mut pause = Duration::from_millis(5);
    while observe::link_names()?.iter().any(|name| name == NAME) {
        if Instant::now() > deadline {
            // It may be going at this moment.
            let _ = tool("ip", &["link", "delete", NAME]);
            return Ok(false);
        }
        thread::sleep(pause);
        pause *= 2;
    }
    Ok(true)
}
