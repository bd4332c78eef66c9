//! The comments of rules, read from the kernel.

use std::collections::BTreeMap;
use std::io;

use nft_model::Family;

use super::{Flavour, blob, legacy};
use crate::error::{Error, Result};
use crate::nft::Nft;

/// The rules of some chains, in order, each as the comments it has (`-m comment`); an entry for every rule, so that
/// the index and one is the number of the rule for `-D`. A chain that is not there, or is empty, is missing.
pub type Marks = BTreeMap<String, Vec<Vec<String>>>;

/// The rules of these chains of a table, in one flavour. Nothing is there where the kernel lacks the flavour.
///
/// # Errors
/// [`Error::IptablesRead`], or those of [`Nft`], when the kernel refuses to tell.
pub fn marks(family: Family, flavour: Flavour, table: &str, chains: &[&str]) -> Result<Marks> {
    let mut marks = match flavour {
        Flavour::Nft => nft_marks(family, table, chains)?,
        Flavour::Legacy => match legacy::table(family, table) {
            Ok(None) => Marks::new(),
            Ok(Some(found)) => blob::marks(family, &found).ok_or_else(|| {
                let source = io::Error::new(io::ErrorKind::InvalidData, "it looks like no table");
                Error::IptablesRead { what: format!("table {table}"), source }
            })?,
            Err(source) => return Err(Error::IptablesRead { what: format!("table {table}"), source }),
        },
    };
    marks.retain(|chain, rules| chains.contains(&chain.as_str()) && !rules.is_empty());
    Ok(marks)
}

/// Whether any of these chains has rules; with the nft flavour in a time that does not depend on how many.
///
/// # Errors
/// Those of [`marks`].
pub fn is_any_filled(family: Family, flavour: Flavour, table: &str, chains: &[&str]) -> Result<bool> {
    if flavour == Flavour::Legacy {
        return Ok(!marks(family, flavour, table, chains)?.is_empty());
    }
    let Some(mut nft) = Nft::open_if_there()? else { return Ok(false) };
    for chain in chains {
        if nft.has_rules(family, table, chain)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn nft_marks(family: Family, table: &str, chains: &[&str]) -> Result<Marks> {
    // A kernel without nf_tables has no rules there.
    let Some(mut nft) = Nft::open_if_there()? else { return Ok(Marks::new()) };
    if nft.table(family, table)?.is_none() {
        return Ok(Marks::new());
    }
    chains.iter().map(|chain| Ok(((*chain).to_owned(), nft.xt_comments(family, table, chain)?))).collect()
}
