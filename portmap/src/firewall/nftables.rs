//! Our tables in the kernel's nf_tables: looked at, changed, taken away when they are empty.

mod release;
mod trial;

use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use kernel::nft::{Generation, Nft, Refusal};
use nft_model::{Change, Element, Family, Table, Value};

use super::{Claimed, Presence, Stale};

use crate::claim::{self, Batch, Observed};
use crate::config::Config;
use crate::error::Error;
use crate::liveness::Dead;
use crate::owner::Owner;
use crate::record::FOLDER;
use crate::ruleset::{self, Entry, HAIRPIN, LAYOUT, OWNERS, Realm, SETS};

/// How long a change is tried again that others got in the way of. Being told that the generation moved takes 0.1 ms,
/// any other refusal up to 34 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how many changes in vain it is a crowd.
const A_CROWD: u32 = 3;
/// How often it is looked whether a turn has come.
const PAUSE: Duration = Duration::from_millis(2);

/// A socket to nf_tables of the calling thread's network namespace.
pub struct Nftables {
    nft: Nft,
}

/// How a transaction ended, if nothing is wrong.
enum Outcome {
    Done,
    /// Somebody else was quicker, and this is how the kernel said so: look again.
    Raced(kernel::Error),
}

impl Nftables {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or the caller may not use it.
    pub fn open() -> Result<Self, Error> {
        Nft::open().map(|nft| Self { nft }).map_err(Error::Open)
    }

    /// Opens the socket if the kernel has nf_tables.
    ///
    /// # Errors
    /// When that cannot be found out now.
    pub fn open_if_there() -> Result<Option<Self>, Error> {
        Ok(Nft::open_if_there().map_err(Error::Open)?.map(|nft| Self { nft }))
    }

    /// What is there under a table's name.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn presence(&mut self, family: Family, table: &str) -> Result<Presence, Error> {
        let info = self.nft.table(family, table).map_err(|source| reading(family, table, "", source))?;
        Ok(match info {
            None => Presence::Missing,
            Some(info) if info.comment.as_deref() == Some(LAYOUT) => Presence::Ours,
            Some(info) if info.comment.as_deref().is_some_and(ruleset::is_older_layout) => Presence::Older,
            Some(info) => Presence::Foreign(info.comment),
        })
    }

    /// The tables of a family that have a name of ours, the common one first.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, Error> {
        let tables = self.nft.tables(family).map_err(|source| reading(family, "", "", source))?;
        let mut names: Vec<String> =
            tables.into_iter().map(|table| table.name).filter(|name| Realm::is_one(name)).collect();
        names.sort_unstable();
        // While a table is replaced by one of the same name, the kernel may list both.
        names.dedup();
        Ok(names)
    }

    /// A whole table, with all elements.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn read(&mut self, family: Family, table: &str) -> Result<Option<Table>, Error> {
        self.nft.read_table(family, table).map_err(|source| reading(family, table, "", source))
    }

    /// Claims every host port of `config` in one transaction, or none. What the attachment has from an earlier ADD and
    /// does not ask for now is removed by the same transaction, and what one of `dead` holds is taken over by it.
    /// A table of an older layout is made anew before that, with everybody's elements.
    ///
    /// # Errors
    /// [`Error::Held`] when a port is somebody else's; [`Error::BegunAnew`] if one of `dead` is not what it was judged by;
    /// [`Error::Busy`] when others were quicker for seconds.
    pub fn claim(&mut self, config: &Config, dead: &[Dead]) -> Result<Claimed, Error> {
        let marks: Vec<String> = dead.iter().map(Dead::mark).collect();
        let mut claimed = Claimed::default();
        for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
            let realm = Realm::of(config, family);
            if self.presence(family, &realm.table)? == Presence::Older {
                self.repair(&realm)?;
            }
        }
        // What is whole is looked at once: the longer an attempt takes, the more of them are in vain.
        let damaged = !self.repairs(config)?.is_empty();
        self.persist(|firewall| {
            let generation = firewall.generation()?;
            let repairs = if damaged { firewall.repairs(config)? } else { Vec::new() };
            let mut observed = Vec::new();
            for family in Family::ALL {
                observed.extend(firewall.observe(config, &Realm::of(config, family))?);
            }
            let Batch { changes, if_unchanged, lost, replaced } = claim::batch(&config.owner, &marks, &observed)?;
            // Whoever was begun anew since that look, and claims, changes the generation.
            super::heed_begun_anew(dead)?;
            claimed = Claimed { lost, replaced, ..Claimed::default() };
            let if_unchanged = if_unchanged || !repairs.is_empty();
            let changes = [repairs, changes].concat();
            if if_unchanged { firewall.commit_if_unchanged(&changes, generation) } else { firewall.commit(&changes) }
        })?;
        match self.release_elsewhere(config) {
            Ok(lost) => claimed.lost.extend(lost),
            Err(error) => claimed.errors.push(error),
        }
        Ok(claimed)
    }

    /// Removes what the attachment had under other conditions, which is in another table.
    fn release_elsewhere(&mut self, config: &Config) -> Result<Vec<Entry>, Error> {
        let mut lost = Vec::new();
        for family in Family::ALL {
            let own = Realm::of(config, family).table;
            for table in self.tables(family)?.into_iter().filter(|table| *table != own) {
                if self.element_in(family, &table, OWNERS, &config.owner.key(family))?.is_some() {
                    let realm = Realm { table, ..Realm::common(family) };
                    let is_own = |mark: &str| mark == config.owner.comment();
                    lost.extend(self.release_in(&realm, &is_own, &mut |_, _| true)?);
                }
            }
        }
        Ok(lost)
    }

    /// Makes chains and sets of a table of ours, also of an older layout, anew where they are not as an ADD makes them;
    /// elements stay. A table that is not there, or is somebody else's, is left to the next claim.
    ///
    /// # Errors
    /// [`Error::Busy`] when the firewall was changed at every attempt; others when the kernel refuses.
    pub fn repair(&mut self, realm: &Realm) -> Result<(), Error> {
        let (family, name) = (realm.family, &realm.table);
        let frame = ruleset::frame(realm).map_err(Error::RuleSet)?;
        self.persist(|firewall| {
            let generation = firewall.generation()?;
            if !matches!(firewall.presence(family, name)?, Presence::Ours | Presence::Older) {
                return Ok(Outcome::Done);
            }
            let there = firewall.nft.read_frame(family, name).map_err(|source| reading(family, name, "", source))?;
            if there.as_ref() == Some(&frame) {
                return Ok(Outcome::Done);
            }
            let mut changes = vec![Change::DeleteTable { family, name: name.clone() }];
            changes.push(Change::AddTable(frame.clone()));
            for set in SETS {
                let mut elements = firewall.elements_in(family, name, set)?;
                // What does not fit is no element of ours.
                elements.retain(|element| frame.add_elements(set, vec![element.clone()]).is_ok());
                if !elements.is_empty() {
                    changes.push(frame.add_elements(set, elements).map_err(Error::RuleSet)?);
                }
            }
            firewall.commit_if_unchanged(&changes, generation)
        })
    }

    /// Whether the owner has anything in our tables.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn knows(&mut self, owner: &Owner, family: Family) -> Result<bool, Error> {
        Ok(self.element(family, OWNERS, &owner.key(family))?.is_some())
    }

    /// [`super::Firewall::may_have`], by the list of owners, which tables of older layouts need not have. If nobody is on it,
    /// the DEL that took the last one off did not come to its end.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn may_have(&mut self, owner: &Owner, family: Family) -> Result<bool, Error> {
        for table in self.tables(family)? {
            if self.element_in(family, &table, OWNERS, &owner.key(family))?.is_some() {
                return Ok(true);
            }
            let is_sign = match self.presence(family, &table)? {
                Presence::Older => true,
                // The rest of the answer, which is the longer the more owners there are, goes with the socket.
                Presence::Ours => !Self::open()?.has_elements(family, &table, OWNERS)?,
                Presence::Missing | Presence::Foreign(_) => false,
            };
            if is_sign {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// [`super::Firewall::serves`]: every pod that the loopback reaches has an element in one set.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn serves(&mut self, pod: IpAddr, stale: Stale<'_>) -> Result<bool, Error> {
        let (family, key) = (Family::of(pod), [Value::Addr(pod), Value::Addr(pod)]);
        for table in self.tables(family)? {
            let element = self.element_in(family, &table, HAIRPIN, &key)?;
            if element.is_some_and(|element| !element.comment.as_deref().is_some_and(stale)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// [`super::Firewall::pods`], as far as the loopback reaches them.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn pods(&mut self, family: Family, stale: Stale<'_>) -> Result<Vec<IpAddr>, Error> {
        let elements = self.elements(family, HAIRPIN)?.into_iter();
        let living = elements.filter(|element| !element.comment.as_deref().is_some_and(stale));
        Ok(living.filter_map(|element| Entry { set: HAIRPIN, element }.pod()).collect())
    }

    /// The elements of one of our sets, of all our tables.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn elements(&mut self, family: Family, set: &str) -> Result<Vec<Element>, Error> {
        let mut elements = Vec::new();
        for table in self.tables(family)? {
            elements.extend(self.elements_in(family, &table, set)?);
        }
        Ok(elements)
    }

    /// Whether an owner is on the lists of owners whom `wanted` says yes to. The usual yes comes with the first message.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn has_owner(&mut self, family: Family, wanted: &dyn Fn(&Element) -> bool) -> Result<bool, Error> {
        for table in self.tables(family)? {
            let found = found(self.nft.has_element(family, &table, OWNERS, wanted));
            if found.map_err(|source| reading(family, &table, OWNERS, source))? == Some(true) {
                return Ok(true);
            }
        }
        // What one answer lacks may only have been left out of it.
        Ok(self.elements(family, OWNERS)?.iter().any(wanted))
    }

    /// The element of one of our sets that has this key; of several tables, the common one's.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn element(&mut self, family: Family, set: &str, key: &[Value]) -> Result<Option<Element>, Error> {
        for table in self.tables(family)? {
            if let Some(element) = self.element_in(family, &table, set, key)? {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// What is there under these keys of these sets, with what stands for the conditions it is under.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn candidates(
        &mut self,
        family: Family,
        keys: &[(&'static str, Vec<Value>)],
    ) -> Result<Vec<(Entry, Option<String>)>, Error> {
        let (common, limited): (Vec<String>, Vec<String>) =
            self.tables(family)?.into_iter().partition(|table| Realm::condition_of(table).is_none());
        let mut found = Vec::new();
        for table in limited.into_iter().chain(common) {
            for (set, key) in keys {
                let element = self.element_in(family, &table, set, key)?;
                let condition = Realm::condition_of(&table).map(str::to_owned);
                found.extend(element.map(|element| (Entry { set, element }, condition)));
            }
        }
        Ok(found)
    }

    fn elements_in(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let found = found(self.nft.elements(family, table, set));
        found.map(Option::unwrap_or_default).map_err(|source| reading(family, table, set, source))
    }

    fn element_in(&mut self, family: Family, table: &str, set: &str, key: &[Value]) -> Result<Option<Element>, Error> {
        self.nft.element(family, table, set, key).map_err(|source| reading(family, table, set, source))
    }

    /// What fills chains again that somebody emptied, as `nft flush table` does. Rules that were changed are CHECK's
    /// business.
    fn repairs(&mut self, config: &Config) -> Result<Vec<Change>, Error> {
        let mut repairs = Vec::new();
        for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
            let realm = Realm::of(config, family);
            let name = &realm.table;
            if self.presence(family, name)? != Presence::Ours {
                continue;
            }
            let filled = self.nft.filled_chains(family, name).map_err(|source| reading(family, name, "", source))?;
            for chain in ruleset::frame(&realm).map_err(Error::RuleSet)?.chains() {
                if !filled.contains(&chain.name) {
                    let (table, chain, rules) = (name.clone(), chain.name.clone(), chain.rules.clone());
                    repairs.push(Change::AddRules { family, table, chain, rules });
                }
            }
        }
        Ok(repairs)
    }

    /// `None` for a family that the attachment neither has nor needs anything in.
    fn observe(&mut self, config: &Config, realm: &Realm) -> Result<Option<Observed>, Error> {
        let Realm { family, table: name, .. } = realm;
        let family = *family;
        let table = match self.presence(family, name)? {
            Presence::Ours => true,
            Presence::Missing | Presence::Older | Presence::Foreign(_) if !config.maps(family) => return Ok(None),
            Presence::Missing => false,
            Presence::Older => {
                let comment = Some("an older layout, made again meanwhile".to_owned());
                return Err(Error::ForeignTable { family, table: name.clone(), comment });
            }
            Presence::Foreign(comment) => {
                return Err(Error::ForeignTable { family, table: name.clone(), comment });
            }
        };
        let mut entries = Vec::new();
        for entry in ruleset::entries(config, family) {
            let there = if table { self.element_in(family, name, entry.set, &entry.element.key)? } else { None };
            entries.push((entry, there));
        }
        // Reading everybody's elements takes the longer the more there are, so only an attachment that is known pays.
        let known = table && self.element_in(family, name, OWNERS, &config.owner.key(family))?.is_some();
        let is_own = |comment: &str| comment == config.owner.comment();
        let own = if known { self.marked(realm, &is_own)? } else { Vec::new() };
        Ok(Some(Observed { realm: realm.clone(), table, entries, own }))
    }

    /// All elements whose comment `wanted` says yes to.
    fn marked(&mut self, realm: &Realm, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, Error> {
        let mut marked = Vec::new();
        for set in SETS {
            let elements = self.elements_in(realm.family, &realm.table, set)?.into_iter();
            let elements = elements.filter(|element| element.comment.as_deref().is_some_and(wanted));
            marked.extend(elements.map(|element| Entry { set, element }));
        }
        Ok(marked)
    }

    fn generation(&mut self) -> Result<Generation, Error> {
        self.nft.generation().map_err(|source| Error::Read { what: "the generation".to_owned(), source })
    }

    fn has_elements(&mut self, family: Family, table: &str, set: &str) -> Result<bool, Error> {
        let found = found(self.nft.has_elements(family, table, set));
        found.map(|any| any == Some(true)).map_err(|source| reading(family, table, set, source))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Outcome, Error> {
        outcome(self.nft.commit(changes))
    }

    fn commit_if_unchanged(&mut self, changes: &[Change], generation: Generation) -> Result<Outcome, Error> {
        if changes.is_empty() { Ok(Outcome::Done) } else { outcome(self.nft.commit_if_unchanged(changes, generation)) }
    }

    /// Tries until nobody gets in the way. In a crowd, those who were in vain try one at a time.
    fn persist(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<Outcome, Error>) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        let (mut raced, mut turn) = (0, None);
        loop {
            match attempt(self)? {
                Outcome::Done => return Ok(()),
                Outcome::Raced(source) if Instant::now() >= end => return Err(Error::Busy(source)),
                Outcome::Raced(_) => raced += 1,
            }
            if raced >= A_CROWD && turn.is_none() {
                turn = wait_for_turn(end);
            }
        }
    }
}

/// Waits until nobody else who waits here is at it; `None` where that cannot be told, or after `end`. The folder of records is
/// what is locked: it is there for as long as anybody has host ports, and nothing is left of the lock.
fn wait_for_turn(end: Instant) -> Option<File> {
    let folder = File::open(FOLDER).ok()?;
    while Instant::now() < end {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

fn reading(family: Family, table: &str, set: &str, source: kernel::Error) -> Error {
    Error::Read { what: format!("{family} {table} {set}").trim_end().to_owned(), source }
}

/// `None` for what is not there.
fn found<T>(answer: Result<T, kernel::Error>) -> Result<Option<T>, kernel::Error> {
    match answer {
        Err(kernel::Error::NftRead { source: Refusal::NotFound, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// What is there although it was not, or the other way round, came or went after it was looked for.
fn outcome(answer: Result<(), kernel::Error>) -> Result<Outcome, Error> {
    match answer {
        Ok(()) => Ok(Outcome::Done),
        Err(
            raced @ (kernel::Error::NftGenerationMoved
            | kernel::Error::NftRefused { refusal: Refusal::AlreadyExists | Refusal::NotFound, .. }),
        ) => Ok(Outcome::Raced(raced)),
        Err(source) => Err(Error::Commit(source)),
    }
}
