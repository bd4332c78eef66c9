//! Lists of the kernel taken message by message, so that something can be changed at a certain place in between.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The kernel makes no message larger than what is once received into, and none smaller than about a page.
const RECEIVE_LEN: usize = 4096;
const HEADER_LEN: usize = 16;
/// `NLMSG_ERROR` and `NLMSG_DONE` of linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A list.
pub struct Listed<T> {
    pub all: Vec<T>,
    /// Whether the kernel said that it changed meanwhile (NLM_F_DUMP_INTR).
    pub interrupted: bool,
}

/// Has the kernel list, and calls `between` with what is in the first message. By then the kernel has written the second one,
/// too, as it does whenever one was received.
pub fn list<T>(
    protocol: isize,
    kind: u16,
    payload: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    between: impl FnOnce(&[T]),
) -> Listed<T> {
    let mut socket = Socket::new(protocol).expect("a socket");
    socket.bind_auto().expect("bound");
    socket.connect(&SocketAddr::new(0, 0)).expect("connected");
    let mut request = vec![0; HEADER_LEN];
    request.extend_from_slice(payload);
    let length = request.len().try_into().expect("small");
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    header.set_sequence_number(1);
    socket.send(&request, 0).expect("sent");
    let (mut listed, mut between) = (Listed { all: Vec::new(), interrupted: false }, Some(between));
    loop {
        let mut buffer = [0; RECEIVE_LEN];
        let received = socket.recv(&mut buffer.as_mut_slice(), 0).expect("received");
        let mut rest = &buffer[..received];
        while !rest.is_empty() {
            let header = NetlinkBuffer::new_checked(rest).expect("whole");
            listed.interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
            match header.message_type() {
                DONE => return listed,
                ERROR => panic!("the kernel refuses: {rest:?}"),
                _ => listed.all.extend(parse(&rest[..header.length() as usize])),
            }
            rest = rest.get((header.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        between.take().into_iter().for_each(|between| between(&listed.all));
    }
}

/// As [`list`], by rtnetlink(7).
pub fn list_rtnl(
    request: RouteNetlinkMessage,
    between: impl FnOnce(&[RouteNetlinkMessage]),
) -> Listed<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let parse = |message: &[u8]| match NetlinkMessage::deserialize(message).expect("understood").payload {
        NetlinkPayload::InnerMessage(object) => Some(object),
        _ => None,
    };
    list(NETLINK_ROUTE, message.header.message_type, &bytes[HEADER_LEN..], parse, between)
}
