//! Taking elements away, and tables that nobody has an element in.

use nft_model::{Change, Family};

use super::{Nftables, Outcome};
use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Close, Iptables, Presence, Stale};
use crate::ruleset::{self, Entry, Realm, SETS};

impl Nftables {
    /// [`Firewall::release`](crate::firewall::Firewall::release), by the comments of elements. In each table all of them go, or none.
    pub fn release(&mut self, family: Family, stale: Stale<'_>, close: Close<'_>) -> (Vec<Entry>, Vec<Error>) {
        let tables = match self.tables(family) {
            Ok(tables) => tables,
            Err(error) => return (Vec::new(), vec![error]),
        };
        let (mut gone, mut errors) = (Vec::new(), Vec::new());
        for table in tables {
            match self.release_in(&Realm { table, ..Realm::common(family) }, stale, close) {
                Ok(entries) => gone.extend(entries),
                Err(error) => errors.push(error),
            }
        }
        (gone, errors)
    }

    /// The same of an attachment that has what its ADD asked for and nothing else: looked up by key, at a cost that does not
    /// depend on what others have. Where something of it is missing, everything is looked at.
    pub fn release_planned(&mut self, config: &Config, family: Family, close: Close<'_>) -> (Vec<Entry>, Vec<Error>) {
        let (realm, planned) = (Realm::of(config, family), ruleset::entries(config, family));
        let mark = config.owner.comment();
        let find = |firewall: &mut Self| {
            let mut own = Vec::new();
            for Entry { set, element } in &planned {
                let there = firewall.element_in(family, &realm.table, set, &element.key)?;
                let there = there.filter(|there| there.comment.as_deref() == Some(mark));
                own.extend(there.map(|element| Entry { set, element }));
            }
            Ok::<_, Error>(own)
        };
        // One that cannot be told is told by what follows.
        if find(self).is_ok_and(|own| own.len() == planned.len()) {
            match self.release_found(&realm, find, close) {
                Ok(gone) => (gone, Vec::new()),
                Err(error) => (Vec::new(), vec![error]),
            }
        } else {
            self.release(family, &|other| other == mark, close)
        }
    }

    pub(super) fn release_in(
        &mut self,
        realm: &Realm,
        stale: Stale<'_>,
        close: Close<'_>,
    ) -> Result<Vec<Entry>, Error> {
        self.release_found(realm, |firewall| firewall.marked(realm, stale), close)
    }

    fn release_found(
        &mut self,
        realm: &Realm,
        find: impl Fn(&mut Self) -> Result<Vec<Entry>, Error>,
        close: Close<'_>,
    ) -> Result<Vec<Entry>, Error> {
        let frame = ruleset::frame(realm).map_err(Error::RuleSet)?;
        let mut gone = Vec::new();
        self.persist(|firewall| {
            gone = Vec::new();
            // The kernel removes by key alone: without this, a key that was given back and claimed by somebody else
            // in the meantime would be taken from its new holder.
            let generation = firewall.generation()?;
            if firewall.presence(realm.family, &realm.table)? == Presence::Missing {
                return Ok(Outcome::Done);
            }
            let mut changes = Vec::new();
            gone = find(firewall)?;
            if !gone.is_empty() {
                // The table, and with it the guard, goes in a transaction of its own.
                close(&gone, &Iptables::default());
            }
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

    /// Deletes our tables that nobody has an element in, if `close` says that what they guard is closed. An element that comes in the meantime is never lost: the
    /// kernel then refuses, and it is looked at again.
    ///
    /// # Errors
    /// [`Error::Busy`] when the firewall was changed at every attempt; the table is then left, empty.
    pub fn delete_if_empty(&mut self, family: Family, close: Close<'_>) -> Result<(), Error> {
        for name in self.tables(family)? {
            self.persist(|firewall| {
                let generation = firewall.generation()?;
                if !matches!(firewall.presence(family, &name)?, Presence::Ours | Presence::Older) {
                    return Ok(Outcome::Done);
                }
                for set in SETS {
                    if firewall.has_elements(family, &name, set)? {
                        return Ok(Outcome::Done);
                    }
                }
                if !close(&[], &Iptables::default()) {
                    return Ok(Outcome::Done);
                }
                firewall.commit_if_unchanged(&[Change::DeleteTable { family, name: name.clone() }], generation)
            })?;
        }
        Ok(())
    }
}
