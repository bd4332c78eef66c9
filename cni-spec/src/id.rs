//! The names that identify an attachment, checked once at the door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The value is empty.
    #[error("{reason}", reason = self.reason())]
    Empty,
    /// The value has a character that the spec does not allow, or begins with one.
    #[error("{0:?} {reason}", reason = self.reason())]
    Characters(String),
    /// The value is not an interface name that Linux takes.
    #[error("{0:?} {reason}", reason = self.reason())]
    Interface(String),
}

impl IdError {
    /// What is wrong, without the value, for messages that have named it already.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::Characters(_) => "must begin with a letter or digit and go on with letters, digits, '_', '.' or '-'",
            Self::Interface(_) => {
                "is not an interface name: 1 to 15 bytes, not \".\" or \"..\", without '/', ':', '%' and white space"
            }
        }
    }
}

/// Spec section 2: `^[A-Za-z0-9][A-Za-z0-9_.\-]*$`, for container ids and network names alike.
fn check_identifier(text: &str) -> Result<(), IdError> {
    let first = text.chars().next().ok_or(IdError::Empty)?;
    let rest_ok = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first.is_ascii_alphanumeric() && rest_ok { Ok(()) } else { Err(IdError::Characters(text.to_owned())) }
}

/// In JSON, a name is the text that `Display` writes and `FromStr` checks.
macro_rules! text_in_json {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text as it came.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        text_in_json!($name);
    };
}

checked_name!(
    /// `CNI_CONTAINERID`: not empty, a letter or digit, then letters, digits, `_`, `.`, `-`.
    ContainerId,
    check_identifier
);

checked_name!(
    /// `name` of the network config, unique on the node. Same characters as [`ContainerId`].
    NetworkName,
    check_identifier
);

checked_name!(
    /// `CNI_IFNAME`: what Linux takes as an interface name (`dev_valid_name` in net/core/dev.c): 1 to 15
    /// bytes, not `.` or `..`, without `/`, `:` and white space. Nor with `%`, which stands for a number that
    /// the kernel chooses, nor `all` or `default`, which are folders of /proc/sys/net.
    IfName,
    check_interface
);

fn check_interface(text: &str) -> Result<(), IdError> {
    let bad_char = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    match text {
        "" => Err(IdError::Empty),
        "." | ".." | "all" | "default" => Err(IdError::Interface(text.to_owned())),
        _ if text.len() > 15 || text.contains(bad_char) => Err(IdError::Interface(text.to_owned())),
        _ => Ok(()),
    }
}

/// One container joined to one network by one interface: what ADD makes and DEL ends (spec section 3,
/// "Lifecycle & Ordering"). All state is keyed by these three.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The network's `name`.
    pub network: NetworkName,
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.network, self.container_id, self.ifname)
    }
}

text_in_json!(Attachment);

/// Text that does not name an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NETWORK CONTAINERID IFNAME")]
pub struct NoAttachment(pub String);

/// Reads what `Display` wrote. No part has a space in it, so nothing is ambiguous.
impl FromStr for Attachment {
    type Err = NoAttachment;

    fn from_str(text: &str) -> Result<Self, NoAttachment> {
        let refuse = || NoAttachment(text.to_owned());
        let [network, container_id, ifname] =
            text.split(' ').collect::<Vec<_>>().try_into().map_err(|_: Vec<_>| refuse())?;
        Ok(Self {
            network: network.parse().map_err(|_| refuse())?,
            container_id: container_id.parse().map_err(|_| refuse())?,
            ifname: ifname.parse().map_err(|_| refuse())?,
        })
    }
}

/// One entry of `cni.dev/valid-attachments`: an attachment of the network that GC is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValidAttachment {
    /// `containerID`.
    pub container_id: ContainerId,
    /// `ifname`.
    pub ifname: IfName,
}
