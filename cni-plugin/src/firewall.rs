//! Attachments' elements in nf_tables, and the tables they are in: made with the first pod, gone with the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName, ValidAttachments};
use kernel::nft::{Nft, Refusal, TableInfo};
use nft_model::{Change, Element, Family, Table, Value};

use crate::diff::Difference;
use crate::names::{GUARD_TABLE, Names, is_masquerade_table, masquerade_table};
use crate::reconcile::tables::{self, Repair};
use crate::ruleset::{Placed, Rules, address_of};
use crate::{Error, guard, masquerade};

/// How often a change is tried that other processes got in the way of: each failure means that one of them
/// succeeded.
const TRIES: usize = 256;

/// The tables that a network's attachments can have elements in.
pub struct Firewall {
    nft: Nft,
    network: NetworkName,
}

/// What a table holds of attachments.
struct Held {
    family: Family,
    table: String,
    elements: Vec<(&'static str, Element)>,
}

impl Firewall {
    /// Opens a socket in the node's namespace.
    ///
    /// # Errors
    /// [`Error::NoNftables`], [`Error::Netlink`].
    pub fn open(network: &NetworkName) -> Result<Self, Error> {
        let nft = Nft::open().map_err(|source| match source {
            kernel::Error::NftSocket { source: ref said, .. } if lacks_netfilter(said) => Error::NoNftables { source },
            source => Error::Netlink { place: "the node's namespace", source },
        })?;
        Ok(Self { nft, network: network.clone() })
    }

    /// As [`Firewall::open`]; nothing on a kernel without netfilter, which can hold nothing of ours.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open_if_any(network: &NetworkName) -> Result<Option<Self>, Error> {
        match Self::open(network) {
            Err(Error::NoNftables { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Adds elements, all of them in one transaction, and makes the tables that are not there.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn add(&mut self, rules: &Rules, wanted: &[Placed]) -> Result<(), Error> {
        let frames = rules.tables(&self.network)?;
        let frames: Vec<Table> = frames.into_iter().filter(|frame| wanted.iter().any(|one| one.is_in(frame))).collect();
        for _ in 0..TRIES {
            match self.try_add(&frames, wanted) {
                Err(error) if is_race(&error) => {}
                done => {
                    let words = || wanted.iter().map(|placed| format!("nft {placed}")).collect::<Vec<_>>().join("; ");
                    return done.map_err(|source| step(words(), source));
                }
            }
        }
        Err(self.contended())
    }

    /// Removes what an attachment, and whoever had its addresses before, has from an ADD that no DEL followed. That there is
    /// something is told by single elements: those of its link, which is always called the same, and of its addresses. Where
    /// links are not guarded nothing tells which addresses it had, so everything is searched.
    ///
    /// # Errors
    /// [`Error::Observe`], [`Error::Step`].
    pub fn clear(&mut self, names: &Names, addresses: &[IpAddr], is_guarded: bool) -> Result<(), Error> {
        let mut is_anything = !is_guarded;
        for family in Family::ALL {
            is_anything |= self.has(family, GUARD_TABLE, guard::LINKS, &Value::Ifname(names.host_link.clone()))?;
        }
        let masquerade = masquerade_table(&self.network);
        for address in addresses {
            is_anything |= self.has(Family::of(*address), &masquerade, masquerade::PODS, &Value::Addr(*address))?;
        }
        if !is_anything {
            return Ok(());
        }
        let is_address = |value: &Value| matches!(value, Value::Addr(address) if addresses.contains(address));
        self.remove_where(|element| {
            let is_masqueraded = element.key.len() == 1 && element.key.iter().all(is_address);
            element.comment.as_ref() == Some(&names.owner) || is_masqueraded
        })
    }

    /// Removes addresses from the masquerade of the node's other networks: whoever had them there left them behind. Costs the
    /// same however many pods those have.
    ///
    /// # Errors
    /// [`Error::Observe`], [`Error::Step`].
    pub fn clear_elsewhere(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let own = masquerade_table(&self.network);
        for family in Family::ALL {
            let keys: Vec<Value> =
                addresses.iter().filter(|it| Family::of(**it) == family).copied().map(Value::Addr).collect();
            if keys.is_empty() {
                continue;
            }
            for table in self.nft.tables(family).or_else(|error| none_if_unsupported(family, error))? {
                if table.name == own || !is_masquerade_table(&table.name) {
                    continue;
                }
                for key in &keys {
                    if self.has(family, &table.name, masquerade::PODS, key)? {
                        let look = |firewall: &mut Self| firewall.held_in(family, &table.name, &[masquerade::PODS]);
                        self.remove_from(look, |element| element.key == std::slice::from_ref(key))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes what an attachment has in the tables; that nothing is there is as good.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove(&mut self, owner: &str) -> Result<(), Error> {
        self.remove_where(|element| element.comment.as_deref() == Some(owner))
    }

    /// As [`Firewall::remove`], but what the attachment has again: its link, or an address. An ADD makes links and routes before
    /// it adds anything, and whatever it adds after the look, also what is there already, keeps this from removing it.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove_unless(&mut self, owner: &str, has: impl Fn(Option<IpAddr>) -> bool) -> Result<(), Error> {
        self.remove_where(|element| element.comment.as_deref() == Some(owner) && !has(address_of(element)))
    }

    /// Makes a table as it should be, with these elements of living pods in it, in one transaction; tells what was not. `look`
    /// tells which of them are wanted still, once the generation is read: pods may be gone since they were listed, and others
    /// have their addresses; whoever changes elements after the look keeps this from changing anything. With `dry_run` nothing
    /// is changed.
    ///
    /// # Errors
    /// [`Error::Observe`], [`Error::Step`], [`Error::Contended`]; those of `look`.
    pub fn restore<'a>(
        &mut self,
        frame: &Table,
        wanted: &[&'a Placed],
        look: &mut dyn FnMut() -> Result<Vec<&'a Placed>, Error>,
        dry_run: bool,
    ) -> Result<Repair, Error> {
        let (family, name) = (frame.family(), frame.name());
        let unread = |source| unreadable(family, name, source);
        for _ in 0..TRIES {
            let generation = self.nft.generation().map_err(unread)?;
            let there = self.nft.read_table(family, name).map_err(unread)?;
            let repair = tables::repair(frame, wanted, there.as_ref());
            if dry_run || repair.changes.is_empty() {
                return Ok(repair);
            }
            let wanted = look()?;
            // A table is not made for nobody.
            let repair =
                if wanted.is_empty() { Repair::default() } else { tables::repair(frame, &wanted, there.as_ref()) };
            if repair.changes.is_empty() {
                return Ok(repair);
            }
            match self.nft.commit_if_unchanged(&repair.changes, generation) {
                Err(error) if is_race(&error) => {}
                done => {
                    let words = || format!("restore the table {family} {name}");
                    return done.map(|()| repair).map_err(|source| step(words(), source));
                }
            }
        }
        Err(Error::Contended { table: name.to_owned(), tries: TRIES })
    }

    /// Removes what belongs to no valid attachment of the network.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn gc(&mut self, valid: &ValidAttachments) -> Result<(), Error> {
        let network = self.network.clone();
        self.remove_where(|element| {
            let owner = element.comment.as_deref().and_then(|owner| owner.parse().ok());
            owner.is_some_and(|attachment: Attachment| attachment.network == network && !valid.contains(&attachment))
        })
    }

    /// Every element of an attachment, with its comment.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn elements(&mut self) -> Result<BTreeMap<Placed, Option<String>>, Error> {
        let held = self.held()?;
        let placed = |Held { family, table, elements }: Held| {
            elements.into_iter().map(move |(set, element)| {
                let comment = element.comment;
                let element = Element::new(element.key);
                (Placed { family, table: table.clone(), set, element }, comment)
            })
        };
        Ok(held.into_iter().flat_map(placed).collect())
    }

    /// How the tables that elements are in differ from what they should be, elements aside.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn differences(&mut self, rules: &Rules, wanted: &[Placed]) -> Result<Vec<Difference>, Error> {
        let mut found = Vec::new();
        for expected in rules.tables(&self.network)? {
            if !wanted.iter().any(|one| one.is_in(&expected)) {
                continue;
            }
            let (family, name) = (expected.family(), expected.name());
            let there = self.nft.read_frame(family, name).map_err(|source| unreadable(family, name, source))?;
            if there.as_ref() != Some(&expected) {
                let found_text = there.map_or_else(|| "no such table".to_owned(), |table| table.to_string());
                found.push(Difference { expected: expected.to_string(), found: found_text });
            }
        }
        Ok(found)
    }

    /// Whether nf_tables answers at all.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn is_usable(&mut self) -> Result<(), Error> {
        let answer = self.nft.table(Family::Ip, GUARD_TABLE).map(drop);
        answer.map_err(|source| unreadable(Family::Ip, GUARD_TABLE, source))
    }

    fn try_add(&mut self, frames: &[Table], wanted: &[Placed]) -> kernel::Result<()> {
        let generation = self.nft.generation()?;
        let mut changes = Vec::new();
        let mut removes = false;
        for frame in frames {
            let ours: Vec<&Placed> = wanted.iter().filter(|placed| placed.is_in(frame)).collect();
            let there = self.nft.table(frame.family(), frame.name())?;
            match there {
                None => {
                    changes.push(Change::AddTable(frame.clone()));
                    changes.extend(ours.into_iter().map(Placed::add));
                }
                Some(there) if there.comment.as_deref() == frame.comment() => {
                    for placed in ours {
                        removes |= self.add_to_table(placed, &mut changes)?;
                    }
                }
                // Other rules than those of this config: ours instead, with the same pods.
                Some(_) => {
                    removes = true;
                    self.replace_table(frame, &ours, &mut changes)?;
                }
            }
        }
        if removes { self.nft.commit_if_unchanged(&changes, generation) } else { self.nft.commit(&changes) }
    }

    /// What has to be done for an element; tells whether something is removed by it.
    fn add_to_table(&mut self, placed: &Placed, changes: &mut Vec<Change>) -> kernel::Result<bool> {
        let Placed { family, table, set, element } = placed;
        match self.nft.element(*family, table, set, &element.key)? {
            // The address is ours by the ledger, so the element is a leftover of an owner that is gone. Or it is the very same:
            // whoever put it back for a link that had no routes yet may be about to take it away again, by a look that is
            // older than the routes. Made anew it moves the generation, which keeps him from it.
            Some(_) => changes.push(destroy(*family, table, set, vec![element.key.clone()])),
            None => {
                changes.push(placed.add());
                return Ok(false);
            }
        }
        changes.push(placed.add());
        Ok(true)
    }

    fn replace_table(&mut self, frame: &Table, ours: &[&Placed], changes: &mut Vec<Change>) -> kernel::Result<()> {
        let (family, table) = (frame.family(), frame.name());
        changes.push(Change::DeleteTable { family, name: table.to_owned() });
        changes.push(Change::AddTable(frame.clone()));
        for set in frame.sets() {
            let mut elements = match self.nft.elements(family, table, &set.name) {
                Err(error) if refusal(&error) == Some(Refusal::NotFound) => Vec::new(),
                elements => elements?,
            };
            let wanted: Vec<&Element> =
                ours.iter().filter(|placed| placed.set == set.name).map(|placed| &placed.element).collect();
            elements.retain(|element| wanted.iter().all(|one| one.key != element.key));
            elements.extend(wanted.into_iter().cloned());
            if !elements.is_empty() {
                changes.push(Change::AddElements { family, table: table.to_owned(), set: set.name.clone(), elements });
            }
        }
        Ok(())
    }

    /// Look and removal are tied by the generation. The kernel removes elements by their key alone: of two DELs of
    /// one attachment the later could otherwise take the element of whoever got the address in between. And the
    /// last one out removes the table, unless somebody came in after the look.
    fn remove_where(&mut self, is_gone: impl Fn(&Element) -> bool) -> Result<(), Error> {
        self.remove_from(Self::held, is_gone)
    }

    fn remove_from(
        &mut self,
        look: impl Fn(&mut Self) -> Result<Vec<Held>, Error>,
        is_gone: impl Fn(&Element) -> bool,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let generation = match self.nft.generation() {
                Err(error) if refusal(&error) == Some(Refusal::NotSupported) => return Ok(()),
                generation => generation.map_err(|source| unreadable(Family::Ip, GUARD_TABLE, source))?,
            };
            let changes: Vec<Change> = look(self)?.iter().flat_map(|held| held.without(&is_gone)).collect();
            if changes.is_empty() {
                return Ok(());
            }
            match self.nft.commit_if_unchanged(&changes, generation) {
                Err(error) if is_race(&error) => {}
                done => {
                    let words = || changes.iter().map(|change| format!("nft {change}")).collect::<Vec<_>>().join("; ");
                    return done.map_err(|source| step(words(), source));
                }
            }
        }
        Err(self.contended())
    }

    /// Whether a set has an element; not, if it is not there itself.
    fn has(&mut self, family: Family, table: &str, set: &str, key: &Value) -> Result<bool, Error> {
        match self.nft.element(family, table, set, std::slice::from_ref(key)) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if matches!(refusal(&error), Some(Refusal::NotFound | Refusal::NotSupported)) => Ok(false),
            Err(source) => Err(unreadable(family, table, source)),
        }
    }

    /// What there is of the network's tables and the node's.
    fn held(&mut self) -> Result<Vec<Held>, Error> {
        let tables =
            [(masquerade_table(&self.network), &[masquerade::PODS][..]), (GUARD_TABLE.to_owned(), &guard::SETS)];
        let mut held = Vec::new();
        for family in Family::ALL {
            for (table, sets) in &tables {
                held.extend(self.held_in(family, table, sets)?);
            }
        }
        Ok(held)
    }

    fn held_in(&mut self, family: Family, table: &str, sets: &[&'static str]) -> Result<Vec<Held>, Error> {
        let elements = self.elements_of(family, table, sets)?;
        Ok(elements.map(|elements| Held { family, table: table.to_owned(), elements }).into_iter().collect())
    }

    /// `None` where there is no table: a request about a set of a table that is not there is an error.
    fn elements_of(
        &mut self,
        family: Family,
        table: &str,
        sets: &[&'static str],
    ) -> Result<Option<Vec<(&'static str, Element)>>, Error> {
        // A kernel without nf_tables has nothing of ours in it.
        let nothing = |error: &kernel::Error| matches!(refusal(error), Some(Refusal::NotFound | Refusal::NotSupported));
        match self.nft.table(family, table) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if nothing(&error) => return Ok(None),
            Err(source) => return Err(unreadable(family, table, source)),
        }
        let mut elements = Vec::new();
        for set in sets {
            match self.nft.elements(family, table, set) {
                Ok(found) => elements.extend(found.into_iter().map(|element| (*set, element))),
                Err(error) if nothing(&error) => {}
                Err(source) => return Err(unreadable(family, table, source)),
            }
        }
        Ok(Some(elements))
    }

    fn contended(&self) -> Error {
        let tables = format!("{GUARD_TABLE} and {}", masquerade_table(&self.network));
        Error::Contended { table: tables, tries: TRIES }
    }
}

impl Held {
    /// What has to be done so that the elements that are gone are not there.
    fn without(&self, is_gone: impl Fn(&Element) -> bool) -> Vec<Change> {
        let Self { family, table, elements } = self;
        let (gone, kept): (Vec<_>, Vec<_>) = elements.iter().partition(|(_, element)| is_gone(element));
        if kept.is_empty() {
            return vec![Change::DeleteTable { family: *family, name: table.clone() }];
        }
        let sets: BTreeSet<&str> = gone.iter().map(|(set, _)| *set).collect();
        let keys_of = |wanted: &str| -> Vec<Vec<Value>> {
            gone.iter().filter(|(set, _)| *set == wanted).map(|(_, element)| element.key.clone()).collect()
        };
        sets.into_iter().map(|set| destroy(*family, table, set, keys_of(set))).collect()
    }
}

fn destroy(family: Family, table: &str, set: &str, keys: Vec<Vec<Value>>) -> Change {
    Change::DestroyElements { family, table: table.to_owned(), set: set.to_owned(), keys }
}

fn unreadable(family: Family, table: &str, source: kernel::Error) -> Error {
    Error::Observe { what: format!("the table {family} {table}"), source }
}

/// A kernel without nf_tables has no tables.
fn none_if_unsupported(family: Family, error: kernel::Error) -> Result<Vec<TableInfo>, Error> {
    match refusal(&error) {
        Some(Refusal::NotSupported) => Ok(Vec::new()),
        _ => Err(Error::Observe { what: format!("the tables of {family}"), source: error }),
    }
}

fn step(step: String, source: kernel::Error) -> Error {
    Error::Step { step, source }
}

/// Somebody else made, removed or filled the table between our look and our change.
fn is_race(error: &kernel::Error) -> bool {
    matches!(error, kernel::Error::NftGenerationMoved | kernel::Error::NftUnsettled { .. })
        || matches!(refusal(error), Some(Refusal::NotFound | Refusal::AlreadyExists))
}

/// What socket(2) says where a protocol or a family is not built in.
fn lacks_netfilter(error: &std::io::Error) -> bool {
    [nix::errno::Errno::EPROTONOSUPPORT, nix::errno::Errno::EAFNOSUPPORT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn refusal(error: &kernel::Error) -> Option<Refusal> {
    match error {
        kernel::Error::NftRefused { refusal, .. } | kernel::Error::NftRead { source: refusal, .. } => Some(*refusal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cni_spec::NetConf;

    use super::*;
    use crate::config::{Config, Guard};
    use crate::ruleset;

    /// Whoever looked before an ADD and removes after it could otherwise take what the ADD has found and left to be.
    #[test]
    fn what_an_add_finds_it_makes_anew() {
        sandbox::private_host(|| {
            let addresses = ["10.244.1.9", "fd00:10:244:1::9"].map(|address| address.parse().unwrap());
            let mac = "0a:c8:43:2c:96:41".parse().unwrap();
            let wanted = ruleset::guarded(Guard::Strict, "pw0", mac, &addresses, "podnet one eth0");
            let network = "podnet".parse().unwrap();
            let conf =
                br#"{ "cniVersion": "1.0.0", "name": "podnet", "type": "podwire", "ipam": { "type": "static" } }"#;
            let rules = Rules::of(&Config::of(&NetConf::from_bytes(conf.to_vec()).unwrap()).unwrap());
            let mut adding = Firewall::open(&network).unwrap();
            adding.add(&rules, &wanted).unwrap();
            let there = adding.elements().unwrap();
            assert_eq!(there.len(), wanted.len());

            let mut other = Nft::open().unwrap();
            let before = other.generation().unwrap();
            adding.add(&rules, &wanted).unwrap();
            let Placed { family, table, set, element } = &wanted[1];
            let taken = other.commit_if_unchanged(&[destroy(*family, table, set, vec![element.key.clone()])], before);
            assert!(matches!(taken, Err(kernel::Error::NftGenerationMoved)), "{taken:?}");
            assert_eq!(adding.elements().unwrap(), there);
        });
    }
}
