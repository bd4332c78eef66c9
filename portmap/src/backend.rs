//! Which backend is used, and why.

use cni_spec::error::with_causes;
use kernel::iptables::{Flavour, Known, Marks, Tool, marks};
use nft_model::Family;

use crate::error::Error;
use crate::firewall::Nftables;
use crate::ruleset::iptables as rules;
use crate::settings::{Backend, Mark, Settings};

/// The backend that a config chooses: the one it names; otherwise nftables, unless the kernel has none, or the config
/// needs something that only iptables has.
///
/// # Errors
/// [`Error::NoBackend`] if neither can be used; [`Error::Unsupported`] if the one cannot do what the config says.
pub fn choose(settings: &Settings) -> Result<Backend, Error> {
    let backend = preferred(settings)?;
    if backend == Backend::Iptables {
        settings.fit_iptables()?;
    }
    Ok(backend)
}

fn preferred(settings: &Settings) -> Result<Backend, Error> {
    match (settings.backend, &settings.mark) {
        (Some(backend), _) => return Ok(backend),
        (None, Some(Mark::Chain(_))) => return Ok(Backend::Iptables),
        (None, _) => {}
    }
    if Nftables::open_if_there()?.is_some() {
        return Ok(Backend::Nftables);
    }
    match Tool::find(Family::Ip, None) {
        Ok(_) => Ok(Backend::Iptables),
        Err(iptables) => Err(Error::NoBackend(iptables)),
    }
}

/// Both flavours of iptables that have rules of a family, if they have: packets meet the rules of both, and each
/// program shows its own only.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn mixed(family: Family) -> Result<bool, Error> {
    const CHAINS: [&str; 3] = ["PREROUTING", "OUTPUT", "POSTROUTING"];
    let read = |flavour| marks(family, flavour, "nat", &CHAINS).map_err(Error::Iptables);
    let [nft, legacy] = Flavour::ALL.map(read);
    let has_rules = |marks: Marks| marks.values().any(|rules| !rules.is_empty());
    Ok(has_rules(nft?) && has_rules(legacy?))
}

/// Whether the backend that a config chooses can be used, for STATUS. Returns what is wrong without being in the way.
///
/// # Errors
/// [`Error::NoBackend`], or [`Error::Iptables`] if there is no program to write IPv4 rules, or [`Error::MissingExtension`] if
/// there is no table for them.
pub fn ready(settings: &Settings) -> Result<Vec<Error>, Error> {
    if choose(settings)? == Backend::Nftables {
        return Ok(Vec::new());
    }
    let mut remarks = Vec::new();
    for family in Family::ALL {
        match (family, tables(family)) {
            // A node may do without IPv6. That it has no program for it is told elsewhere.
            (_, Ok(())) | (Family::Ip6, Err(Error::Iptables(_))) => {}
            (Family::Ip6, Err(error)) => remarks.push(error),
            (Family::Ip, Err(error)) => return Err(error),
        }
        match mixed(family) {
            Ok(true) => remarks.push(Error::MixedFlavours { family }),
            Ok(false) => {}
            Err(error) => remarks.push(error),
        }
    }
    Ok(remarks)
}

/// Whether the kernel has the tables that our rules are in. Where the kernel does not tell, the first ADD does.
fn tables(family: Family) -> Result<(), Error> {
    let tool = Tool::find(family, None).map_err(Error::Iptables)?;
    let is_lacking = |name| matches!(tool.knows_table(name), Ok(Known::No));
    match rules::tables(family).iter().find(|(name, _)| is_lacking(name)) {
        Some((_, piece)) => Err(Error::MissingExtension { piece, family, flavour: tool.flavour() }),
        None => Ok(()),
    }
}

/// What a person sees who asks which backend this node gets.
#[must_use]
pub fn explain() -> Vec<String> {
    let mut lines = Vec::new();
    match Nftables::open_if_there() {
        Ok(Some(_)) => lines.push("nftables: the kernel has it; it is used unless a config says otherwise".to_owned()),
        Ok(None) => lines.push("nftables: the kernel has none; iptables is used".to_owned()),
        Err(error) => lines.push(format!("nftables: cannot be used: {}", with_causes(&error))),
    }
    for family in Family::ALL {
        let name = if family == Family::Ip { "iptables" } else { "ip6tables" };
        match Tool::find(family, None) {
            Ok(tool) => {
                let version = tool.version().unwrap_or_else(|error| format!("does not run: {error}"));
                lines.push(format!("{name}: {} writes to {}: {version}", tool.program().display(), tool.flavour()));
            }
            Err(error) => lines.push(format!("{name}: {error}")),
        }
        match mixed(family) {
            Ok(true) => lines.push(Error::MixedFlavours { family }.to_string()),
            Ok(false) => {}
            Err(error) => lines.push(format!("{name}: {}", with_causes(&error))),
        }
    }
    lines
}
