//! Chains and rules.

use std::fmt::{Display, Formatter};

use crate::base::Base;
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
