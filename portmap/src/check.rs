//! CHECK: what ADD made against what is there.

use cni_spec::Attachment;
use nft_model::Family;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::Firewall;
use crate::localhost;

/// Compares everything that an attachment's host ports depend on. `config` is `None` if it asks for none: then
/// nothing may carry its mark.
///
/// # Errors
/// [`Error::Differs`] with every difference; others when the kernel refuses to tell.
pub fn attachment(attachment: &Attachment, config: Option<&Config>) -> Result<(), Error> {
    let owner = attachment.to_string();
    let mut all = Vec::new();
    if let Some(config) = config {
        let mut firewall = Firewall::of(&config.settings)?;
        for family in Family::ALL {
            all.extend(firewall.differences(Some(config), &owner, family)?);
        }
    } else {
        for firewall in Firewall::all() {
            let mut firewall = firewall?;
            for family in Family::ALL {
                all.extend(firewall.differences(None, &owner, family)?);
            }
        }
    }
    if let Some(config) = config {
        all.extend(localhost::differences(config)?);
    }
    if all.is_empty() { Ok(()) } else { Err(Error::Differs(all)) }
}
