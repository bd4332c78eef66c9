//! Where a chain hooks into the packet path.

use std::fmt::{self, Display, Formatter};

use crate::value::Text;

/// Where a base chain hooks into the packet path. Prints as its line in nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base {
    /// What the chain may do.
    pub kind: Kind,
    /// The point in the packet path.
    pub hook: Hook,
    /// Its place among the chains of the same hook, lowest first.
    pub priority: i32,
    /// What happens to a packet no rule decided about.
    pub policy: Policy,
}

impl Base {
    /// A base that accepts what its rules do not decide.
    #[must_use]
    pub const fn new(kind: Kind, hook: Hook, priority: i32) -> Self {
        Self { kind, hook, priority, policy: Policy::Accept }
    }

    /// `type nat hook prerouting priority dstnat`: destinations of packets that arrive.
    #[must_use]
    pub const fn dstnat() -> Self {
        Self::new(Kind::Nat, Hook::Prerouting, -100)
    }

    /// `type nat hook output priority -100`: destinations of packets this host sends.
    #[must_use]
    pub const fn dstnat_output() -> Self {
        Self::new(Kind::Nat, Hook::Output, -100)
    }

    /// `type nat hook postrouting priority srcnat`: sources of packets that leave.
    #[must_use]
    pub const fn srcnat() -> Self {
        Self::new(Kind::Nat, Hook::Postrouting, 100)
    }

    /// The priority as nft 1.0.6 lists it: by the nearest name it has for the hook, or as a number.
    fn priority_text(self) -> impl Display {
        Text(move |f: &mut Formatter<'_>| {
            let named = NAMED_PRIORITIES.iter().find(|(_, value, hook)| {
                hook.is_none_or(|hook| hook == self.hook) && self.priority.abs_diff(*value) <= 10
            });
            match named {
                None => write!(f, "{}", self.priority),
                Some((name, value, _)) => match i64::from(self.priority) - i64::from(*value) {
                    0 => f.write_str(name),
                    above @ 1.. => write!(f, "{name} + {above}"),
                    below => write!(f, "{name} - {}", -below),
                },
            }
        })
    }
}

/// The names nft(8) has for priorities, and the hook it uses them for. In an output hook it has none for -100.
const NAMED_PRIORITIES: [(&str, i32, Option<Hook>); 6] = [
    ("raw", -300, None),
    ("mangle", -150, None),
    ("dstnat", -100, Some(Hook::Prerouting)),
    ("filter", 0, None),
    ("security", 50, None),
    ("srcnat", 100, Some(Hook::Postrouting)),
];

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, hook, policy, .. } = self;
        write!(f, "type {kind} hook {hook} priority {}; policy {policy};", self.priority_text())
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Accept and drop.
    Filter,
    /// Translate addresses. Sees the first packet of a connection only.
    Nat,
    /// Have changed packets routed again.
    Route,
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        })
    }
}

/// A point in the packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Every packet that arrives, before it is routed.
    Prerouting,
    /// Packets for this host.
    Input,
    /// Packets passing through.
    Forward,
    /// Packets this host sends.
    Output,
    /// Every packet that leaves, after it is routed.
    Postrouting,
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

/// What happens to a packet no rule of a base chain decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}
