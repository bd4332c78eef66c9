//! Where the leases stand.

use std::path::{Path, PathBuf};

use cni_spec::{Attachment, NetConf, NetworkName, ValidAttachments};

use crate::{Error, Released};

/// Where a ledger is and how long to wait for it. Opening it, and closing it again, is every call's own
/// business: nothing is held between calls.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
}

impl Ledger {
    /// Where ledgers are unless `ipam.dataDir` says otherwise: on a tmpfs, as pods and their addresses do not
    /// survive a reboot.
    pub const DEFAULT_DIR: &'static str = "/run/podwire/ipam";

    /// The ledger that a network config names. Looks at nothing but `ipam.dataDir` and the waiting times, so
    /// that DEL and GC go on when the pools of the config have become invalid.
    ///
    /// # Errors
    /// Code 7 if one of these keys has the wrong type or value.
    pub fn from_config(config: &NetConf) -> Result<Self, Error> {
        let _ = config;
        Ok(Self { dir: PathBuf::from(Self::DEFAULT_DIR) })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the attachment's lease; its addresses cool down. An unknown attachment is no error, and neither
    /// is a ledger that cannot be had: the request is then spooled.
    ///
    /// # Errors
    /// Only if not even that was possible.
    pub fn release(&self, attachment: &Attachment) -> Result<Released, Error> {
        let _ = attachment;
        Err(Error::Unfinished)
    }

    /// Ends every lease of the network whose attachment is not in the list, and tells how many. Leases made
    /// after this call began are kept: the list cannot know them.
    ///
    /// # Errors
    /// What could not be released, after all else was; 11 if the ledger is busy.
    pub fn gc(&self, network: &NetworkName, valid: &ValidAttachments) -> Result<usize, Error> {
        let _ = (network, valid);
        Err(Error::Unfinished)
    }
}
