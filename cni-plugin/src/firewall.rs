//! The network's masquerade rules in the kernel: made with its first pod, gone with its last.

use std::net::IpAddr;

use cni_spec::{Attachment, NetworkName, ValidAttachments};
use ipnetwork::IpNetwork;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Element, Family, Table, Value};

use crate::Error;
use crate::config::Masquerade;
use crate::diff::Difference;
use crate::masquerade::{PODS, element, table};
use crate::names::masquerade_table;

/// How often a change is tried that other processes got in the way of: each failure means that one of them
/// succeeded.
const TRIES: usize = 256;

/// One network's table, in both families.
pub struct Firewall {
    nft: Nft,
    network: NetworkName,
    name: String,
}

/// The table together with the rules it should have.
pub struct Masquerading<'a> {
    firewall: Firewall,
    rules: &'a Masquerade,
}

impl<'a> Masquerading<'a> {
    /// Opens a socket in the node's namespace.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open(network: &NetworkName, rules: &'a Masquerade) -> Result<Self, Error> {
        Ok(Self { firewall: Firewall::open(network)?, rules })
    }

    /// Has a pod's address masqueraded, and makes the table if this is its first pod.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn add(&mut self, address: IpAddr, owner: &str) -> Result<(), Error> {
        let frame = frame(&self.firewall.network, Family::of(address), self.rules)?;
        let wanted = element(address, owner);
        for _ in 0..TRIES {
            match self.firewall.try_add(&frame, &wanted) {
                Err(error) if is_race(&error) => {}
                done => {
                    return done.map_err(|source| {
                        step(
                            format!("nft add element {} {} {PODS} {{ {wanted} }}", frame.family(), frame.name()),
                            source,
                        )
                    });
                }
            }
        }
        Err(Error::Contended { table: frame.name().to_owned(), tries: TRIES })
    }
}

impl Firewall {
    /// Opens a socket in the node's namespace.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open(network: &NetworkName) -> Result<Self, Error> {
        let nft = Nft::open().map_err(|source| Error::Netlink { place: "the node's namespace", source })?;
        Ok(Self { nft, network: network.clone(), name: masquerade_table(network) })
    }

    /// As [`Firewall::open`]; nothing on a kernel without netfilter, which can hold nothing of ours.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open_if_any(network: &NetworkName) -> Result<Option<Self>, Error> {
        match Self::open(network) {
            Err(Error::Netlink { source: kernel::Error::NftSocket { source, .. }, .. }) if lacks_netfilter(&source) => {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Removes what an attachment has in the table; that nothing is there is as good.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove(&mut self, owner: &str) -> Result<(), Error> {
        self.remove_where(|element| element.comment.as_deref() == Some(owner))
    }

    /// Removes what belongs to no valid attachment.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn gc(&mut self, valid: &ValidAttachments) -> Result<(), Error> {
        self.remove_where(|element| {
            let owner = element.comment.as_deref().and_then(|owner| owner.parse().ok());
            owner.is_some_and(|attachment: Attachment| !valid.contains(&attachment))
        })
    }

    /// Who is masqueraded, with the comments of the elements.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn pods(&mut self) -> Result<Vec<(IpAddr, Option<String>)>, Error> {
        let mut pods = Vec::new();
        for family in Family::ALL {
            let elements = self.elements(family)?.unwrap_or_default();
            pods.extend(elements.into_iter().filter_map(|element| match element.key.as_slice() {
                [Value::Addr(address)] => Some((*address, element.comment)),
                _ => None,
            }));
        }
        Ok(pods)
    }

    /// How the tables of the addresses' families differ from what they should be, elements aside.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn differences(&mut self, rules: &Masquerade, addresses: &[IpNetwork]) -> Result<Vec<Difference>, Error> {
        let mut found = Vec::new();
        for family in Family::ALL {
            if !addresses.iter().any(|address| Family::of_network(*address) == family) {
                continue;
            }
            let expected = frame(&self.network, family, rules)?;
            let there = self.nft.read_frame(family, &self.name).map_err(|source| self.unreadable(family, source))?;
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
        self.nft.table(Family::Ip, &self.name).map(drop).map_err(|source| self.unreadable(Family::Ip, source))
    }

    fn try_add(&mut self, frame: &Table, wanted: &Element) -> kernel::Result<()> {
        let (family, name) = (frame.family(), frame.name());
        let add = |elements| Change::AddElements { family, table: name.to_owned(), set: PODS.to_owned(), elements };
        let generation = self.nft.generation()?;
        let Some(there) = self.nft.table(family, name)? else {
            return self.nft.commit(&[Change::AddTable(frame.clone()), add(vec![wanted.clone()])]);
        };
        if there.comment.as_deref() != Some(frame.comment().unwrap_or_default()) {
            // The config changed since the table was made: new rules, the same pods, in one transaction.
            let mut pods = self.nft.elements(family, name, PODS)?;
            pods.retain(|element| element.key != wanted.key);
            pods.push(wanted.clone());
            let replace =
                [Change::DeleteTable { family, name: name.to_owned() }, Change::AddTable(frame.clone()), add(pods)];
            return self.nft.commit_if_unchanged(&replace, generation);
        }
        match self.nft.element(family, name, PODS, &wanted.key)? {
            None => self.nft.commit(&[add(vec![wanted.clone()])]),
            Some(same) if same == *wanted => Ok(()),
            // The address is ours by the ledger, so the element is a leftover of an owner that is gone.
            Some(_) => {
                let replace = [destroy(family, name, vec![wanted.key.clone()]), add(vec![wanted.clone()])];
                self.nft.commit_if_unchanged(&replace, generation)
            }
        }
    }

    fn remove_where(&mut self, is_gone: impl Fn(&Element) -> bool) -> Result<(), Error> {
        let errors = Family::ALL.into_iter().filter_map(|family| self.remove_from(family, &is_gone).err()).collect();
        Error::all_of(errors)
    }

    /// Look and removal are tied by the generation. The kernel removes elements by their key alone: of two DELs of
    /// one attachment the later could otherwise take the element of whoever got the address in between. And the
    /// last one out removes the table, unless somebody came in after the look.
    fn remove_from(&mut self, family: Family, is_gone: &impl Fn(&Element) -> bool) -> Result<(), Error> {
        for _ in 0..TRIES {
            let generation = match self.nft.generation() {
                Err(error) if refusal(&error) == Some(Refusal::NotSupported) => return Ok(()),
                generation => generation.map_err(|source| self.unreadable(family, source))?,
            };
            let (gone, kept): (Vec<_>, Vec<_>) = match self.elements(family)? {
                None => return Ok(()),
                Some(elements) => elements.into_iter().partition(is_gone),
            };
            let change = match (gone.is_empty(), kept.is_empty()) {
                (true, false) => return Ok(()),
                (_, true) => Change::DeleteTable { family, name: self.name.clone() },
                (false, false) => destroy(family, &self.name, gone.into_iter().map(|element| element.key).collect()),
            };
            match self.nft.commit_if_unchanged(std::slice::from_ref(&change), generation) {
                Err(error) if is_race(&error) => {}
                done => return done.map_err(|source| step(format!("nft {change}"), source)),
            }
        }
        Err(Error::Contended { table: self.name.clone(), tries: TRIES })
    }

    /// `None` where there is no table: a request about a set of a table that is not there is an error.
    fn elements(&mut self, family: Family) -> Result<Option<Vec<Element>>, Error> {
        let elements = match self.nft.table(family, &self.name) {
            Ok(Some(_)) => self.nft.elements(family, &self.name, PODS).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match elements {
            // A kernel without nf_tables has nothing of ours in it.
            Err(source) if matches!(refusal(&source), Some(Refusal::NotFound | Refusal::NotSupported)) => Ok(None),
            found => found.map_err(|source| self.unreadable(family, source)),
        }
    }

    fn unreadable(&self, family: Family, source: kernel::Error) -> Error {
        Error::Observe { what: format!("the table {family} {}", self.name), source }
    }
}

fn frame(network: &NetworkName, family: Family, rules: &Masquerade) -> Result<Table, Error> {
    table(network, family, rules).map_err(|source| Error::Rules { network: network.clone(), source })
}

fn destroy(family: Family, table: &str, keys: Vec<Vec<Value>>) -> Change {
    Change::DestroyElements { family, table: table.to_owned(), set: PODS.to_owned(), keys }
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
