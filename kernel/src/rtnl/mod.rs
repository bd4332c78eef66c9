//! Links, addresses, routes, rules, neighbours and queueing over rtnetlink(7).
//!
//! One file per subject. This one has the connection: requests, answers, and lists that are read again
//! when they changed under the reader.

mod address;
mod counters;
mod delete;
mod elsewhere;
mod failure;
mod link;
mod local;
mod neighbour;
mod qdisc;
mod route;
mod route_message;
mod rule;
mod veth;
mod watch;

use std::fmt;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket;
use rtnetlink::Handle;
use tokio::runtime::{Builder, Runtime};

pub use address::Address;
pub use counters::Counters;
pub use failure::Failure;
pub use link::Link;
pub use neighbour::Neighbour;
pub use qdisc::{Shaped, TokenBucket};
pub use route::{Family, Resolved, Route, RouteFilter};
pub use rule::SourceRule;
pub use veth::{VethIndexes, VethPair};

use crate::error::{Error, Result};
use watch::AddressWatch;

/// How often a list is read before a node that never stands still is given up on.
const LIST_ATTEMPTS: u32 = 50;
/// Nothing here takes long, but requests queue behind whoever holds the kernel's RTNL mutex.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to the kernel's rtnetlink, in the network namespace in which it was opened.
///
/// It stays in that namespace: opened inside [`NetNs::run`](crate::netns::NetNs::run) and returned from
/// there, it can be used from outside for as long as it lives. Methods block the calling thread; an
/// interface may vanish between any two of them.
pub struct Rtnl {
    // Dropped first: its socket is registered with the runtime.
    watch: AddressWatch,
    handle: Handle,
    runtime: Runtime,
}

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the process may not have more descriptors, or the kernel is older than 4.20 (strict checking).
    pub fn open() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(Error::RtnlRuntime)?;
        // Sockets register themselves with the runtime around them.
        let guard = runtime.enter();
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(Error::RtnlSocket)?;
        let socket = connection.socket_mut().socket_mut();
        // Refusals come with the kernel's own words, and without a copy of the whole request.
        socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true)).map_err(Error::RtnlSocket)?;
        // Without these, a lost connection looks like an acknowledgement, and a list that failed or changed
        // in its last part like a list that ended well.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        drop(runtime.spawn(connection));
        let watch = AddressWatch::open().map_err(Error::RtnlSocket)?;
        drop(guard);
        Ok(Self { watch, handle, runtime })
    }

    /// Sends a change and waits for its acknowledgement; returns what the kernel echoed before it.
    fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, Failure> {
        Ok(self.exchange(message, NLM_F_ACK | flags)?.objects)
    }

    /// Asks for one object. The acknowledgement after it also ends the wait if the object cannot be parsed.
    fn get(&self, message: RouteNetlinkMessage) -> std::result::Result<RouteNetlinkMessage, Failure> {
        self.exchange(message, NLM_F_ACK)?.objects.pop().ok_or(Failure::Missing)
    }

    /// Asks for a list, again if it changed while the kernel wrote it.
    fn list(&self, message: &RouteNetlinkMessage) -> std::result::Result<Vec<RouteNetlinkMessage>, Failure> {
        for _ in 0..LIST_ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_DUMP)?;
            if !answer.interrupted {
                return Ok(answer.objects);
            }
        }
        Err(Failure::Interrupted { attempts: LIST_ATTEMPTS })
    }

    fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> std::result::Result<Answer, Failure> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        request.header.flags = NLM_F_REQUEST | flags;
        let exchange = async {
            let answers = self.handle.clone().request(request).map_err(|_| Failure::Closed)?;
            Answer::collect(answers).await
        };
        self.runtime.block_on(async {
            let seconds = ANSWER_DEADLINE.as_secs();
            tokio::time::timeout(ANSWER_DEADLINE, exchange).await.unwrap_or(Err(Failure::NoAnswer { seconds }))
        })
    }
}

impl fmt::Debug for Rtnl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

/// Everything that came for one request.
struct Answer {
    objects: Vec<RouteNetlinkMessage>,
    /// Whether the kernel marked any part as read from a list that had changed.
    interrupted: bool,
}

impl Answer {
    /// Reads up to the acknowledgement, or the end of the list.
    async fn collect(
        answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
    ) -> std::result::Result<Self, Failure> {
        let mut answer = Self { objects: Vec::new(), interrupted: false };
        let mut answers = std::pin::pin!(answers);
        while let Some(message) = answers.next().await {
            answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            let refusal = match message.payload {
                NetlinkPayload::InnerMessage(object) => {
                    answer.objects.push(object);
                    continue;
                }
                NetlinkPayload::Error(error) => Failure::from_error(&message.header, &error),
                NetlinkPayload::Done(done) => Failure::from_code(done.code, &done.extended_ack),
                _ => continue,
            };
            return refusal.map_or(Ok(answer), Err);
        }
        Err(Failure::Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

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
            assert_eq!(failure.errno(), Some(nix::errno::Errno::ENODEV));
        });
    }
}
