//! A whole table.

use std::fmt::{self, Display, Formatter};

use crate::chain::Chain;
use crate::change::Change;
use crate::check;
use crate::invalid::Invalid;
use crate::set::{Element, Set};
use crate::statement::Statement;
use crate::value::{Family, Value};

/// A table's whole definition. Two tables are equal when they do the same with every packet and hold the same
/// elements and comments.
///
/// Prints as `nft list table` lists it, elements sorted by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
    comment: Option<String>,
    unknown: Vec<String>,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

impl Table {
    /// Checks and makes a table that nft(8) and the kernel take. The order of sets and chains does not matter to what
    /// may refer to what.
    ///
    /// # Errors
    ///
    /// The first thing found that the kernel or nft(8) would refuse: see [`Invalid`].
    pub fn new(
        family: Family,
        name: impl Into<String>,
        comment: Option<&str>,
        sets: Vec<Set>,
        chains: Vec<Chain>,
    ) -> Result<Self, Invalid> {
        let table = Self::observed(family, name, comment.map(Into::into), Vec::new(), sets, chains);
        check::table(&table)?;
        Ok(table)
    }

    /// What a kernel holds, whoever put it there: nothing is checked. It may have types, values, statements and other
    /// properties (`unknown`) that [`Table::new`] refuses, so it can be compared with a checked table and printed, not
    /// committed.
    pub fn observed(
        family: Family,
        name: impl Into<String>,
        comment: Option<String>,
        unknown: Vec<String>,
        mut sets: Vec<Set>,
        mut chains: Vec<Chain>,
    ) -> Self {
        for set in &mut sets {
            set.elements.sort();
        }
        for rule in chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            rule.0.iter_mut().for_each(Statement::trim);
        }
        Self { family, name: name.into(), comment, unknown, sets, chains }
    }

    /// The family of packets it sees.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its comment.
    #[must_use]
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Properties this crate has no words for, described; none in a checked table.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Its sets and maps, elements sorted by key.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// The set or map of that name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Its chains.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The same table with all its sets and maps empty: what stays while elements come and go.
    #[must_use]
    pub fn without_elements(&self) -> Self {
        let mut frame = self.clone();
        for set in &mut frame.sets {
            set.elements.clear();
        }
        frame
    }

    /// The change that adds elements to one of this table's sets or maps.
    ///
    /// # Errors
    ///
    /// When there is no such set, or an element does not fit its types.
    pub fn add_elements(&self, set: &str, elements: Vec<Element>) -> Result<Change, Invalid> {
        let definition = check::find_set(self, set)?;
        elements.iter().try_for_each(|element| check::element(self.family, definition, element))?;
        Ok(Change::AddElements { family: self.family, table: self.name.clone(), set: set.to_owned(), elements })
    }

    /// The change that makes sure one of this table's sets or maps does not hold these keys.
    ///
    /// # Errors
    ///
    /// When there is no such set, or a key does not fit its types.
    pub fn destroy_elements(&self, set: &str, keys: Vec<Vec<Value>>) -> Result<Change, Invalid> {
        let definition = check::find_set(self, set)?;
        keys.iter().try_for_each(|key| check::key(self.family, definition, key))?;
        Ok(Change::DestroyElements { family: self.family, table: self.name.clone(), set: set.to_owned(), keys })
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { family, name, comment, unknown, sets, chains } = self;
        writeln!(f, "table {family} {name} {{")?;
        if let Some(comment) = comment {
            writeln!(f, "\tcomment \"{comment}\"")?;
        }
        unknown.iter().try_for_each(|what| writeln!(f, "\tunknown({what})"))?;
        let blocks = sets.iter().map(|set| set.in_family(*family).to_string());
        let blocks = blocks.chain(chains.iter().map(|chain| chain.in_family(*family).to_string()));
        for (index, block) in blocks.enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            write!(f, "{gap}{block}")?;
        }
        f.write_str("}\n")
    }
}
