//! Whether the node forwards what is translated.

use cni_spec::error::with_causes;
use kernel::iptables::{Flavour, Tool, marks};
use kernel::nft::Nft;
use kernel::sysctl;
use nft_model::{Family, Hook};

use super::{Stopped, Trace};
use crate::error::Error;

const STEP: &str = "forwarding";

/// The switch of the family; and chains of filters that drop, which are worth a look: whether one of their rules accepts
/// is not worked out here.
pub(super) fn allowed(family: Family, trace: &mut Trace) -> Result<(), Stopped> {
    let key = match family {
        Family::Ip => "net/ipv4/ip_forward",
        Family::Ip6 => "net/ipv6/conf/all/forwarding",
    };
    let dotted = key.replace('/', ".");
    if !sysctl::get(key).is_ok_and(|value| value != "0") {
        return Err(trace.stop(
            STEP,
            format!("{dotted} is off: only the node itself reaches its pods"),
            format!("sysctl -w {dotted}=1"),
        ));
    }
    trace.ok(STEP, format!("{dotted} is on"));
    match dropping(family) {
        Ok(chains) => {
            for chain in chains {
                let next = "if packets stop here, have a rule of it accept what is translated: ct status dnat, or \
                            iptables -m conntrack --ctstate DNAT";
                trace.note(STEP, format!("{chain} drops what none of its rules accepts"), next);
            }
        }
        Err(error) => trace.note(
            STEP,
            format!("filters of the node could not be looked at: {}", with_causes(&error)),
            "see nft list ruleset, iptables -S FORWARD",
        ),
    }
    Ok(())
}

/// Chains that drop by their policy what would be forwarded, whoever made them.
fn dropping(family: Family) -> Result<Vec<String>, Error> {
    let mut chains = Vec::new();
    if let Some(mut nft) = Nft::open_if_there().map_err(Error::Open)? {
        let read = |source| Error::Read { what: format!("{family} chains at hook forward"), source };
        let found = nft.dropping_chains(family, Hook::Forward).map_err(read)?;
        chains.extend(found.into_iter().map(|(table, chain)| format!("chain {chain} of table {family} {table}")));
    }
    // The program would make the table: so it is run only where there are rules.
    if !marks(family, Flavour::Legacy, "filter", &["FORWARD"]).map_err(Error::Iptables)?.is_empty() {
        let tool = Tool::of_flavour(family, Flavour::Legacy, None).map_err(Error::Iptables)?;
        if tool.list("filter").map_err(Error::Iptables)?.iter().any(|line| line == "-P FORWARD DROP") {
            chains.push(format!("chain FORWARD of {family} table filter of iptables (legacy)"));
        }
    }
    Ok(chains)
}
