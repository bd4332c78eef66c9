//! STATUS: would an ADD be served now?

use cni_spec::StatusRequest;

use crate::config::Config;
use crate::firewall::Firewall;
use crate::pod::Node;
use crate::ruleset::Rules;
use crate::{Error, addresses};

/// Serves a STATUS. It only reads, and nothing that grows with the number of pods.
///
/// # Errors
/// [`Error::NotReady`] with the reason.
pub fn status(request: &StatusRequest) -> Result<(), Error> {
    let config = Config::of(&request.config).map_err(Error::Config)?;
    let not_ready = |error| Error::NotReady(Box::new(error));
    Node::open().map_err(not_ready)?;
    if !Rules::of(&config).is_empty() {
        Firewall::open(&request.config.name).and_then(|mut rules| rules.is_usable()).map_err(not_ready)?;
    }
    addresses::status(&config.ipam_type, request).map_err(not_ready)
}
