//! Why the kernel did not do what it was asked over rtnetlink.

use netlink_packet_core::{DefaultNla, ErrorMessage, NetlinkHeader, Nla, NlasIterator, Parseable};
use nix::errno::Errno;

/// `linux/netlink.h`: the answer carries attributes, of which the first kind is a text for people.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `struct nlmsghdr` of the request, which the kernel repeats in front of the attributes.
const HEADER_LENGTH: usize = 16;

/// Why a request over rtnetlink failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The kernel refused.
    #[error("{}{}", .errno.desc(), .text.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Its error number.
        errno: Errno,
        /// Its own words (extended acknowledgement), where it has some.
        text: Option<String>,
    },
    /// The list changed while it was being read, every time.
    #[error("the list changed while it was being read, {attempts} times in a row")]
    Interrupted {
        /// How often it was read.
        attempts: u32,
    },
    /// The kernel did not answer.
    #[error("the kernel did not answer within {seconds} s")]
    NoAnswer {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The socket was closed, or the request could not be sent.
    #[error("the rtnetlink socket is closed")]
    Closed,
    /// The kernel answered, but what was asked for is not in its answer.
    #[error("there is no such object")]
    Missing,
}

impl Failure {
    /// The kernel's error number, if it refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Interrupted { .. } | Self::NoAnswer { .. } | Self::Closed | Self::Missing => None,
        }
    }

    /// Whether the kernel refused with one of these.
    pub(super) fn is(&self, errnos: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| errnos.contains(&errno))
    }

    /// From a negative acknowledgement; `None` if it is a positive one.
    pub(super) fn from_error(header: &NetlinkHeader, message: &ErrorMessage) -> Option<Self> {
        let attributes = message.header.get(HEADER_LENGTH..).filter(|_| header.flags & NLM_F_ACK_TLVS != 0);
        Self::from_code(message.raw_code(), attributes.unwrap_or_default())
    }

    /// From the end of a list, which carries an error if the list could not be made.
    pub(super) fn from_code(code: i32, attributes: &[u8]) -> Option<Self> {
        (code != 0).then(|| Self::Refused { errno: Errno::from_raw(code.saturating_abs()), text: text_in(attributes) })
    }
}

fn text_in(attributes: &[u8]) -> Option<String> {
    let mut parsed = NlasIterator::new(attributes).filter_map(|attribute| DefaultNla::parse(&attribute.ok()?).ok());
    let text = parsed.find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    let mut bytes = vec![0; text.value_len()];
    text.emit_value(&mut bytes);
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}
