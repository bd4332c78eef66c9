//! nf_tables: commit changes of [`nft_model`] to the kernel, read the same values back.
//!
//! [`Nft`] is a netfilter netlink socket of the calling thread's network namespace. [`Nft::commit`] does any number
//! of changes at once or none of them; when it returns, they are in force. Reading gives the values that were
//! written, and for what somebody else wrote values that print as `unknown(...)` and equal none of ours, so that a
//! check is a comparison.
//!
//! # Time
//!
//! Questions take 10 to 40 microseconds, a commit that adds elements 15 to 25. Two things wait for RCU grace periods,
//! 5 to 35 milliseconds: a commit that the kernel refuses, inside [`Nft::commit`], and closing a socket, this or any
//! other, soon after something was deleted, inside `drop`; meanwhile nobody else can commit. So look with
//! [`Nft::table`] before doing what may fail, keep one `Nft` open as long as the process lives, and after removing
//! elements leave it open for about 100 milliseconds if that is possible.
//!
//! # Who may
//!
//! Whoever has CAP_NET_ADMIN in the user namespace that owns the network namespace. There the largest transaction is
//! twice net.core.wmem_max (about 400 KiB, or 4,000 elements with comments); for root of the first user namespace
//! there is no such limit.

mod batch;
mod decode;
mod dnat;
mod encode;
mod message;
mod op;
mod read;
mod refusal;
mod rule;
mod socket;
mod value;
mod xt;

use std::collections::BTreeSet;

use nft_model::{Change, Value};
use nix::errno::Errno;

use self::batch::{Batch, Part, Removal};
pub use self::dnat::{DnatRule, PlainRule};
use self::message::Content;
pub use self::read::TableInfo;
pub use self::refusal::Refusal;
use self::socket::NfSocket;
use crate::Error;

/// How often removing is tried again when keys go away between looking for them and removing them.
const REMOVE_ATTEMPTS: u32 = 20;

/// The number of the whole rule set's state. Every commit by anybody in the network namespace changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation(u32);

/// A connection to nf_tables of the network namespace it was opened in.
#[derive(Debug)]
pub struct Nft {
    socket: NfSocket,
    removal: Removal,
}

impl Nft {
    /// Connects to nf_tables of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NftSocket`] when the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: NfSocket::open()?, removal: Removal::Destroy })
    }

    /// As [`Nft::open`], if the kernel has nf_tables; `None` if it has not.
    ///
    /// # Errors
    ///
    /// [`Error::NftSocket`] and [`Error::NftRead`] when that cannot be found out now.
    pub fn open_if_there() -> Result<Option<Self>, Error> {
        let absent = |errno| matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT));
        let mut nft = match Self::open() {
            Err(Error::NftSocket { source, .. }) if absent(source.raw_os_error().map(Errno::from_raw)) => {
                return Ok(None);
            }
            other => other?,
        };
        match nft.generation() {
            Ok(_) => Ok(Some(nft)),
            // What nfnetlink says of a part that is not there.
            Err(Error::NftRead { source: Refusal::NotSupported | Refusal::Errno(Errno::EINVAL), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does all changes, in order, or none. When it returns they are in force for the next packet.
    ///
    /// # Errors
    ///
    /// [`Error::NftInvalid`] before anything is sent, for what can never be; [`Error::NftRefused`] with what the kernel
    /// refused and why, of several the first; [`Error::NftTooLarge`] for more than one message can carry.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.commit_at(changes, None)
    }

    /// Like [`Nft::commit`], but only if nobody has changed anything since [`Nft::generation`] gave `generation`.
    ///
    /// # Errors
    ///
    /// [`Error::NftGenerationMoved`] if somebody has, and those of [`Nft::commit`].
    pub fn commit_if_unchanged(&mut self, changes: &[Change], generation: Generation) -> Result<(), Error> {
        self.commit_at(changes, Some(generation.0))
    }

    fn commit_at(&mut self, changes: &[Change], generation: Option<u32>) -> Result<(), Error> {
        for change in changes {
            change.check().map_err(|source| Error::NftInvalid { change: batch::describe_change(change), source })?;
        }
        if self.removal == Removal::Delete {
            return self.commit_known_keys(changes, generation);
        }
        match self.send(changes, generation)? {
            None => Ok(()),
            Some(refused) if refused.is_unknown_message() => {
                self.removal = Removal::Delete;
                let result = self.commit_known_keys(changes, generation);
                if result.is_err() {
                    // The same errno can mean a bad key, which says nothing about the kernel.
                    self.removal = Removal::Destroy;
                }
                result
            }
            Some(refused) => Err(refused.error),
        }
    }

    /// Before Linux 6.3: removes only keys that are there, and looks again if one of them has gone meanwhile.
    fn commit_known_keys(&mut self, changes: &[Change], generation: Option<u32>) -> Result<(), Error> {
        for _ in 0..REMOVE_ATTEMPTS {
            let known = changes.iter().map(|change| self.with_known_keys(change)).collect::<Result<Vec<_>, _>>()?;
            match self.send(&known, generation)? {
                Some(refused) if refused.is_missing_key() => {}
                Some(refused) => return Err(refused.error),
                None => return Ok(()),
            }
        }
        Err(Error::NftUnsettled { what: "the keys to remove".to_owned() })
    }

    fn with_known_keys(&mut self, change: &Change) -> Result<Change, Error> {
        let Change::DestroyElements { family, table, set, keys } = change else { return Ok(change.clone()) };
        if !self.has_set(*family, table, set)? {
            return Err(Error::NftRefused { change: change.to_string(), key: None, refusal: Refusal::NotFound });
        }
        // A key that is named twice is gone when its second turn comes.
        let mut known: BTreeSet<&Vec<Value>> = BTreeSet::new();
        for key in keys {
            if self.element(*family, table, set, key)?.is_some() {
                known.insert(key);
            }
        }
        let keys = known.into_iter().cloned().collect();
        Ok(Change::DestroyElements { family: *family, table: table.clone(), set: set.clone(), keys })
    }

    /// Sends a batch. The kernel has done it when `send` returns; errors come first and the one acknowledgement last.
    fn send(&mut self, changes: &[Change], generation: Option<u32>) -> Result<Option<Refused>, Error> {
        let batch = Batch::new(changes, generation, self.removal, |count| self.socket.sequence(count));
        let Some(batch) = batch else { return Ok(None) };
        self.socket.send_whole(&batch.bytes)?;
        let mut refused = None;
        let mut overrun = None;
        loop {
            let replies = match self.socket.receive(batch.sequences()) {
                Ok(Some(replies)) => replies,
                Ok(None) => break,
                // More errors than the socket's buffer holds; the first ones are there.
                Err(Error::NftSocket { source, step }) if source.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    overrun = Some(Error::NftSocket { source, step });
                    continue;
                }
                Err(error) => return Err(error),
            };
            for reply in replies {
                let Some(part) = batch.part(reply.sequence) else { continue };
                match reply.content {
                    Content::Ack if batch.is_last(reply.sequence) && refused.is_none() => return Ok(None),
                    Content::Error { errno, offset } if refused.is_none() => {
                        refused = Some(Refused::new(&batch, part, generation.is_some(), errno, offset));
                    }
                    _ => {}
                }
            }
        }
        match (refused, overrun) {
            (Some(refused), _) => Ok(Some(refused)),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::NftSilent { what: batch.describe(&Part::Frame, None).0 }),
        }
    }
}

/// A batch that the kernel did not do.
#[derive(Debug)]
struct Refused {
    part: Part,
    errno: Errno,
    error: Error,
}

impl Refused {
    fn new(batch: &Batch<'_>, part: &Part, conditional: bool, errno: Errno, offset: Option<usize>) -> Self {
        let error = if conditional && *part == Part::Frame && errno == Errno::ERESTART {
            Error::NftGenerationMoved
        } else {
            let (change, key) = batch.describe(part, offset);
            Error::NftRefused { change, key, refusal: errno.into() }
        };
        Self { part: part.clone(), errno, error }
    }

    /// Before Linux 6.3 there is no message to remove what may not be there.
    fn is_unknown_message(&self) -> bool {
        matches!(self.part, Part::Keys { .. }) && matches!(self.errno, Errno::EINVAL | Errno::EOPNOTSUPP)
    }

    fn is_missing_key(&self) -> bool {
        matches!(self.part, Part::Keys { .. }) && self.errno == Errno::ENOENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use nft_model::{Element, Family, Set, Table, Type};

    fn table() -> Table {
        Table::new(Family::Ip, "t", None, vec![Set::new("ports", [Type::InetService])], vec![]).expect("valid")
    }

    fn add(ports: impl IntoIterator<Item = u16>) -> Change {
        let elements = ports.into_iter().map(|port| Element::new([port.into()])).collect();
        table().add_elements("ports", elements).expect("fits")
    }

    fn destroy(ports: impl IntoIterator<Item = u16>) -> Change {
        table().destroy_elements("ports", ports.into_iter().map(|port| vec![port.into()]).collect()).expect("fits")
    }

    /// As after the first answer of a kernel before 6.3.
    fn old_kernel() -> Nft {
        Nft { removal: Removal::Delete, ..Nft::open().expect("a socket") }
    }

    #[test]
    fn old_kernels_remove_what_is_there() {
        sandbox::private_host(|| {
            let mut nft = old_kernel();
            let missing = nft.commit(&[destroy([1])]);
            assert!(matches!(missing, Err(Error::NftRefused { refusal: Refusal::NotFound, .. })), "{missing:?}");
            nft.commit(&[Change::AddTable(table()), add(1..=5)]).expect("commit");
            nft.commit(&[destroy([2, 9, 4, 2]), add([2])]).expect("commit");
            nft.commit(&[destroy([8, 9])]).expect("nothing to do");
            nft.commit(&[destroy([])]).expect("nothing to do");
            let left = nft.elements(Family::Ip, "t", "ports").expect("readable");
            assert_eq!(left, [1, 2, 3, 5].map(|port| Element::new([Value::Port(port)])));
            let generation = nft.generation().expect("a number");
            nft.commit_if_unchanged(&[destroy([1])], generation).expect("nobody changed anything");
            let moved = nft.commit_if_unchanged(&[destroy([2])], generation);
            assert!(matches!(moved, Err(Error::NftGenerationMoved)), "{moved:?}");
        });
    }

    #[test]
    fn old_kernels_take_racing_removals() {
        sandbox::private_host(|| {
            old_kernel().commit(&[Change::AddTable(table()), add(1..=200)]).expect("commit");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut nft = old_kernel();
                        for port in 1..=200 {
                            nft.commit(&[destroy([port])]).expect("gone, by whomever");
                        }
                    });
                }
            });
            assert!(!old_kernel().has_elements(Family::Ip, "t", "ports").expect("readable"));
        });
    }
}
