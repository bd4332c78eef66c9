//! The nf_tables tables of a config, and the elements of one attachment in them. Pure.

use std::fmt;
use std::net::IpAddr;

use cni_spec::NetworkName;
use macaddr::MacAddr6;
use nft_model::{Change, Element, Family, Table, Value};

use crate::config::{Backend, Config, Guard, Masquerade};
use crate::names::GUARD_TABLE;
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

/// What has a pod's addresses masqueraded by its network's table.
#[must_use]
pub fn masqueraded(table: &str, addresses: &[IpAddr], owner: &str) -> Vec<Placed> {
    let place = |address: &IpAddr| Placed {
        family: Family::of(*address),
        table: table.to_owned(),
        set: masquerade::PODS,
        element: masquerade::element(*address, owner),
    };
    addresses.iter().map(place).collect()
}

/// What guards a pod's link: what may come by it, `mac` being the pod's own, and that nothing else may.
#[must_use]
pub fn guarded(guard: Guard, link: &str, mac: MacAddr6, addresses: &[IpAddr], owner: &str) -> Vec<Placed> {
    let mac = match guard {
        Guard::Off => return Vec::new(),
        Guard::Strict => Some(mac),
        Guard::Addresses => None,
    };
    let place = |family, (set, element)| Placed { family, table: GUARD_TABLE.to_owned(), set, element };
    let senders =
        addresses.iter().map(|address| place(Family::of(*address), guard::sender(link, mac, *address, owner)));
    // Both families: a pod without IPv6 sends none.
    senders.chain(Family::ALL.map(|family| place(family, guard::link(link, owner)))).collect()
}

/// The address in an element's key, if there is one.
#[must_use]
pub fn address_of(element: &Element) -> Option<IpAddr> {
    element.key.iter().find_map(|value| match value {
        Value::Addr(address) => Some(*address),
        _ => None,
    })
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
