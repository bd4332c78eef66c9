//! Our tables in the kernel: looked at, changed, taken away when they are empty.

use std::time::{Duration, Instant};

use kernel::nft::{Generation, Nft, Refusal};
use nft_model::{Change, Element, Family, Table, Value};

use crate::claim::{self, Batch, Observed};
use crate::config::Config;
use crate::error::Error;
use crate::owner::Owner;
use crate::ruleset::{self, Entry, LAYOUT, OWNERS, SETS, TABLE};

/// How long a change is tried again that others got in the way of. Being told that the generation moved takes 0.1 ms,
/// any other refusal up to 34 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket to nf_tables of the calling thread's network namespace.
pub struct Firewall {
    nft: Nft,
}

/// What is there under our table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Missing,
    /// Our frame.
    Ours,
    /// A table that this version did not make, with its comment.
    Foreign(Option<String>),
}

/// What a claim took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// What the attachment had from an ADD whose DEL was lost.
    pub lost: Vec<Entry>,
    /// What led elsewhere under the same keys, its own and that of dead holders.
    pub replaced: Vec<Entry>,
}

/// How a transaction ended, if nothing is wrong.
enum Outcome {
    Done,
    /// Somebody else was quicker, and this is how the kernel said so: look again.
    Raced(kernel::Error),
}

impl Firewall {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or the caller may not use it.
    pub fn open() -> Result<Self, Error> {
        Nft::open().map(|nft| Self { nft }).map_err(Error::Open)
    }

    /// What is there under our table's name.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn presence(&mut self, family: Family) -> Result<Presence, Error> {
        let table = self.nft.table(family, TABLE).map_err(|source| reading(family, "", source))?;
        Ok(match table {
            None => Presence::Missing,
            Some(info) if info.comment.as_deref() == Some(LAYOUT) => Presence::Ours,
            Some(info) => Presence::Foreign(info.comment),
        })
    }

    /// The whole table, with all elements.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn read(&mut self, family: Family) -> Result<Option<Table>, Error> {
        self.nft.read_table(family, TABLE).map_err(|source| reading(family, "", source))
    }

    /// Claims every host port of `config` in one transaction, or none. What the attachment has from an earlier ADD and
    /// does not ask for now is removed by the same transaction, and what one of `dead` holds is taken over by it.
    ///
    /// # Errors
    /// [`Error::Held`] when a port is somebody else's; [`Error::Busy`] when others were quicker for seconds.
    pub fn claim(&mut self, config: &Config, dead: &[String]) -> Result<Claimed, Error> {
        let mut claimed = Claimed::default();
        self.persist(|firewall| {
            let generation = firewall.generation()?;
            let mut observed = Vec::new();
            for family in Family::ALL {
                observed.extend(firewall.observe(config, family)?);
            }
            let Batch { changes, if_unchanged, lost, replaced } = claim::batch(&config.owner, dead, &observed)?;
            claimed = Claimed { lost, replaced };
            if if_unchanged { firewall.commit_if_unchanged(&changes, generation) } else { firewall.commit(&changes) }
        })?;
        Ok(claimed)
    }

    /// Whether the owner has anything in our table.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn knows(&mut self, owner: &Owner, family: Family) -> Result<bool, Error> {
        let there = self.presence(family)? == Presence::Ours;
        Ok(there && self.element(family, OWNERS, &owner.key(family))?.is_some())
    }

    /// Removes every element whose comment `stale` says yes to. Says which they were.
    ///
    /// # Errors
    /// [`Error::Busy`] when the firewall was changed at every attempt; others when the kernel refuses to tell or to
    /// change. Then nothing was changed.
    pub fn release(&mut self, family: Family, stale: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, Error> {
        let frame = ruleset::frame(family).map_err(Error::RuleSet)?;
        let mut gone = Vec::new();
        self.persist(|firewall| {
            gone = Vec::new();
            // The kernel removes by key alone: without this, a key that was given back and claimed by somebody else
            // in the meantime would be taken from its new holder.
            let generation = firewall.generation()?;
            if firewall.presence(family)? == Presence::Missing {
                return Ok(Outcome::Done);
            }
            let mut changes = Vec::new();
            gone = firewall.marked(family, stale)?;
            for set in SETS {
                let keys: Vec<_> =
                    gone.iter().filter(|entry| entry.set == set).map(|entry| entry.element.key.clone()).collect();
                if !keys.is_empty() {
                    changes.push(frame.destroy_elements(set, keys).map_err(Error::RuleSet)?);
                }
            }
            firewall.commit_if_unchanged(&changes, generation)
        })?;
        Ok(gone)
    }

    /// Deletes our table if nobody has an element in it. An element that comes in the meantime is never lost: the
    /// kernel then refuses, and it is looked at again.
    ///
    /// # Errors
    /// [`Error::Busy`] when the firewall was changed at every attempt; the table is then left, empty.
    pub fn delete_if_empty(&mut self, family: Family) -> Result<(), Error> {
        self.persist(|firewall| {
            let generation = firewall.generation()?;
            if firewall.presence(family)? != Presence::Ours {
                return Ok(Outcome::Done);
            }
            for set in SETS {
                if firewall.has_elements(family, set)? {
                    return Ok(Outcome::Done);
                }
            }
            firewall.commit_if_unchanged(&[Change::DeleteTable { family, name: TABLE.to_owned() }], generation)
        })
    }

    /// The elements of one of our sets; none if there is no such set.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn elements(&mut self, family: Family, set: &str) -> Result<Vec<Element>, Error> {
        let found = found(self.nft.elements(family, TABLE, set));
        found.map(Option::unwrap_or_default).map_err(|source| reading(family, set, source))
    }

    /// The element of one of our sets that has this key.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn element(&mut self, family: Family, set: &str, key: &[Value]) -> Result<Option<Element>, Error> {
        self.nft.element(family, TABLE, set, key).map_err(|source| reading(family, set, source))
    }

    /// `None` for a family that the attachment neither has nor needs anything in.
    fn observe(&mut self, config: &Config, family: Family) -> Result<Option<Observed>, Error> {
        let table = match self.presence(family)? {
            Presence::Ours => true,
            Presence::Missing | Presence::Foreign(_) if !config.maps(family) => return Ok(None),
            Presence::Missing => false,
            Presence::Foreign(comment) => return Err(Error::ForeignTable { family, comment }),
        };
        let mut entries = Vec::new();
        for entry in ruleset::entries(config, family) {
            let there = if table { self.element(family, entry.set, &entry.element.key)? } else { None };
            entries.push((entry, there));
        }
        // Reading everybody's elements takes the longer the more there are, so only an attachment that is known pays.
        let known = table && self.element(family, OWNERS, &config.owner.key(family))?.is_some();
        let is_own = |comment: &str| comment == config.owner.comment();
        let own = if known { self.marked(family, &is_own)? } else { Vec::new() };
        Ok(Some(Observed { family, table, entries, own }))
    }

    /// All elements whose comment `wanted` says yes to.
    fn marked(&mut self, family: Family, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, Error> {
        let mut marked = Vec::new();
        for set in SETS {
            let elements = self.elements(family, set)?.into_iter();
            let elements = elements.filter(|element| element.comment.as_deref().is_some_and(wanted));
            marked.extend(elements.map(|element| Entry { set, element }));
        }
        Ok(marked)
    }

    fn generation(&mut self) -> Result<Generation, Error> {
        self.nft.generation().map_err(|source| Error::Read { what: "the generation".to_owned(), source })
    }

    fn has_elements(&mut self, family: Family, set: &str) -> Result<bool, Error> {
        let found = found(self.nft.has_elements(family, TABLE, set));
        found.map(|any| any == Some(true)).map_err(|source| reading(family, set, source))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Outcome, Error> {
        outcome(self.nft.commit(changes))
    }

    fn commit_if_unchanged(&mut self, changes: &[Change], generation: Generation) -> Result<Outcome, Error> {
        if changes.is_empty() { Ok(Outcome::Done) } else { outcome(self.nft.commit_if_unchanged(changes, generation)) }
    }

    /// Tries until nobody gets in the way.
    fn persist(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<Outcome, Error>) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        loop {
            match attempt(self)? {
                Outcome::Done => return Ok(()),
                Outcome::Raced(source) if Instant::now() >= end => return Err(Error::Busy(source)),
                Outcome::Raced(_) => {}
            }
        }
    }
}

fn reading(family: Family, set: &str, source: kernel::Error) -> Error {
    Error::Read { what: format!("{family} {TABLE} {set}").trim_end().to_owned(), source }
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
