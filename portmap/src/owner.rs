//! Whose element it is: the comment that every element carries.

use std::fmt;
use std::net::IpAddr;

use cni_spec::Attachment;
use nft_model::{Family, Value};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The longest mark, in bytes. The kernel keeps the length of an element's user data, its own header included, in one
/// byte (net/netfilter/nf_tables_api.c): a longer comment is refused or lost.
const MAX: usize = 251;

/// An attachment that can own elements. Its text, "NETWORK CONTAINERID IFNAME", is the comment of each of them, and
/// all that DEL and GC need to find them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    comment: String,
}

impl Owner {
    /// The owner's mark for this attachment.
    ///
    /// # Errors
    /// Code 4 when the kernel could not keep the names whole, or nft(8) could not print them: a mark that was
    /// shortened might be somebody else's too, and then DEL would end the wrong mapping.
    pub fn new(attachment: &Attachment) -> Result<Self, Error> {
        let comment = attachment.to_string();
        if comment.len() > MAX {
            return Err(Error::OwnerTooLong { attachment: attachment.clone(), length: comment.len(), max: MAX });
        }
        if comment.contains(['"', '\\']) {
            return Err(Error::OwnerUnprintable { ifname: attachment.ifname.clone() });
        }
        Ok(Self { comment })
    }

    /// The key of its element in the set of owners: the beginning of the comment's SHA-256, as two addresses. 64 bits
    /// of it in IPv4: among 5,000 owners two are alike with a probability of 1 to 10^12.
    #[must_use]
    pub fn key(&self, family: Family) -> [Value; 2] {
        let digest: [u8; 32] = Sha256::digest(&self.comment).into();
        let (parts, _) = digest.as_chunks::<16>();
        let (words, _) = digest.as_chunks::<4>();
        let address = |index: usize| match family {
            Family::Ip => IpAddr::from(words[index]),
            Family::Ip6 => IpAddr::from(parts[index]),
        };
        [Value::Addr(address(0)), Value::Addr(address(1))]
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &str {
        self.comment.split(' ').next().unwrap_or_default()
    }

    /// The comment.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }
}

/// Somebody who holds a host port, for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Another attachment, and its pod's name if that is known.
    Attachment(Attachment, Option<String>),
    /// An element with no comment, or one that this plugin did not write.
    Unknown(Option<String>),
}

impl Holder {
    /// The holder that a comment names.
    #[must_use]
    pub fn of(comment: Option<&str>) -> Self {
        match comment.map(str::parse) {
            Some(Ok(attachment)) => Self::Attachment(attachment, None),
            _ => Self::Unknown(comment.map(str::to_owned)),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment(Attachment { network, container_id, ifname }, pod) => {
                if let Some(pod) = pod {
                    write!(f, "pod {pod}, ")?;
                }
                write!(f, "container {container_id} ({ifname}) of network {network}")
            }
            Self::Unknown(Some(comment)) => write!(f, "an unknown owner ({comment:?})"),
            Self::Unknown(None) => f.write_str("an unknown owner"),
        }
    }
}
