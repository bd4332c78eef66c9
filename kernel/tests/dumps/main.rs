//! What the kernel's lists leave out while other things come and go, and whether it says so: what
//! docs/adr/0081-what-a-list-may-leave-out.md is about. And that what is read here is whole nevertheless.
//!
//! A test that ends in `_of_which_nothing_is_said` fails where the kernel does better than that; then so can its reader.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

mod addresses;
mod flows;
mod links;
mod neighbours;
mod parts;
mod routes;
mod rules;
mod sockets;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

/// How many changes there are during a look. Fewer than times that a list is read again, so that none is refused because of them.
pub const CHANGES: u32 = 40;

/// Calls `look` so many times, and meanwhile, on another thread, `change` [`CHANGES`] times for each, with a number that grows.
pub fn meanwhile(mut change: impl FnMut(u32) + Send, looks: usize, mut look: impl FnMut()) {
    thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        scope.spawn(move || {
            for (number, ()) in (0..).zip(begun) {
                (0..CHANGES).for_each(|more| change(number * CHANGES + more));
                end.send(()).expect("it is waited for");
            }
        });
        for _ in 0..looks {
            begin.send(()).expect("it changes until there is nothing to begin");
            look();
            ended.recv().expect("it tells of each");
        }
        drop(begin);
    });
}

/// What `ip -batch` or `tc -batch` does, where a process for each line would take too long.
pub fn batch(program: &str, lines: impl IntoIterator<Item = impl Into<String>>) {
    let child = sandbox::command(program).args(["-batch", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = child.expect("iproute2 is installed");
    let text: String = lines.into_iter().map(|line| line.into() + "\n").collect();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{program}: {text:.200}");
}

/// A veth pair, `left` and `right`.
pub fn pair() {
    batch("ip", ["link add left type veth peer name right", "link set left up", "link set right up"]);
}

/// 10.0.0.0 and so many on.
pub fn ipv4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number).into()
}

/// fd00:: and so many on.
pub fn ipv6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(number)).into()
}

/// What stays and is not listed.
pub fn missing<T: Copy + Ord>(all: &BTreeSet<T>, gone: &BTreeSet<T>, listed: impl IntoIterator<Item = T>) -> Vec<T> {
    let listed: BTreeSet<T> = listed.into_iter().collect();
    all.iter().filter(|one| !gone.contains(one) && !listed.contains(one)).copied().collect()
}
