//! Netlink messages of nf_tables: writing requests, reading replies.

use netlink_packet_core::{
    DecodeError, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator, Parseable,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, SetElementAttribute};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nft_model::Family;
use nix::errno::Errno;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM`.
pub(super) const NEWSETELEM: u16 = 10 << 8 | 12;
/// `NLMSG_MIN_TYPE` of linux/netlink.h: below are errors, acknowledgements and ends.
const FIRST_OF_FAMILIES: u16 = 0x10;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
pub(super) const LIST_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;
/// `NLMSGERR_ATTR_OFFS` of linux/netlink.h.
const ERROR_OFFSET: u16 = 2;
/// Bytes of a netlink header, and of the nfgenmsg that follows it.
const HEADER_LEN: usize = 16;
pub(super) const NFGENMSG_LEN: usize = 4;

/// Appends a message. Without a family it is about no family in particular.
pub(super) fn append(
    bytes: &mut Vec<u8>,
    family: Option<Family>,
    res_id: u16,
    inner: impl Into<NetfilterMessageInner>,
    flags: u16,
    sequence: u32,
) {
    let family = match family {
        None => NetfilterProtoFamily::Unspec,
        Some(Family::Ip) => NetfilterProtoFamily::IPv4,
        Some(Family::Ip6) => NetfilterProtoFamily::IPv6,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let inner = NetfilterMessage::new(NetfilterHeader::new(family, 0, res_id), inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(inner));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// One message of the kernel's.
#[derive(Debug)]
pub(super) struct Reply {
    /// The request it answers.
    pub(super) sequence: u32,
    /// What it says.
    pub(super) content: Content,
}

/// What a reply says.
#[derive(Debug)]
pub(super) enum Content {
    /// The request was done.
    Ack,
    /// The request was refused.
    Error {
        /// Why.
        errno: Errno,
        /// Where in the request, in bytes from its start, the attribute is that was refused.
        offset: Option<usize>,
    },
    /// The dump is over.
    Done {
        /// Why it is over before its end.
        errno: Option<Errno>,
    },
    /// A part of what is asked for.
    Message(NfTablesMessage),
    /// Elements of a set, each with its attributes.
    Elements(Vec<Vec<SetElementAttribute>>),
    /// Something that was not asked for.
    Other,
}

/// One message of a dump, not taken apart.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether a change came between this part of a dump and the ones before.
    pub(super) interrupted: bool,
    /// The message, for [`Reply::parse`].
    pub(super) bytes: Vec<u8>,
    /// What it says if it is the last one.
    pub(super) end: Option<Content>,
}

impl Answer {
    /// Reads what every message has.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let buffer = NetlinkBuffer::new_checked(bytes)?;
        let interrupted = buffer.flags() & NLM_F_DUMP_INTR != 0;
        let is_end = buffer.message_type() < FIRST_OF_FAMILIES;
        let end = is_end.then(|| parse_content(bytes, buffer.flags())).transpose()?;
        Ok(Self { interrupted, bytes: bytes.to_vec(), end })
    }
}

impl Reply {
    /// Reads one whole message.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let buffer = NetlinkBuffer::new_checked(bytes)?;
        let content = match buffer.message_type() {
            NEWSETELEM => Content::Elements(parse_elements(buffer.payload())?),
            _ => parse_content(bytes, buffer.flags())?,
        };
        Ok(Self { sequence: buffer.sequence_number(), content })
    }
}

fn parse_content(bytes: &[u8], flags: u16) -> Result<Content, DecodeError> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes)?;
    Ok(match message.payload {
        NetlinkPayload::Error(error) => match error.code {
            None => Content::Ack,
            Some(code) => Content::Error {
                errno: Errno::from_raw(code.get().saturating_neg()),
                offset: error_offset(&error.header, flags)?,
            },
        },
        NetlinkPayload::Done(done) => {
            Content::Done { errno: (done.code < 0).then(|| Errno::from_raw(done.code.saturating_neg())) }
        }
        NetlinkPayload::InnerMessage(NetfilterMessage { inner: NetfilterMessageInner::NfTables(message), .. }) => {
            Content::Message(message)
        }
        _ => Content::Other,
    })
}

/// Behind the header of the refused request, or behind all of it, an error may carry attributes.
fn error_offset(request: &[u8], flags: u16) -> Result<Option<usize>, DecodeError> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return Ok(None);
    }
    let skipped = match flags & NLM_F_CAPPED {
        0 => (NetlinkBuffer::new_checked(request)?.length() as usize).next_multiple_of(4),
        _ => HEADER_LEN,
    };
    for attribute in NlasIterator::new(request.get(skipped..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind() == ERROR_OFFSET {
            return Ok(attribute.value().try_into().ok().map(|bytes| u32::from_ne_bytes(bytes) as usize));
        }
    }
    Ok(None)
}

/// The elements in a message, by hand: netlink-packet-netfilter 0.4 formats the whole list once for every element in
/// it, in case of an error, which takes seconds for thousands of elements.
fn parse_elements(payload: &[u8]) -> Result<Vec<Vec<SetElementAttribute>>, DecodeError> {
    let mut elements = Vec::new();
    for attribute in NlasIterator::new(payload.get(NFGENMSG_LEN..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind() == LIST_ELEMENTS {
            for element in NlasIterator::new(attribute.value()) {
                let element = element?;
                if element.kind() == LIST_ELEM {
                    elements.push(parse_element(&element)?);
                }
            }
        }
    }
    Ok(elements)
}

fn parse_element(element: &NlaBuffer<&[u8]>) -> Result<Vec<SetElementAttribute>, DecodeError> {
    NlasIterator::new(element.value()).map(|attribute| SetElementAttribute::parse(&attribute?)).collect()
}
