//! Steps of a transaction.

use std::fmt::{self, Display, Formatter};

use crate::chain::Rule;
use crate::check;
use crate::invalid::Invalid;
use crate::set::Element;
use crate::table::Table;
use crate::value::{Family, Text, Value, concatenation};

/// One step of a transaction. All steps of a transaction happen or none does.
///
/// Prints as commands of nft(8), one a line, without a newline at the end (a table's block has its own). `destroy` is
/// nft(8) of 1.0.7 and later; everything else is read by 1.0.6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates a table with all it has. Fails if a table of that name exists: of racing creators one wins.
    AddTable(Table),
    /// Deletes a table with all it has. Fails if there is none.
    DeleteTable {
        /// The table's family.
        family: Family,
        /// The table's name.
        name: String,
    },
    /// Deletes a table with all it has, if there is one.
    DestroyTable {
        /// The table's family.
        family: Family,
        /// The table's name.
        name: String,
    },
    /// Adds elements to a set or map. Fails if one of the keys is there already, even with the same data.
    AddElements {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// The set's or map's name.
        set: String,
        /// What is added.
        elements: Vec<Element>,
    },
    /// Removes keys, with what they map to, from a set or map. A key that is not there is no failure.
    DestroyElements {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// The set's or map's name.
        set: String,
        /// The keys to remove.
        keys: Vec<Vec<Value>>,
    },
    /// Removes every rule of a chain.
    FlushChain {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// The chain's name.
        chain: String,
    },
    /// Adds rules at the end of a chain.
    AddRules {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// The chain's name.
        chain: String,
        /// The rules, in order.
        rules: Vec<Rule>,
    },
}

impl Change {
    /// Checks what can be checked without the table's definition: names, comments, families, and that nothing is only
    /// an observation. [`Table::add_elements`] and [`Table::destroy_elements`] check the types as well.
    ///
    /// # Errors
    ///
    /// The first thing found that the kernel or nft(8) would refuse.
    pub fn check(&self) -> Result<(), Invalid> {
        check::change(self)
    }

    /// The family and the name of the table that is changed.
    #[must_use]
    pub fn table(&self) -> (Family, &str) {
        match self {
            Self::AddTable(table) => (table.family(), table.name()),
            Self::DeleteTable { family, name } | Self::DestroyTable { family, name } => (*family, name),
            Self::AddElements { family, table, .. }
            | Self::DestroyElements { family, table, .. }
            | Self::FlushChain { family, table, .. }
            | Self::AddRules { family, table, .. } => (*family, table),
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "{table}"),
            Self::DeleteTable { family, name } => write!(f, "delete table {family} {name}"),
            Self::DestroyTable { family, name } => {
                write!(f, "add table {family} {name}\ndelete table {family} {name}")
            }
            Self::AddElements { family, table, set, elements } => {
                write!(f, "add element {family} {table} {set} ")?;
                braces(f, elements)
            }
            Self::DestroyElements { family, table, set, keys } => {
                write!(f, "destroy element {family} {table} {set} ")?;
                braces(f, keys.iter().map(|key| Text(move |f: &mut Formatter<'_>| concatenation(f, key))))
            }
            Self::FlushChain { family, table, chain } => write!(f, "flush chain {family} {table} {chain}"),
            Self::AddRules { family, table, chain, rules } => {
                for (index, rule) in rules.iter().enumerate() {
                    let gap = if index > 0 { "\n" } else { "" };
                    write!(f, "{gap}add rule {family} {table} {chain} {}", rule.in_family(*family))?;
                }
                Ok(())
            }
        }
    }
}

/// `{ a, b }` on one line.
fn braces<T: Display>(f: &mut Formatter<'_>, parts: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        let start = if index > 0 { ", " } else { "{ " };
        write!(f, "{start}{part}")?;
    }
    f.write_str(" }")
}
