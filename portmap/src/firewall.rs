//! Where mappings are kept: the kernel's nf_tables, or iptables. Both answer the same questions in the same words.

mod iptables;
mod nftables;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cni_spec::Attachment;
use nft_model::{Element, Family, Proto, Value};

pub use self::iptables::Iptables;
pub use self::nftables::Nftables;
use crate::config::Config;
use crate::error::Error;
use crate::liveness::Dead;
use crate::owner::Owner;
use crate::remove::Removed;
use crate::ruleset::{self, EXACT, Entry, Realm, TABLE, WILDCARD};
use crate::settings::{Backend, Settings};
use crate::view::View;
use crate::{backend, claim, localhost};

/// One backend, in the calling thread's network namespace.
pub enum Firewall {
    /// The kernel's nf_tables.
    Nftables(Nftables),
    /// iptables.
    Iptables(Iptables),
}

/// Says yes to the marks of those that are gone.
pub type Stale<'a> = &'a dyn Fn(&str) -> bool;

/// Is told what will be removed, and by what to look at the rules of iptables meanwhile, and says whether what guards open
/// interfaces may go with it.
pub type Close<'a> = &'a mut dyn FnMut(&[Entry], &Iptables) -> bool;

/// What is there under our table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Missing,
    /// Our frame.
    Ours,
    /// The frame of an older version: the next ADD makes it anew.
    Older,
    /// A table that no version up to this one made, with its comment.
    Foreign(Option<String>),
}

/// What a claim took away.
#[derive(Debug, Default)]
pub struct Claimed {
    /// What the attachment had from an ADD whose DEL was lost.
    pub lost: Vec<Entry>,
    /// What led elsewhere under the same keys, its own and that of dead holders.
    pub replaced: Vec<Entry>,
    /// What is worth telling and no reason to give the claim back, as [`Error::is_remark`] says.
    pub remarks: Vec<Error>,
    /// What went wrong after the claim was made, with what the attachment has elsewhere.
    pub errors: Vec<Error>,
}

/// A mapping that packets for an address and port can meet.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it is.
    pub backend: Backend,
    /// What leads to the pod.
    pub entry: Entry,
    /// What stands for the conditions of its network, as [`ruleset::iptables::condition`] has it.
    pub condition: Option<String>,
}

impl Firewall {
    /// nf_tables.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or the caller may not use it.
    pub fn open() -> Result<Self, Error> {
        Nftables::open().map(Self::Nftables)
    }

    /// The backend that a config chooses.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn of(settings: &Settings) -> Result<Self, Error> {
        match backend::choose(settings)? {
            Backend::Nftables => Self::open(),
            Backend::Iptables => Ok(Self::Iptables(Iptables::default())),
        }
    }

    /// Every backend that may hold something: what another config, or another version, left must be found.
    #[must_use]
    pub fn all() -> Vec<Result<Self, Error>> {
        let nftables = Nftables::open_if_there().transpose().map(|open| open.map(Self::Nftables));
        nftables.into_iter().chain([Ok(Self::Iptables(Iptables::default()))]).collect()
    }

    /// Every backend that has anything, as far as that can be told at once.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn in_use() -> Result<Vec<Self>, Error> {
        Self::in_use_by(&Iptables::default())
    }

    /// The same, with this way to look at the rules of iptables.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn in_use_by(iptables: &Iptables) -> Result<Vec<Self>, Error> {
        let nftables = Nftables::open_if_there()?.map(Self::Nftables);
        let iptables = iptables.is_in_use()?.then(|| Self::Iptables(iptables.clone()));
        Ok(nftables.into_iter().chain(iptables).collect())
    }

    /// Which one it is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self {
            Self::Nftables(_) => Backend::Nftables,
            Self::Iptables(_) => Backend::Iptables,
        }
    }

    /// What is there under the name of our common table.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn presence(&mut self, family: Family) -> Result<Presence, Error> {
        match self {
            Self::Nftables(nftables) => nftables.presence(family, TABLE),
            Self::Iptables(iptables) => iptables.presence(family),
        }
    }

    /// Claims every host port of `config`, or none. What the attachment has from an earlier ADD and does not ask for
    /// now is removed at the same time, and what one of `dead` holds is taken over.
    ///
    /// Of two claims at one instant, one in each backend, one at least sees the other, as an error of [`Claimed`]: a claim in
    /// nf_tables looks again after it is made, when it is its turn among claims in iptables, and those look into nf_tables
    /// before their turn ends.
    ///
    /// # Errors
    /// [`Error::Held`] when a port is somebody else's; [`Error::BegunAnew`] if one of `dead` is not what it was judged by;
    /// [`Error::Busy`] when others were quicker for seconds.
    pub fn claim(&mut self, config: &Config, dead: &[Dead]) -> Result<Claimed, Error> {
        let mut other = self.other()?;
        let stale = match &mut other {
            Some(other) => other.heed(config, dead)?,
            None => Vec::new(),
        };
        let mut claimed = match self {
            Self::Nftables(nftables) => nftables.claim(config, dead),
            Self::Iptables(iptables) => iptables.claim(config, dead),
        }?;
        if let Some(mut other) = other {
            for family in stale {
                let may_go = |mark: &str| mark == config.owner.comment() || is_dead(dead, mark);
                // The guard of the backend that is claimed in stands only where the config maps the family.
                let mut errors = Vec::new();
                let mut close = withdraw(&may_go, &mut errors);
                let (gone, failed) = other.release(family, &may_go, &mut close);
                drop(close);
                claimed.lost.extend(gone);
                claimed.errors.extend(errors);
                let Removed { remarks, failed } = failed.into();
                claimed.remarks.extend(remarks);
                claimed.errors.extend(failed);
            }
        }
        if let Self::Nftables(_) = self {
            claimed.errors.extend(look_into_iptables(config, dead).err());
        }
        Ok(claimed)
    }

    /// The backend that is not this one, if it has anything of ours: networks of one node may use both.
    fn other(&self) -> Result<Option<Self>, Error> {
        match self {
            Self::Nftables(_) if Iptables::default().is_in_use()? => Ok(Some(Self::Iptables(Iptables::default()))),
            Self::Nftables(_) => Ok(None),
            Self::Iptables(_) => Ok(Nftables::open_if_there()?.map(Self::Nftables)),
        }
    }

    /// Looks here for what is to be claimed in the other backend, under whatever conditions: of two backends it is chance
    /// which one packets meet first. Says in which families there is something of the
    /// attachment's own, or of `dead` under one of its keys.
    fn heed(&mut self, config: &Config, dead: &[Dead]) -> Result<Vec<Family>, Error> {
        let mut stale = Vec::new();
        for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
            for entry in ruleset::entries(config, family).iter().filter(|entry| claim::is_claim(entry.set)) {
                for there in self.at_key(family, entry.set, &entry.element.key)? {
                    let mark = there.comment.as_deref().unwrap_or_default();
                    if mark != config.owner.comment() && !is_dead(dead, mark) {
                        return Err(claim::held(family, &there));
                    }
                    stale.push(family);
                }
            }
        }
        for family in Family::ALL {
            if self.knows(&config.owner, family)? {
                stale.push(family);
            }
        }
        stale.sort_unstable();
        stale.dedup();
        Ok(stale)
    }

    fn at_key(&mut self, family: Family, set: &'static str, key: &[Value]) -> Result<Vec<Element>, Error> {
        match self {
            Self::Nftables(nftables) => {
                let found = nftables.candidates(family, &[(set, key.to_vec())])?;
                Ok(found.into_iter().map(|(entry, _)| entry.element).collect())
            }
            Self::Iptables(iptables) => {
                Ok(iptables.elements(family, set)?.into_iter().filter(|element| element.key == key).collect())
            }
        }
    }

    /// Whether an ADD with these settings would find all that its rules need.
    ///
    /// # Errors
    /// [`Error::MissingPiece`]; with iptables, [`Error::MissingExtension`] too, a program that is missing, and
    /// [`Error::NotLoaded`] if that cannot be told before a program has run.
    pub fn probe(&mut self, settings: &Settings, family: Family) -> Result<(), Error> {
        match self {
            Self::Nftables(nftables) => nftables.probe(family),
            Self::Iptables(iptables) => iptables.probe(settings, family),
        }
    }

    /// Makes what all mappings of a config share anew where it is not as an ADD makes it, which `view` showed; other
    /// attachments' elements stay.
    ///
    /// # Errors
    /// [`Error::Busy`] when the firewall was changed at every attempt; others when the kernel refuses.
    pub fn repair(&mut self, config: &Config, view: &View) -> Result<(), Error> {
        for family in Family::ALL.into_iter().filter(|family| config.maps(*family)) {
            match self {
                Self::Nftables(nftables) => nftables.repair(&Realm::of(config, family))?,
                Self::Iptables(iptables) => iptables.repair(family, view)?,
            }
        }
        Ok(())
    }

    /// Whether the owner has anything.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn knows(&mut self, owner: &Owner, family: Family) -> Result<bool, Error> {
        match self {
            Self::Nftables(nftables) => nftables.knows(owner, family),
            Self::Iptables(iptables) => iptables.knows(owner, family),
        }
    }

    /// Whether the owner may have something, as far as that can be told without reading what others have, or somebody
    /// has left a frame in which nobody has anything.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn may_have(&mut self, owner: &Owner, family: Family) -> Result<bool, Error> {
        match self {
            Self::Nftables(nftables) => nftables.may_have(owner, family),
            // Rules have no other order than that of the packets' way.
            Self::Iptables(_) => Ok(true),
        }
    }

    /// Removes everything whose owner `stale` says yes to. Says what that was, also if not all of it could be removed.
    /// Before it goes, `close` is told, and says whether the guard may go with the last of it.
    pub fn release(&mut self, family: Family, stale: Stale<'_>, close: Close<'_>) -> (Vec<Entry>, Vec<Error>) {
        match self {
            Self::Nftables(nftables) => nftables.release(family, stale, close),
            Self::Iptables(iptables) => iptables.release(family, stale, close),
        }
    }

    /// The same of an attachment that has what `config` asks for and nothing else.
    pub fn release_planned(&mut self, config: &Config, family: Family, close: Close<'_>) -> (Vec<Entry>, Vec<Error>) {
        match self {
            Self::Nftables(nftables) => nftables.release_planned(config, family, close),
            Self::Iptables(iptables) => iptables.release(family, &|mark| mark == config.owner.comment(), close),
        }
    }

    /// Whether there is a pod of this address, of an owner that `stale` says no to.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn serves(&mut self, pod: IpAddr, stale: Stale<'_>) -> Result<bool, Error> {
        match self {
            Self::Nftables(nftables) => nftables.serves(pod, stale),
            Self::Iptables(iptables) => Ok(iptables.pods(Family::of(pod), stale)?.contains(&pod)),
        }
    }

    /// The pods of owners that `stale` says no to.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn pods(&mut self, family: Family, stale: Stale<'_>) -> Result<Vec<IpAddr>, Error> {
        match self {
            Self::Nftables(nftables) => nftables.pods(family, stale),
            Self::Iptables(iptables) => iptables.pods(family, stale),
        }
    }

    /// Whether anybody has anything whom `stale` says no to.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn is_used(&mut self, family: Family, stale: Stale<'_>) -> Result<bool, Error> {
        match self {
            Self::Nftables(nftables) => {
                nftables.has_owner(family, &|element| !element.comment.as_deref().is_some_and(stale))
            }
            Self::Iptables(iptables) => Ok(iptables.owned(family)?.iter().any(|rule| !stale(&rule.owner))),
        }
    }

    /// Deletes what is there for nobody any more, if `close` says that what it guards is closed. Says what went wrong. In iptables
    /// that is what [`Firewall::release`] has done.
    pub fn delete_if_empty(&mut self, family: Family, close: Close<'_>) -> Vec<Error> {
        match self {
            Self::Nftables(nftables) => nftables.delete_if_empty(family, close).err().into_iter().collect(),
            Self::Iptables(_) => Vec::new(),
        }
    }

    /// The elements of one of our sets.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn elements(&mut self, family: Family, set: &str) -> Result<Vec<Element>, Error> {
        match self {
            Self::Nftables(nftables) => nftables.elements(family, set),
            Self::Iptables(iptables) => iptables.elements(family, set),
        }
    }

    /// The mappings that a packet for this address and port can meet, in the order in which it meets them: those of networks
    /// with conditions first, and exact ones before those for all addresses. With iptables, the order of its rules.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn candidates(&mut self, to: SocketAddr, protocol: Proto) -> Result<Vec<Candidate>, Error> {
        let family = Family::of(to.ip());
        let port = [Value::Proto(protocol), Value::Port(to.port())];
        let exact: Vec<Value> = [Value::Addr(to.ip())].into_iter().chain(port.clone()).collect();
        let keys = [(EXACT, exact), (WILDCARD, port.to_vec())];
        let backend = self.backend();
        let found = match self {
            Self::Nftables(nftables) => nftables.candidates(family, &keys)?,
            Self::Iptables(iptables) => {
                let is_key =
                    |entry: &Entry| keys.iter().any(|(set, key)| entry.set == *set && entry.element.key == *key);
                let rules = iptables.owned(family)?.into_iter();
                rules.filter_map(|rule| Some((rule.entry.filter(is_key)?, rule.condition))).collect()
            }
        };
        Ok(found.into_iter().map(|(entry, condition)| Candidate { backend, entry, condition }).collect())
    }

    /// The element of one of our sets that has this key.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn element(&mut self, family: Family, set: &str, key: &[Value]) -> Result<Option<Element>, Error> {
        match self {
            Self::Nftables(nftables) => nftables.element(family, set, key),
            Self::Iptables(iptables) => {
                Ok(iptables.elements(family, set)?.into_iter().find(|element| element.key == key))
            }
        }
    }
}

/// Whether an attachment certainly has nothing in nf_tables.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn has_nothing_of(attachment: &Attachment) -> Result<bool, Error> {
    let (owner, Some(mut nftables)) = (Owner::new(attachment)?, Nftables::open_if_there()?) else { return Ok(true) };
    for family in Family::ALL {
        if nftables.may_have(&owner, family)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Who has mappings in any backend, and where they lead.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn holders() -> Result<BTreeMap<Attachment, Vec<IpAddr>>, Error> {
    let mut holders = BTreeMap::<Attachment, Vec<IpAddr>>::new();
    for firewall in Firewall::all() {
        let mut firewall = firewall?;
        for (family, set) in Family::ALL.into_iter().flat_map(|family| [EXACT, WILDCARD].map(|set| (family, set))) {
            for element in firewall.elements(family, set)? {
                let Some(Ok(holder)) = element.comment.as_deref().map(str::parse) else { continue };
                holders.entry(holder).or_default().extend(Entry { set, element }.pod());
            }
        }
    }
    Ok(holders)
}

/// Closes interfaces before what guards them goes with the last mappings; what a claim needs is opened after it. What goes
/// wrong is added to `errors`, and then the guard stays.
fn withdraw<'a>(stale: Stale<'a>, errors: &'a mut Vec<Error>) -> impl FnMut(&[Entry], &Iptables) -> bool + 'a {
    move |going, iptables| {
        let closed = localhost::withdraw(going, stale, iptables).and_then(|()| localhost::close_rest(stale, iptables));
        closed.map_err(|error| errors.push(error)).is_ok()
    }
}

/// Whether a mark is that of a dead holder.
fn is_dead(dead: &[Dead], mark: &str) -> bool {
    dead.iter().any(|dead| dead.mark() == mark)
}

/// What is claimed there at the same time; nothing where nobody uses it.
fn look_into_iptables(config: &Config, dead: &[Dead]) -> Result<(), Error> {
    let iptables = Iptables::default();
    if !iptables.is_in_use()? {
        return Ok(());
    }
    let _turn = iptables::turn(iptables::PATIENCE)?;
    Firewall::Iptables(iptables).heed(config, dead).map(drop)
}

/// # Errors
/// [`Error::BegunAnew`] for the first that is not what it was judged by.
fn heed_begun_anew(dead: &[Dead]) -> Result<(), Error> {
    let anew = dead.iter().find(|dead| !dead.is_still_dead());
    anew.map_or(Ok(()), |dead| Err(Error::BegunAnew(dead.attachment.clone())))
}
