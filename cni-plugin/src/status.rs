//! STATUS: would an ADD be served now?

use cni_spec::StatusRequest;

use crate::config::{Backend, Config};
use crate::firewall::Firewall;
use crate::pod::Node;
use crate::ruleset::Rules;
use crate::{Error, addresses, backend, iptables};

/// Serves a STATUS. It only reads, and nothing that grows with the number of pods.
///
/// # Errors
/// [`Error::NotReady`] with the reason.
pub fn status(request: &StatusRequest) -> Result<(), Error> {
    let not_ready = |error| Error::NotReady(Box::new(error));
    let config = Config::of(&request.config).map_err(Error::Config)?;
    let config = backend::settle(config).map_err(not_ready)?;
    Node::open().map_err(not_ready)?;
    if !Rules::of(&config).is_empty() {
        Firewall::open(&request.config.name).and_then(|mut rules| rules.is_usable()).map_err(not_ready)?;
    }
    let Some(ipam_type) = &config.ipam_type else { return Ok(()) };
    if config.masquerade.as_ref().is_some_and(|masquerade| masquerade.backend == Backend::Iptables) {
        iptables::is_usable(&addresses::families(ipam_type, &request.config)).map_err(not_ready)?;
    }
    addresses::status(ipam_type, request).map_err(not_ready)
}
