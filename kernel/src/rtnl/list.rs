//! Lists: what the kernel writes in as many messages as it takes, while others change it
//! (docs/adr/0081-what-a-list-may-leave-out.md).

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;

use super::{Failure, Rtnl};

/// How often a list is read before a node that never stands still is given up on.
const LIST_ATTEMPTS: u32 = 50;

/// Routes that have room in the first message of a list, which the kernel writes at once.
const AT_ONCE: usize = 16;

impl Rtnl {
    /// Asks for a list, again if it changed while the kernel wrote it, as far as the kernel says so: of links and addresses. Of
    /// others it does not; what is not in them because of that is for the caller to consider.
    pub(super) fn list(&self, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.list_while(message, || true)
    }

    /// Asks for a list of routes that leaves none out that is there all the time.
    ///
    /// IPv4 routes are listed by their destinations, and need nothing more. Of IPv6 routes the kernel remembers for the next
    /// message how many it has listed (`fib6_dump_table`, net/ipv6/ip6_fib.c): when one of these went and another one came, it
    /// passes over one too many, and says nothing of it. So a list that may have come in several is read again if a route went
    /// meanwhile.
    pub(super) fn list_routes(&self, request: RouteMessage) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let is_counted = request.header.address_family == AddressFamily::Inet6;
        let request = RouteNetlinkMessage::GetRoute(request);
        if !is_counted {
            return self.list(&request);
        }
        let watching = self.watch.join(MulticastGroup::Ipv6Route).map_err(|error| cannot_watch(&error))?;
        self.list_while(&request, || !watching.has_lost_a_route())
    }

    /// Asks for a list until nothing that matters changed while the kernel wrote it.
    fn list_while(
        &self,
        message: &RouteNetlinkMessage,
        stood_still: impl Fn() -> bool,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        for _ in 0..LIST_ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_DUMP)?;
            if !answer.interrupted && (answer.objects.len() <= AT_ONCE || stood_still()) {
                return Ok(answer.objects);
            }
        }
        Err(Failure::Interrupted { attempts: LIST_ATTEMPTS })
    }
}

fn cannot_watch(error: &io::Error) -> Failure {
    Failure::Refused { errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw), text: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use ipnetwork::Ipv4Network;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::address::{AddressAttribute, AddressMessage};

    use super::*;

    const LO: u32 = 1;
    /// Enough for a list that the kernel writes in many parts.
    const STABLE: u32 = 1000;

    fn request() -> RouteNetlinkMessage {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        RouteNetlinkMessage::GetAddress(message)
    }

    fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number)
    }

    /// How many of the addresses that are there all the time are in the list.
    fn stable_in(objects: &[RouteNetlinkMessage]) -> usize {
        let local = |object: &RouteNetlinkMessage| match object {
            RouteNetlinkMessage::NewAddress(message) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                })
            }
            _ => None,
        };
        let found: BTreeSet<_> = objects.iter().filter_map(local).collect();
        (1..=STABLE).filter(|&number| found.contains(&address(number).into())).count()
    }

    /// Adds and removes addresses in front of all others until told to stop.
    fn churn(stop: &AtomicBool) {
        let rtnl = Rtnl::open().unwrap();
        let flapping = Ipv4Network::from(Ipv4Addr::new(10, 255, 255, 255)).into();
        while !stop.load(Ordering::Relaxed) {
            rtnl.add_address(LO, flapping).unwrap();
            rtnl.delete_address(LO, flapping).unwrap();
        }
    }

    #[test]
    fn a_list_that_changed_is_noticed_and_read_again() {
        sandbox::private_host(|| {
            let rtnl = Rtnl::open().unwrap();
            for number in 1..=STABLE {
                rtnl.add_address(LO, Ipv4Network::from(address(number)).into()).unwrap();
            }
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let churning = scope.spawn(|| churn(&stop));
                let deadline = Instant::now() + Duration::from_secs(20);
                let interrupted = || rtnl.exchange(request(), NLM_F_DUMP).unwrap().interrupted;
                while !interrupted() {
                    assert!(Instant::now() < deadline, "no list was interrupted");
                }
                match rtnl.list(&request()) {
                    Ok(objects) => assert_eq!(stable_in(&objects), STABLE as usize),
                    Err(failure) => assert_eq!(failure, Failure::Interrupted { attempts: LIST_ATTEMPTS }),
                }
                stop.store(true, Ordering::Relaxed);
                churning.join().unwrap();
            });
            assert_eq!(stable_in(&rtnl.list(&request()).unwrap()), STABLE as usize);
        });
    }

    #[test]
    fn a_list_that_fails_is_not_an_empty_list() {
        sandbox::private_host(|| {
            let mut message = AddressMessage::default();
            message.header.index = 4711;
            let failure = Rtnl::open().unwrap().list(&RouteNetlinkMessage::GetAddress(message)).unwrap_err();
            assert_eq!(failure.errno(), Some(Errno::ENODEV));
        });
    }
}
