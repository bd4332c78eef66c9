//! The nf_tables tables of a config, and the elements of one attachment in them. Pure.

use std::fmt;

use cni_spec::NetworkName;
use nft_model::{Change, Element, Family, Table};

use crate::config::{Backend, Config, Guard, Masquerade};
use crate::{Error, guard, masquerade};

/// What a config asks of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    masquerade: Option<Masquerade>,
    guarded: bool,
}

/// An element, with the set it belongs into. Prints as the command that adds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The set's name.
    pub set: &'static str,
    /// What is in it.
    pub element: Element,
}

impl Rules {
    /// What this config asks for.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let masquerade = config.masquerade.clone().filter(|masquerade| masquerade.backend != Backend::Iptables);
        Self { masquerade, guarded: config.guard != Guard::Off }
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masquerade.is_none() && !self.guarded
    }

    /// Every table, without any pod in it.
    ///
    /// # Errors
    /// [`Error::Rules`].
    pub fn tables(&self, network: &NetworkName) -> Result<Vec<Table>, Error> {
        let mut tables = Vec::new();
        for family in Family::ALL {
            let masquerade = self.masquerade.iter().map(|rules| masquerade::table(network, family, rules));
            let guard = self.guarded.then(|| guard::table(family));
            for table in masquerade.chain(guard) {
                tables.push(table.map_err(|source| Error::Rules { network: network.clone(), source })?);
            }
        }
        Ok(tables)
    }
}

impl Placed {
    /// Whether it belongs into that table.
    #[must_use]
    pub fn is_in(&self, table: &Table) -> bool {
        self.family == table.family() && self.table == table.name()
    }

    /// The change that adds it.
    #[must_use]
    pub fn add(&self) -> Change {
        let Self { family, table, set, element } = self.clone();
        Change::AddElements { family, table, set: set.to_owned(), elements: vec![element] }
    }

    /// The same without the comment: what identifies an element for the kernel.
    #[must_use]
    pub fn key(&self) -> Self {
        Self { element: Element::new(self.element.key.clone()), ..self.clone() }
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, set, element } = self;
        write!(f, "add element {family} {table} {set} {{ {element} }}")
    }
}
