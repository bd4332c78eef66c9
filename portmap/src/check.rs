//! CHECK: what ADD made against what is there.

use cni_spec::Attachment;

use crate::config::Config;
use crate::error::Error;
use crate::localhost;
use crate::view::View;

/// Compares everything that an attachment's host ports depend on. `config` is `None` if it asks for none: then
/// nothing may carry its mark.
///
/// # Errors
/// [`Error::Differs`] with every difference; others when the kernel refuses to tell.
pub fn attachment(view: &mut View, attachment: &Attachment, config: Option<&Config>) -> Result<(), Error> {
    let mut all = view.differences(config, &attachment.to_string())?;
    if let Some(config) = config {
        all.extend(localhost::differences(config)?);
    }
    if all.is_empty() { Ok(()) } else { Err(Error::Differs(all)) }
}
