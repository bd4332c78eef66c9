//! What masquerades where the config leaves that open, and what a person sees who asks.

use kernel::iptables::Tool;
use kernel::nft::Nft;
use nft_model::Family;

use crate::Error;
use crate::config::{Backend, Config, Guard};
use crate::masquerade::iptables::program;

/// Settles what the config leaves open: nftables if the kernel has it, iptables otherwise. A guard needs nftables anyway,
/// so nothing is asked then.
///
/// # Errors
/// [`Error::Netlink`] when it cannot be found out now.
pub fn settle(mut config: Config) -> Result<Config, Error> {
    let is_guarded = config.guard != Guard::Off;
    if let Some(masquerade) = config.masquerade.as_mut().filter(|masquerade| masquerade.backend == Backend::Any) {
        masquerade.backend = if is_guarded || has_nftables()? { Backend::Nftables } else { Backend::Iptables };
    }
    Ok(config)
}

fn has_nftables() -> Result<bool, Error> {
    let there = Nft::open_if_there().map_err(|source| Error::Netlink { place: "the node's namespace", source })?;
    Ok(there.is_some())
}

/// What this node has, a line each.
#[must_use]
pub fn explain() -> Vec<String> {
    let nftables = match Nft::open_if_there() {
        Ok(Some(_)) => {
            "the kernel has it; antiSpoofing needs it, and ipMasq uses it unless the config says otherwise".to_owned()
        }
        Ok(None) => "the kernel has none: say \"antiSpoofing\": \"off\"; ipMasq uses iptables then".to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    let iptables = Family::ALL.map(|family| {
        let name = program(family);
        match Tool::find(family, None) {
            Ok(tool) => {
                format!(
                    "{name}: {} writes to {}; for \"ipMasqBackend\": \"iptables\"",
                    tool.program().display(),
                    tool.flavour()
                )
            }
            Err(error) => format!("{name}: {error}"),
        }
    });
    [format!("nftables: {nftables}")].into_iter().chain(iptables).collect()
}
