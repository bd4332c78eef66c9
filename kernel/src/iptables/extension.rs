//! Which matches and targets of iptables the kernel has.

use std::fmt;

use nft_model::Family;

use super::{Flavour, legacy};
use crate::error::{Error, Result};
use crate::nft::Nft;

/// What a rule of iptables may have besides addresses, protocol and interfaces, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension<'a> {
    /// As `-m` has it: "addrtype".
    Match(&'a str),
    /// As `-j` has it: "MASQUERADE".
    Target(&'a str),
}

/// Whether the kernel has an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// In some revision.
    Yes,
    /// Not this one.
    No,
    /// Nothing answers for any name: what rules of this flavour and family are made of is missing or, of the flavour
    /// "legacy", a module that is not loaded, as the question does not load it.
    NoneAtAll,
}

/// Asks the kernel whether rules of a flavour can have an extension, of whatever revision. No rule, chain or table is
/// changed or made; the kernel loads the extension's module, as it does for the programs of iptables.
///
/// # Errors
/// [`Error::IptablesRead`], or those of [`Nft`], when the kernel refuses to tell.
pub fn extension(family: Family, flavour: Flavour, extension: Extension<'_>) -> Result<Known> {
    match flavour {
        Flavour::Nft => Nft::open_if_there()?.map_or(Ok(Known::NoneAtAll), |mut nft| nft.extension(family, extension)),
        Flavour::Legacy => legacy::extension(family, extension)
            .map_err(|source| Error::IptablesRead { what: extension.to_string(), source }),
    }
}

impl Extension<'_> {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Match(name) | Self::Target(name) => name,
        }
    }

    /// As netlink has it.
    pub(crate) fn kind(self) -> u32 {
        match self {
            Self::Match(_) => 0,
            Self::Target(_) => 1,
        }
    }
}

impl fmt::Display for Extension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(name) => write!(f, "match {name}"),
            Self::Target(name) => write!(f, "target {name}"),
        }
    }
}
