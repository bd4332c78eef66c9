//! Chains, where they hook in, and rules.

use std::fmt::{self, Display, Formatter};

use crate::statement::Statement;
use crate::value::{Family, Text};

/// A chain: a list of rules, hooked into the kernel's packet path if it is a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name within the table.
    pub name: String,
    /// Where it hooks in; a chain without a base is only jumped to.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// An empty chain that others jump to.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, rules: Vec::new() }
    }

    /// An empty chain hooked into the packet path.
    pub fn base(name: impl Into<String>, base: Base) -> Self {
        Self { name: name.into(), base: Some(base), rules: Vec::new() }
    }

    /// The chain with one more rule at its end.
    #[must_use]
    pub fn with_rule(mut self, rule: impl Into<Rule>) -> Self {
        self.rules.push(rule.into());
        self
    }

    /// The chain with more rules at its end.
    #[must_use]
    pub fn with_rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// The chain's block in a table of `family`, indented by one tab as `nft list` does.
    pub fn in_family(&self, family: Family) -> impl Display + '_ {
        Text(move |f: &mut Formatter<'_>| {
            writeln!(f, "\tchain {} {{", self.name)?;
            if let Some(base) = &self.base {
                writeln!(f, "\t\t{base}")?;
            }
            self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{}", rule.in_family(family)))?;
            f.write_str("\t}\n")
        })
    }
}

/// One rule: statements taken from left to right until one does not match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule(pub Vec<Statement>);

impl Rule {
    /// The rule's line in a table of `family`, without indentation.
    pub fn in_family(&self, family: Family) -> impl Display + '_ {
        Text(move |f: &mut Formatter<'_>| {
            for (index, statement) in self.0.iter().enumerate() {
                let space = if index > 0 { " " } else { "" };
                write!(f, "{space}{}", statement.in_family(family))?;
            }
            Ok(())
        })
    }
}

impl From<Vec<Statement>> for Rule {
    fn from(statements: Vec<Statement>) -> Self {
        Self(statements)
    }
}

impl<const N: usize> From<[Statement; N]> for Rule {
    fn from(statements: [Statement; N]) -> Self {
        Self(statements.into())
    }
}

impl FromIterator<Statement> for Rule {
    fn from_iter<T: IntoIterator<Item = Statement>>(statements: T) -> Self {
        Self(statements.into_iter().collect())
    }
}

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
