//! Links, addresses, routes, rules, neighbours and queueing over rtnetlink(7).
//!
//! One file per subject. This one has the connection: requests and answers. `list` has lists, which are read again when they
//! changed under the reader.

mod address;
mod counters;
mod delete;
mod elsewhere;
mod failure;
mod link;
mod list;
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
    NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
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
use watch::Watch;

/// Nothing here takes long, but requests queue behind whoever holds the kernel's RTNL mutex.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to the kernel's rtnetlink, in the network namespace in which it was opened.
///
/// It stays in that namespace: opened inside [`NetNs::run`](crate::netns::NetNs::run) and returned from
/// there, it can be used from outside for as long as it lives. Methods block the calling thread; an
/// interface may vanish between any two of them.
pub struct Rtnl {
    // Dropped first: its socket is registered with the runtime.
    watch: Watch,
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
        let watch = Watch::open().map_err(Error::RtnlSocket)?;
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

    /// As [`Rtnl::get`], where the kernel tells everybody who listens, and the asker only if it wants to hear it, too.
    fn get_echoed(&self, message: RouteNetlinkMessage) -> std::result::Result<RouteNetlinkMessage, Failure> {
        self.exchange(message, NLM_F_ACK | NLM_F_ECHO)?.objects.pop().ok_or(Failure::Missing)
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
