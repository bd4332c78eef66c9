//! Deleting an interface without the wait.

use std::fs;
use std::time::{Duration, Instant};

use kernel::rtnl::Rtnl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::oracle::ip;
use super::pod::Pod;

/// Long enough for a busy machine; nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(10);

/// The processes that this one has started and that have not ended, by name.
fn children() -> Vec<(u32, String)> {
    // A child belongs to the thread that made it.
    let own = fs::read_to_string("/proc/thread-self/children").expect("readable");
    let pids = own.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<u32>>();
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    pids.into_iter().map(|pid| (pid, name(pid))).collect()
}

fn wait_for_children() {
    let deadline = Instant::now() + DEADLINE;
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(nix::errno::Errno::ECHILD)) {
        assert!(Instant::now() < deadline, "a child does not end: {:?}", children());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_pair_is_gone_when_the_call_returns() {
    sandbox::private_host(|| {
        let host = Rtnl::open().expect("a socket");
        for round in 0..20 {
            let pod = Pod::new(&host, "one");
            pod.connect(&host, "10.0.0.2".parse().expect("an address"));
            assert!(host.delete_link_aside(pod.veth.host, Duration::ZERO).expect("deleted"), "round {round}");
            assert_eq!(host.link("veth-one").expect("readable"), None);
            assert_eq!(pod.rtnl.link("eth0").expect("readable"), None, "at the other end, too");
            assert!(!ip("route show table all").to_string().contains("10.0.0.2"));
            kernel::netns::remove_named("/run/netns/one").expect("removed");
        }
        wait_for_children();
    });
}

#[test]
fn the_child_holds_descriptors_but_no_standard_stream_and_ends_by_itself() {
    sandbox::private_host(|| {
        let host = Rtnl::open().expect("a socket");
        let pod = Pod::new(&host, "one");
        // Long enough to look at the child on a busy machine; then it is told to go.
        host.delete_link_aside(pod.veth.host, DEADLINE).expect("deleted");
        let (pid, name) = children().pop().expect("a child");
        assert_eq!(name, "podwire-waits");
        for stream in 0..=2 {
            let target = fs::read_link(format!("/proc/{pid}/fd/{stream}")).expect("open");
            assert_eq!(target.to_str(), Some("/dev/null"), "stream {stream}");
        }
        let session = fs::read_to_string(format!("/proc/{pid}/stat")).expect("readable");
        let session = session.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).map(str::to_owned);
        assert_eq!(session, Some(pid.to_string()), "a session of its own");
        let raw = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGTERM).expect("it is there");
        assert!(matches!(waitpid(raw, None), Ok(WaitStatus::Signaled(..))));

        let pod = Pod::new(&host, "two");
        host.delete_link_aside(pod.veth.host, Duration::from_millis(100)).expect("deleted");
        wait_for_children();
    });
}

#[test]
fn what_is_not_there_and_what_cannot_be_deleted() {
    sandbox::private_host(|| {
        let host = Rtnl::open().expect("a socket");
        assert!(host.delete_link_aside(4711, Duration::ZERO).is_ok(), "gone already is as good");
        // The kernel's own words are lost with the child, its number is not.
        let error = host.delete_link_aside(1, Duration::ZERO).expect_err("lo cannot be deleted");
        assert_eq!(error.to_string(), "cannot delete the interface with index 1");
        wait_for_children();
    });
}
