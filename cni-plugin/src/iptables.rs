//! Masquerade by iptables: read in this process, changed by one `iptables-restore` for each family.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use cni_spec::{Attachment, NetworkName, ValidAttachments};
use kernel::iptables::{Flavour, Tool, Turn, marks};
use nft_model::Family;

use crate::Error;
use crate::diff::Difference;
use crate::masquerade::iptables::listed::{self, Repair, plain};
use crate::masquerade::iptables::{self as rules, Frame, Member, Owned, Seen};

/// What processes of this plugin, and of `podwire-portmap`, take in turn, because rules are removed by number.
const TURNS: &str = "/run/podwire/iptables.lock";

/// Adds the rules of an attachment. What it or its addresses have in the other flavour goes: packets meet both.
///
/// # Errors
/// [`Error::Step`], also if there is no iptables; [`Error::Observe`].
pub fn add(frame: &Frame, members: &[Member]) -> Result<(), Error> {
    let turn = Turn::take(Path::new(TURNS)).map_err(|source| step(words(members), source))?;
    for family in Family::ALL {
        let new: Vec<Member> = members.iter().filter(|member| member.family() == family).cloned().collect();
        if new.is_empty() {
            continue;
        }
        let failed = |source| step(words(&new), source);
        let tool = Tool::find(family, None).map_err(failed)?;
        let replaced = |rule: &Owned| new.iter().any(|one| one.owner == rule.owner || one.address == rule.address);
        let seen = see(frame.network(), family, tool.flavour())?;
        let others = seen.others(replaced);
        let seen = if others.is_empty() {
            seen
        } else {
            // What stayed of them in their network's chain its next ADD would lead packets to again.
            others.iter().try_for_each(|other| remove_in(other, family, tool.flavour(), &turn, &replaced))?;
            see(frame.network(), family, tool.flavour())?
        };
        tool.restore_under(turn.as_fd(), &frame.addition(family, &seen, &new)).map_err(failed)?;
        remove_replaced(frame.network(), family, &tool, &turn, &new)?;
    }
    Ok(())
}

/// What was not as it should be of a family.
pub struct Restored {
    /// What of it, and what puts it right.
    pub repair: Repair,
    /// The program.
    pub program: String,
    /// Why something of these is left in the other flavour.
    pub left: Option<Error>,
}

/// Puts back what is missing of these, of one family, and makes anew what is not as it was; nothing if all is right. `again` tells which of them are wanted still,
/// when nobody else changes rules: pods may be gone since they were listed, and others have their addresses. With `dry_run`
/// nothing is changed. `remarks` gets what could not be looked at, and did not keep rules from being put back.
///
/// # Errors
/// As [`add`]; those of `again`.
pub fn restore(
    frame: &Frame,
    family: Family,
    members: &[Member],
    again: &mut dyn FnMut() -> Result<Vec<Member>, Error>,
    dry_run: bool,
    remarks: &mut BTreeSet<String>,
) -> Result<Option<Restored>, Error> {
    let failed = |source| step(words(members), source);
    let tool = Tool::find(family, None).map_err(failed)?;
    let mut look = |members: &[Member]| {
        let seen = see(frame.network(), family, tool.flavour())?;
        let program = rules::program(family);
        // One rule that nft made and iptables cannot print keeps it from listing the table, and not from adding rules to it.
        let listing = tool.list("nat").map_err(|source| {
            let why = cni_spec::error::with_causes(&Error::Observe { what: format!("table nat of {program}"), source });
            remarks.insert(format!("rules were judged by their comments alone, and may be changed otherwise: {why}"));
        });
        let repair = frame.repair(family, &seen, listing.ok().as_deref(), members);
        Ok(repair.map(|repair| Restored { repair, program: format!("{program}-restore --noflush"), left: None }))
    };
    // Most runs find everything there, and need not wait for their turn.
    let Some(lacked) = look(members)? else { return Ok(None) };
    if dry_run {
        return Ok(Some(lacked));
    }
    let turn = Turn::take(Path::new(TURNS)).map_err(failed)?;
    let members = again()?;
    // Chains are not made for nobody.
    if members.is_empty() {
        return Ok(None);
    }
    let Some(lacked) = look(&members)? else { return Ok(None) };
    tool.restore_under(turn.as_fd(), &lacked.repair.text).map_err(failed)?;
    // Somebody may have chosen the flavour since the ADD.
    let removed = remove_replaced(frame.network(), family, &tool, &turn, &lacked.repair.members);
    Ok(Some(Restored { left: removed.err(), ..lacked }))
}

/// Removes what an attachment has, in both families and flavours; that nothing is there is as good.
///
/// # Errors
/// [`Error::Step`], [`Error::Observe`]; all that could be removed is.
pub fn remove(network: &NetworkName, owner: &str) -> Result<(), Error> {
    remove_where(network, &|rule| rule.owner == owner)
}

/// As [`remove`], but what is of an address that the attachment has again by the time that nobody else changes rules.
///
/// # Errors
/// As [`remove`].
pub fn remove_unless(network: &NetworkName, owner: &str, has: &dyn Fn(IpAddr) -> bool) -> Result<(), Error> {
    remove_where(network, &|rule| rule.owner == owner && !has(rule.address))
}

/// Removes what an attachment, and whoever had its addresses before in whichever network, has from an ADD that no DEL
/// followed. Looks before it waits for its turn.
///
/// # Errors
/// As [`remove`].
pub fn clear(network: &NetworkName, owner: &str, addresses: &[IpAddr]) -> Result<(), Error> {
    let is_gone = |rule: &Owned| rule.owner == owner || addresses.contains(&rule.address);
    if !Path::new(TURNS).exists() {
        return Ok(());
    }
    for family in Family::ALL {
        for flavour in Flavour::ALL {
            let seen = see(network, family, flavour)?;
            if seen.has(is_gone) {
                let locked = |source| step("iptables-restore --noflush".to_owned(), source);
                let turn = Turn::take(Path::new(TURNS)).map_err(locked)?;
                remove_in_all(network, family, flavour, &turn, &is_gone)?;
            }
        }
    }
    Ok(())
}

/// Removes what belongs to no valid attachment of the network.
///
/// # Errors
/// As [`remove`].
pub fn gc(network: &NetworkName, valid: &ValidAttachments) -> Result<(), Error> {
    remove_where(network, &|rule| {
        let owner = rule.owner.parse().ok();
        owner.is_some_and(|attachment: Attachment| attachment.network == *network && !valid.contains(&attachment))
    })
}

/// How the rules differ from what the attachment needs.
///
/// # Errors
/// [`Error::Observe`].
pub fn differences(frame: &Frame, members: &[Member], owner: &str) -> Result<Vec<Difference>, Error> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let own: Vec<Member> = members.iter().filter(|member| member.family() == family).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let program = rules::program(family);
        let unreadable = |source| Error::Observe { what: format!("table nat of {program}"), source };
        let tool = Tool::find(family, None).map_err(unreadable)?;
        let found: Vec<String> = tool.list("nat").map_err(unreadable)?.iter().map(|line| plain(line)).collect();
        let expected = frame.listing(family, &own);
        let commands = |line: &String| format!("{program} -t nat {line}");
        for line in expected.iter().filter(|line| !found.contains(&plain(line))) {
            all.push(Difference { expected: commands(line), found: "no such rule".to_owned() });
        }
        let expected: Vec<String> = expected.iter().map(|line| plain(line)).collect();
        let is_stray = |line: &&String| listed::is_of_owner_or_nobody(frame.network(), owner, line);
        for line in found.iter().filter(|line| !expected.contains(line)).filter(is_stray) {
            let expected = format!("no `{program} -t nat {line}`");
            all.push(Difference { expected, found: "that rule".to_owned() });
        }
        // Whoever comes first decides, so all must be there in their order; what comes once more does so in vain.
        let mut in_order: Vec<&String> = Vec::new();
        for line in found.iter().filter(|line| expected.contains(line)) {
            if !in_order.contains(&line) {
                in_order.push(line);
            }
        }
        let of_chain = |lines: &[&String]| -> Vec<String> {
            let is_of_network = |line: &&&String| listed::is_of_network(frame.network(), line);
            lines.iter().filter(is_of_network).map(|line| (*line).clone()).collect()
        };
        let (wanted, there) = (of_chain(&expected.iter().collect::<Vec<_>>()), of_chain(&in_order));
        if wanted.len() == there.len() && wanted != there {
            all.push(Difference { expected: wanted.join("; "), found: format!("another order: {}", there.join("; ")) });
        }
    }
    Ok(all)
}

/// Whether an ADD of addresses of these families would find the programs it needs.
///
/// # Errors
/// [`Error::Step`].
pub fn is_usable(families: &[Family]) -> Result<(), Error> {
    families.iter().try_for_each(|family| {
        let words = || format!("{}-restore --noflush", rules::program(*family));
        Tool::find(*family, None).map(drop).map_err(|source| step(words(), source))
    })
}

/// Most nodes have nothing here: then nothing is looked at, and no lock is made.
fn remove_where(network: &NetworkName, is_gone: &dyn Fn(&Owned) -> bool) -> Result<(), Error> {
    let locked = |source| step("iptables-restore --noflush".to_owned(), source);
    let Some(turn) = Turn::take_if_ever(Path::new(TURNS)).map_err(locked)? else { return Ok(()) };
    let mut errors = Vec::new();
    for family in Family::ALL {
        for flavour in Flavour::ALL {
            errors.extend(remove_in(network, family, flavour, &turn, is_gone).err());
        }
    }
    Error::all_of(errors)
}

/// Removes what these, of one family, or their addresses have in the flavour that the tool does not write to.
fn remove_replaced(
    network: &NetworkName,
    family: Family,
    tool: &Tool,
    turn: &Turn,
    members: &[Member],
) -> Result<(), Error> {
    let replaced = |rule: &Owned| members.iter().any(|one| one.owner == rule.owner || one.address == rule.address);
    let mut others = Flavour::ALL.into_iter().filter(|flavour| *flavour != tool.flavour());
    others.try_for_each(|flavour| remove_in_all(network, family, flavour, turn, &replaced))
}

/// As [`remove_in`], in the chains of all networks that have such a rule.
fn remove_in_all(
    network: &NetworkName,
    family: Family,
    flavour: Flavour,
    turn: &Turn,
    is_gone: &dyn Fn(&Owned) -> bool,
) -> Result<(), Error> {
    let others = see(network, family, flavour)?.others(is_gone);
    others.iter().chain([network]).try_for_each(|one| remove_in(one, family, flavour, turn, is_gone))
}

fn remove_in(
    network: &NetworkName,
    family: Family,
    flavour: Flavour,
    turn: &Turn,
    is_gone: &dyn Fn(&Owned) -> bool,
) -> Result<(), Error> {
    let seen = see(network, family, flavour)?;
    let Some(text) = seen.removal(is_gone, &seen.hooked()) else { return Ok(()) };
    let words = || {
        let lines = text.lines().filter(|line| line.starts_with('-'));
        lines.map(|line| format!("{} -t nat {line}", rules::program(family))).collect::<Vec<_>>().join("; ")
    };
    let tool = Tool::of_flavour(family, flavour, None).map_err(|source| step(words(), source))?;
    let restore = |text: &str| tool.restore_under(turn.as_fd(), text);
    let Err(refused) = restore(&text) else { return Ok(()) };
    if !matches!(refused, kernel::Error::IptablesRefused { .. }) {
        return Err(step(words(), refused));
    }
    // Somebody has changed what leads to our chains, which goes by the text that it has now.
    let hooked = tool.list("nat").ok().map(|listing| listed::hooked_as_listed(&listing));
    if hooked.and_then(|hooked| seen.removal(is_gone, &hooked)).is_some_and(|text| restore(&text).is_ok()) {
        return Ok(());
    }
    // If that is not it, or cannot be listed, a rule of somebody else leads there, too: it keeps a chain, and no pod.
    let is_done = seen.removal_of_network(is_gone).is_some_and(|text| restore(&text).is_ok());
    if let Some(text) = seen.removal_of_rules(is_gone).filter(|_| !is_done) {
        restore(&text).map_err(|source| step(words(), source))?;
    }
    // A runtime passes standard error on when a plugin succeeds; if even that fails, nobody listens.
    let _ = writeln!(
        std::io::stderr(),
        "chains of masquerade stay in {family} rules of iptables ({flavour}): they could not be removed; the next DEL or GC of \
         network {network} tries again, in vain as long as rules of others lead there: {}",
        cni_spec::error::with_causes(&refused)
    );
    Ok(())
}

fn see(network: &NetworkName, family: Family, flavour: Flavour) -> Result<Seen, Error> {
    let chains = Seen::chains(network);
    let found = marks(family, flavour, "nat", &chains.each_ref().map(String::as_str));
    let unreadable =
        |source| Error::Observe { what: format!("table nat of {} ({flavour})", rules::program(family)), source };
    Ok(Seen::new(network, found.map_err(unreadable)?))
}

fn words(members: &[Member]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn step(step: String, source: kernel::Error) -> Error {
    Error::Step { step, source }
}
