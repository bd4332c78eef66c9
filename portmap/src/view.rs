//! What all firewalls of the node hold, read once: what CHECK compares one attachment with, and `reconcile` all of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use kernel::iptables::{Flavour, Tool};
use nft_model::Family;

use crate::backend;
use crate::config::Config;
use crate::difference::{self, Difference, Found};
use crate::error::Error;
use crate::firewall::{Iptables, Nftables};
use crate::ruleset::iptables::{self as rules, Listed};
use crate::ruleset::{self, Realm};
use crate::settings::Backend;

/// Each part is read when it is asked for first.
#[derive(Default)]
pub struct View {
    nftables: Option<Option<Nftables>>,
    /// Our tables in nf_tables.
    names: BTreeMap<Family, Vec<String>>,
    tables: BTreeMap<(Family, String), Option<Found>>,
    /// The chosen program of iptables, and what it lists of a table.
    tools: BTreeMap<Family, Tool>,
    listings: BTreeMap<(Family, &'static str), Listed>,
    /// What it did not list: a program that hangs is not waited for again.
    unlisted: BTreeSet<(Family, &'static str)>,
    /// Rules of attachments in each flavour of iptables, as texts of their elements, by mark.
    owned: BTreeMap<(Family, Flavour), BTreeMap<String, Vec<String>>>,
}

impl View {
    /// Compares what an attachment's host ports need with what is there, in every backend; `config` is `None` if it asks
    /// for none: then nothing may carry its mark.
    ///
    /// # Errors
    /// When the kernel, or iptables, refuses to tell.
    pub fn differences(&mut self, config: Option<&Config>, mark: &str) -> Result<Vec<Difference>, Error> {
        let backend = config.map(|config| backend::choose(&config.settings)).transpose()?;
        let of = |wanted: Backend| config.filter(|_| backend == Some(wanted));
        let (nftables, iptables) = (of(Backend::Nftables), of(Backend::Iptables));
        let mut all = Vec::new();
        for family in Family::ALL {
            all.extend(self.in_nftables(nftables, mark, family)?);
        }
        for family in Family::ALL {
            let mut chosen = None;
            if let Some(config) = iptables.filter(|config| config.maps(family)) {
                all.extend(self.in_iptables(config, mark, family)?);
                chosen = self.tools.get(&family).map(Tool::flavour);
            }
            for flavour in Flavour::ALL.into_iter().filter(|flavour| Some(*flavour) != chosen) {
                all.extend(self.leftovers(mark, family, flavour)?);
            }
        }
        Ok(all)
    }

    fn in_nftables(&mut self, config: Option<&Config>, mark: &str, family: Family) -> Result<Vec<Difference>, Error> {
        let wanted = config.map_or(Ok(Vec::new()), ruleset::tables).map_err(Error::RuleSet)?;
        let wanted = wanted.iter().find(|table| table.family() == family);
        let own = config.map_or_else(|| Realm::common(family), |config| Realm::of(config, family)).table;
        let mut all = difference::differences(wanted, self.table(family, &own)?, mark);
        for other in self.names(family)?.into_iter().filter(|table| *table != own) {
            all.extend(difference::differences(None, self.table(family, &other)?, mark));
        }
        Ok(all)
    }

    fn in_iptables(&mut self, config: &Config, mark: &str, family: Family) -> Result<Vec<Difference>, Error> {
        let wanted = rules::listing(config, family);
        let mut all = Vec::new();
        for table in ["nat", "raw"] {
            let head = format!("*{table}");
            let of_table = wanted.lines().skip_while(|line| **line != head).take_while(|line| *line != "COMMIT");
            let of_table: Vec<&str> = of_table.filter(|line| line.starts_with("-A ")).collect();
            // IPv6 needs no guard.
            if !of_table.is_empty() {
                let place = format!("{family} table {table} of iptables");
                all.extend(self.listed(family, table)?.differences(&place, &of_table, mark));
            }
        }
        Ok(all)
    }

    /// Rules of an attachment that needs none there.
    fn leftovers(&mut self, mark: &str, family: Family, flavour: Flavour) -> Result<Vec<Difference>, Error> {
        let owned = match self.owned.entry((family, flavour)) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let mut owned = BTreeMap::<String, Vec<String>>::new();
                for rule in Iptables::default().owned_in(family, flavour)? {
                    let text = rule.entry.map_or_else(|| "a rule".to_owned(), |entry| entry.element.to_string());
                    owned.entry(rule.owner).or_default().push(text);
                }
                place.insert(owned)
            }
        };
        let place = format!("{family} table nat of iptables ({flavour})");
        let found = owned.get(mark).into_iter().flatten();
        Ok(found.map(|text| Difference::new(place.clone(), None, Some(text.clone()))).collect())
    }

    fn listed(&mut self, family: Family, table: &'static str) -> Result<&Listed, Error> {
        let tool = match self.tools.entry(family) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Tool::find(family, None).map_err(Error::Iptables)?),
        };
        match self.listings.entry((family, table)) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(_) if self.unlisted.contains(&(family, table)) => Err(Error::Unlisted { family, table }),
            Entry::Vacant(place) => match tool.list(table) {
                Ok(lines) => Ok(place.insert(Listed::new(table, &lines))),
                Err(source) => {
                    self.unlisted.insert((family, table));
                    Err(Error::Iptables(source))
                }
            },
        }
    }

    /// Rules of built-in chains of iptables that say they are this plugin's, of a table that was listed.
    #[must_use]
    pub fn hooks(&self, family: Family, table: &'static str) -> &[String] {
        self.listings.get(&(family, table)).map_or(&[], Listed::hooks)
    }

    fn nftables(&mut self) -> Result<Option<&mut Nftables>, Error> {
        if self.nftables.is_none() {
            self.nftables = Some(Nftables::open_if_there()?);
        }
        Ok(self.nftables.as_mut().and_then(Option::as_mut))
    }

    fn names(&mut self, family: Family) -> Result<Vec<String>, Error> {
        if let Some(names) = self.names.get(&family) {
            return Ok(names.clone());
        }
        let names = self.nftables()?.map_or(Ok(Vec::new()), |nftables| nftables.tables(family))?;
        self.names.insert(family, names.clone());
        Ok(names)
    }

    fn table(&mut self, family: Family, name: &str) -> Result<Option<&Found>, Error> {
        let key = (family, name.to_owned());
        if !self.tables.contains_key(&key) {
            let table = self.nftables()?.map_or(Ok(None), |nftables| nftables.read(family, name))?;
            self.tables.insert(key.clone(), table.as_ref().map(Found::new));
        }
        Ok(self.tables.get(&key).and_then(Option::as_ref))
    }
}
