//! CHECK: what ADD made against what is there.

use cni_spec::Attachment;
use nft_model::Family;

use crate::config::Config;
use crate::difference::differences;
use crate::error::Error;
use crate::firewall::Firewall;
use crate::{localhost, ruleset};

/// Compares everything that an attachment's host ports depend on. `config` is `None` if it asks for none: then
/// nothing may carry its mark.
///
/// # Errors
/// [`Error::Differs`] with every difference; others when the kernel refuses to tell.
pub fn attachment(attachment: &Attachment, config: Option<&Config>) -> Result<(), Error> {
    let wanted = config.map_or(Ok(Vec::new()), ruleset::tables).map_err(Error::RuleSet)?;
    let owner = attachment.to_string();
    let mut firewall = Firewall::open()?;
    let mut all = Vec::new();
    for family in Family::ALL {
        let wanted = wanted.iter().find(|table| table.family() == family);
        all.extend(differences(wanted, firewall.read(family)?.as_ref(), &owner));
    }
    if let Some(config) = config {
        all.extend(localhost::difference(config)?);
    }
    if all.is_empty() { Ok(()) } else { Err(Error::Differs(all)) }
}
