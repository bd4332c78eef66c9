//! Rules of iptables: read in this process, changed by one `iptables-restore` for each family.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use kernel::iptables::{Extension, Flavour, Known, Tool, Turn, extension, is_any_filled, marks};
use nft_model::{Element, Family};

use super::{Claimed, Close, Firewall, Nftables, Presence, Stale};
use crate::claim::{self, Batch, Observed};
use crate::config::Config;
use crate::error::Error;
use crate::liveness::Dead;
use crate::owner::Owner;
use crate::probe;
use crate::remove::Removed;
use crate::ruleset::iptables::{self as rules, Hooked, NAT_CHAINS, Owned, RAW_CHAINS, Seen};
use crate::ruleset::{self, Entry, HAIRPIN, MASQ_ALL, Realm};
use crate::settings::Settings;
use crate::view::View;

/// What processes of this plugin take in turn: rules are removed by number, which another one must not move. The programs
/// that they run hold it too, so that it lasts until a change is made even if the plugin is killed before that.
const LOCK: &str = "/run/podwire/iptables.lock";

/// How long an ADD waits for it: longer than one other may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a DEL or GC waits, for each family and flavour in which there is something to remove: a runtime does not wait
/// for them for ever, and what they cannot release is ended later, by its record.
const PATIENCE_OF_DEL: Duration = Duration::from_secs(10);

/// iptables of the calling thread's network namespace.
#[derive(Debug, Clone, Default)]
pub struct Iptables {
    /// What has been seen in this process' turn; `None` where everything is looked at anew.
    seen: Option<Rc<RefCell<SeenInTurn>>>,
}

type SeenInTurn = BTreeMap<(Family, Flavour), Rc<Seen>>;

/// A change of one family that is worked out and not made.
struct Change {
    tool: Tool,
    text: Option<String>,
    claimed: Claimed,
}

impl Iptables {
    /// Looks at each family and flavour once. For as long as it is this process' turn, and it changes nothing itself: meanwhile
    /// no other process of this plugin changes anything, and a look takes the longer the more rules there are.
    fn in_turn() -> Self {
        Self { seen: Some(Rc::default()) }
    }

    fn see(&self, family: Family, flavour: Flavour) -> Result<Rc<Seen>, Error> {
        let Some(seen) = &self.seen else { return see(family, flavour).map(Rc::new) };
        if let Some(seen) = seen.borrow().get(&(family, flavour)) {
            return Ok(Rc::clone(seen));
        }
        let look = Rc::new(see(family, flavour)?);
        seen.borrow_mut().insert((family, flavour), Rc::clone(&look));
        Ok(look)
    }

    /// Whether there is anything of ours, as far as our chains tell: also where somebody flushed the first one of them.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn is_in_use(&self) -> Result<bool, Error> {
        for family in Family::ALL {
            for flavour in Flavour::ALL {
                if is_any_filled(family, flavour, "nat", &rules::OWN_CHAINS).map_err(Error::Iptables)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What is there under the name of our first chain, in either flavour.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn presence(&self, family: Family) -> Result<Presence, Error> {
        let mut presence = Presence::Missing;
        for flavour in Flavour::ALL {
            let seen = self.see(family, flavour)?;
            if seen.is_foreign() {
                return Ok(Presence::Foreign(None));
            }
            if !seen.is_empty() {
                presence = Presence::Ours;
            }
        }
        Ok(presence)
    }

    /// [`super::Firewall::probe`]: which matches and targets the kernel has, and with the flavour "nft" whether nf_tables has
    /// chains that translate. Whether ip_tables has its tables is not asked: that would make them.
    ///
    /// # Errors
    /// As there.
    pub fn probe(&self, settings: &Settings, family: Family) -> Result<(), Error> {
        let flavour = Tool::find(family, None).map_err(Error::Iptables)?.flavour();
        for piece in rules::pieces(settings, family) {
            let wanted = if piece.is_target { Extension::Target(piece.name) } else { Extension::Match(piece.name) };
            let all = probe::extensions(family, flavour == Flavour::Nft);
            let missing = match (extension(family, flavour, wanted).map_err(Error::Iptables)?, flavour) {
                (Known::Yes, _) => continue,
                (Known::No, _) => piece.module,
                (Known::NoneAtAll, Flavour::Nft) => all,
                (Known::NoneAtAll, Flavour::Legacy) => return Err(Error::NotLoaded { piece: all, family }),
            };
            return Err(Error::MissingExtension { piece: missing, family, flavour });
        }
        match flavour {
            Flavour::Nft => Nftables::open()?.probe_translation(family),
            Flavour::Legacy => Ok(()),
        }
    }

    /// [`super::Firewall::claim`]. Both families are looked at before either is changed.
    ///
    /// # Errors
    /// As there; [`Error::Commit`] may come after the first of two families was changed.
    pub fn claim(&self, config: &Config, dead: &[Dead]) -> Result<Claimed, Error> {
        let may_go = |mark: &str| mark == config.owner.comment() || super::is_dead(dead, mark);
        let lock = turn(PATIENCE)?;
        let (mut changes, mut elsewhere) = (Vec::new(), Vec::new());
        for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
            let change = plan(config, dead, family)?;
            for flavour in Flavour::ALL.into_iter().filter(|flavour| *flavour != change.tool.flavour()) {
                if heed(config, family, flavour, &may_go)? {
                    elsewhere.push((family, flavour));
                }
            }
            changes.push(change);
        }
        // Whoever was begun anew has not claimed before it is its turn.
        super::heed_begun_anew(dead)?;
        let mut claimed = Claimed::default();
        for change in changes {
            if let Some(text) = &change.text {
                change.tool.restore_under(lock.as_fd(), text).map_err(Error::Commit)?;
            }
            claimed.lost.extend(change.claimed.lost);
            claimed.replaced.extend(change.claimed.replaced);
        }
        claimed.errors.extend(look_into_nftables(config, dead).err());
        drop(lock);
        for (family, flavour) in elsewhere {
            // The guard of the flavour that is claimed in stands only where the config maps the family.
            let mut errors = Vec::new();
            let mut close = super::withdraw(&may_go, &mut errors);
            let released = release_in(family, flavour, &may_go, &mut close, &mut claimed.lost);
            drop(close);
            errors.extend(released.err());
            let Removed { remarks, failed } = errors.into();
            claimed.remarks.extend(remarks);
            claimed.errors.extend(failed);
        }
        Ok(claimed)
    }

    /// [`super::Firewall::repair`], where there are chains of ours; the next claim writes all rules of its attachment anew.
    ///
    /// # Errors
    /// When the kernel refuses to tell, or a program to change.
    pub fn repair(&self, family: Family, view: &View) -> Result<(), Error> {
        let lock = turn(PATIENCE)?;
        let tool = Tool::find(family, None).map_err(Error::Iptables)?;
        let seen = see(family, tool.flavour())?;
        if seen.is_empty() || seen.is_foreign() {
            return Ok(());
        }
        match rules::repair(family, &seen, view.hooks(family, "nat"), view.hooks(family, "raw")) {
            Some(text) => tool.restore_under(lock.as_fd(), &text).map_err(Error::Commit),
            None => Ok(()),
        }
    }

    /// [`super::Firewall::knows`].
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn knows(&self, owner: &Owner, family: Family) -> Result<bool, Error> {
        Ok(self.owned(family)?.iter().any(|rule| rule.owner == owner.comment()))
    }

    /// [`super::Firewall::release`], in both flavours, with the frame if nothing is left in it, and where nothing was. Nothing is
    /// run where there is nothing to remove.
    pub fn release(&self, family: Family, stale: Stale<'_>, close: Close<'_>) -> (Vec<Entry>, Vec<Error>) {
        let (mut gone, mut errors) = (Vec::new(), Vec::new());
        for flavour in Flavour::ALL {
            errors.extend(release_in(family, flavour, stale, close, &mut gone).err());
        }
        (gone, errors)
    }

    /// [`super::Firewall::pods`]: where host ports lead to.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn pods(&self, family: Family, stale: Stale<'_>) -> Result<Vec<IpAddr>, Error> {
        let living = self.owned(family)?.into_iter().filter(|rule| !stale(&rule.owner));
        Ok(living.filter_map(|rule| rule.entry).filter_map(|entry| entry.pod()).collect())
    }

    /// [`super::Firewall::elements`].
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn elements(&self, family: Family, set: &str) -> Result<Vec<Element>, Error> {
        let entries = self.owned(family)?.into_iter().filter_map(|rule| rule.entry);
        Ok(entries.filter(|entry| entry.set == set).map(|entry| entry.element).collect())
    }

    /// The rules of attachments, in both flavours.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn owned(&self, family: Family) -> Result<Vec<Owned>, Error> {
        let mut owned = Vec::new();
        for flavour in Flavour::ALL {
            owned.extend(self.owned_in(family, flavour)?);
        }
        Ok(owned)
    }

    /// The same of one flavour.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn owned_in(&self, family: Family, flavour: Flavour) -> Result<Vec<Owned>, Error> {
        Ok(self.see(family, flavour)?.owned())
    }
}

/// Removes in one flavour; adds what is gone to `gone`, also if a part of it had to stay.
fn release_in(
    family: Family,
    flavour: Flavour,
    stale: Stale<'_>,
    close: Close<'_>,
    gone: &mut Vec<Entry>,
) -> Result<(), Error> {
    // Whoever has rules had them before its DEL: a pod without any waits for no lock. Most nodes have nothing here at all.
    let first = see(family, flavour)?;
    let owned = first.owned();
    let is_for_others =
        if owned.is_empty() { first.is_foreign() } else { !owned.iter().any(|rule| stale(&rule.owner)) };
    if first.is_empty() || is_for_others {
        return Ok(());
    }
    let lock = turn(PATIENCE_OF_DEL)?;
    let in_turn = Iptables::in_turn();
    let seen = in_turn.see(family, flavour)?;
    let all = seen.owned();
    let unused = all.is_empty() && !seen.is_empty() && !seen.is_foreign();
    let going: Vec<Owned> = all.into_iter().filter(|rule| stale(&rule.owner)).collect();
    if going.is_empty() && !unused {
        return Ok(());
    }
    let entries: Vec<Entry> = going.iter().filter_map(|rule| rule.entry.clone()).collect();
    let closed = close(&entries, &in_turn);
    let done = take_away(lock.as_fd(), family, flavour, stale, closed, &seen);
    if done.is_ok() {
        gone.extend(entries);
        return Ok(());
    }
    // Each table is changed by itself, and the kernel may have done what the program did not live to say.
    let left = see(family, flavour).map(|seen| seen.owned()).unwrap_or_default();
    let is_left = |entry: &Entry| left.iter().any(|rule| rule.entry.as_ref() == Some(entry));
    gone.extend(entries.into_iter().filter(|entry| !is_left(entry)));
    done
}

/// Removes what was `seen` of those that are gone, and the frame with the last of it. What leads there and was changed by
/// somebody goes by the text that it has now. What others have lead there is theirs: it keeps the frame, and no pod's rule.
/// So does a program that lists nothing.
fn take_away(
    lock: BorrowedFd<'_>,
    family: Family,
    flavour: Flavour,
    stale: Stale<'_>,
    closed: bool,
    seen: &Seen,
) -> Result<(), Error> {
    let going = |seen: &Seen| -> Vec<Owned> { seen.owned().into_iter().filter(|rule| stale(&rule.owner)).collect() };
    let Some(text) = rules::removal(family, seen, &going(seen), &Hooked::as_made(seen), closed) else {
        return Ok(());
    };
    let tool = Tool::of_flavour(family, flavour, None).map_err(Error::Iptables)?;
    let restore = |text: Option<String>| text.map_or(Ok(()), |text| tool.restore_under(lock, &text));
    let is_refused = |done: &Result<(), kernel::Error>| matches!(done, Err(kernel::Error::IptablesRefused { .. }));
    let done = restore(Some(text));
    if !is_refused(&done) || !rules::is_last(seen, &going(seen)) {
        return done.map_err(Error::Commit);
    }
    // Of two tables, the first one may be as it should be by now.
    let seen = see(family, flavour)?;
    let hooked = tool.list("nat").and_then(|nat| {
        let raw = if seen.raw.is_empty() { Vec::new() } else { tool.list("raw")? };
        Ok(Hooked::as_listed(&nat, &raw))
    });
    let source = match hooked {
        Ok(hooked) => match restore(rules::removal(family, &seen, &going(&seen), &hooked, closed)) {
            Err(refused @ kernel::Error::IptablesRefused { .. }) => refused,
            done => return done.map_err(Error::Commit),
        },
        Err(unlisted) => unlisted,
    };
    restore(rules::without_frame(&going(&see(family, flavour)?))).map_err(Error::Commit)?;
    Err(Error::FrameStays { family, flavour, source })
}

/// What is claimed in nf_tables at the same time.
fn look_into_nftables(config: &Config, dead: &[Dead]) -> Result<(), Error> {
    match Nftables::open_if_there()? {
        Some(nftables) => Firewall::Nftables(nftables).heed(config, dead).map(drop),
        None => Ok(()),
    }
}

/// Looks in the other flavour for what is to be claimed: packets meet the rules of both. Says whether there is something of
/// the attachment's own, or under one of its keys of somebody who may go.
fn heed(config: &Config, family: Family, flavour: Flavour, may_go: Stale<'_>) -> Result<bool, Error> {
    let there = see(family, flavour)?.owned();
    let condition = rules::condition(config, family);
    let mut stale = there.iter().any(|rule| rule.owner == config.owner.comment());
    for wanted in ruleset::entries(config, family).iter().filter(|entry| claim::is_claim(entry.set)) {
        for rule in there.iter().filter(|rule| rule.condition == condition) {
            let Some(entry) = &rule.entry else { continue };
            if entry.set != wanted.set || entry.element.key != wanted.element.key {
                continue;
            }
            if !may_go(&rule.owner) {
                return Err(claim::held(family, &entry.element));
            }
            stale = true;
        }
    }
    Ok(stale)
}

fn plan(config: &Config, dead: &[Dead], family: Family) -> Result<Change, Error> {
    let tool = Tool::find(family, None).map_err(Error::Iptables)?;
    let seen = see(family, tool.flavour())?;
    if seen.is_foreign() {
        return Err(Error::ForeignChain { family, chain: rules::TOP });
    }
    let condition = rules::condition(config, family);
    let there = seen.owned();
    let find = |entry: &Entry| {
        let is_it = |rule: &&Owned| {
            let found = rule.entry.as_ref();
            let same = found.is_some_and(|found| found.set == entry.set && found.element.key == entry.element.key);
            same && (rule.condition == condition || [HAIRPIN, MASQ_ALL].contains(&entry.set))
        };
        there.iter().find(is_it)
    };
    let entries = ruleset::entries(config, family);
    let own: Vec<&Owned> = there.iter().filter(|rule| rule.owner == config.owner.comment()).collect();
    let observed = Observed {
        realm: Realm::of(config, family),
        table: true,
        entries: entries
            .iter()
            .map(|entry| (entry.clone(), find(entry).and_then(|rule| rule.entry.clone()).map(|entry| entry.element)))
            .collect(),
        own: own.iter().filter_map(|rule| rule.entry.clone()).collect(),
    };
    let marks: Vec<String> = dead.iter().map(Dead::mark).collect();
    let Batch { lost, replaced, .. } = claim::batch(&config.owner, &marks, &[observed])?;
    // What is taken over goes, and all that was the attachment's own: it is written anew.
    let mut gone: Vec<Owned> = own.into_iter().cloned().collect();
    let taken = entries.iter().filter_map(find);
    gone.extend(taken.filter(|rule| rule.owner != config.owner.comment()).cloned());
    let text = rules::change(family, &seen, &gone, &rules::rules(config, family));
    Ok(Change { tool, text, claimed: Claimed { lost, replaced, ..Claimed::default() } })
}

fn see(family: Family, flavour: Flavour) -> Result<Seen, Error> {
    let read = |table, chains: &[&str]| {
        let what = format!("{family} table {table} of iptables ({flavour})");
        marks(family, flavour, table, chains).map_err(|source| Error::Read { what, source })
    };
    let raw = if family == Family::Ip { read("raw", &RAW_CHAINS)? } else { Default::default() };
    Ok(Seen { nat: read("nat", &NAT_CHAINS)?, raw })
}

/// Waits for the turn of this process among all of this plugin that change rules of iptables.
pub(super) fn turn(patience: Duration) -> Result<Turn, Error> {
    Turn::take_within(Path::new(LOCK), patience).map_err(Error::Turn)
}
