//! Where addresses come from: our own IPAM by a library call, any other by running its executable.

use cni_spec::delegate::{Delegate, DelegateError};
use cni_spec::{AddRequest, CheckRequest, CniResult, DelRequest, Environment, GcRequest, NetConf, StatusRequest};
use ipam::{Ipam, Lease, LeaseRequest, Ledger, Netns};

use crate::Error;
use crate::config::OWN_IPAM;

/// What an IPAM plugin gave, and how to give it back.
pub struct Leased {
    /// Addresses, routes and resolver settings.
    pub result: CniResult,
    /// Ours remembers the lease, so that no later one is ended in its place.
    lease: Option<(Box<Ipam>, Lease)>,
}

/// Leases addresses of every family, or none.
///
/// # Errors
/// The IPAM plugin's own. A delegate that failed has been sent DEL by then (spec section 4).
pub fn lease(ipam_type: &str, request: &AddRequest) -> Result<Leased, Error> {
    let leased = if ipam_type == OWN_IPAM {
        let ipam = Box::new(own(&request.config)?);
        let wanted = LeaseRequest {
            attachment: request.attachment.clone(),
            netns: Netns::at(&request.netns),
            args: request.args.clone(),
        };
        let lease = ipam.lease(&wanted).map_err(own_error)?;
        Leased { result: CniResult::from(&lease), lease: Some((ipam, lease)) }
    } else {
        let delegate = Delegate::new(&request.environment);
        let conf = &request.config;
        let result = delegate.add(ipam_type, &conf.bytes, conf.cni_version).map_err(|source| {
            if !matches!(source, DelegateError::NotFound { .. }) {
                // The runtime will send DEL as well; this one only spares the address the time until then.
                let _ = delegate_del(ipam_type, &request.environment, conf);
            }
            delegate_error(ipam_type, source)
        })?;
        Leased { result, lease: None }
    };
    if leased.result.ips.is_empty() {
        let failure = Error::NoAddress { ipam_type: ipam_type.to_owned() };
        return Err(match give_back(ipam_type, request, &leased) {
            Ok(()) => failure,
            Err(undo) => Error::Undo { failure: Box::new(failure), undo: vec![undo] },
        });
    }
    Ok(leased)
}

/// Takes back what [`lease`] gave in this very call.
///
/// # Errors
/// The IPAM plugin's own.
pub fn give_back(ipam_type: &str, request: &AddRequest, leased: &Leased) -> Result<(), Error> {
    match &leased.lease {
        Some((ipam, lease)) => ipam.undo(lease).map_err(own_error),
        None => delegate_del(ipam_type, &request.environment, &request.config),
    }
}

/// Frees whatever the attachment holds.
///
/// # Errors
/// The IPAM plugin's own.
pub fn release(ipam_type: &str, request: &DelRequest) -> Result<(), Error> {
    if ipam_type == OWN_IPAM {
        let ledger = Ledger::from_config(&request.config).map_err(own_error)?;
        return ledger.release(&request.attachment).map(drop).map_err(own_error);
    }
    delegate_del(ipam_type, &request.environment, &request.config)
}

/// Whether the IPAM plugin still holds what `prevResult` says.
///
/// # Errors
/// The IPAM plugin's own.
pub fn check(ipam_type: &str, request: &CheckRequest) -> Result<(), Error> {
    if ipam_type == OWN_IPAM {
        return own(&request.config)?.check(&request.attachment, &request.prev_result).map_err(own_error);
    }
    Delegate::new(&request.environment)
        .check(ipam_type, &request.config.bytes)
        .map_err(|source| delegate_error(ipam_type, source))
}

/// Frees what belongs to no valid attachment.
///
/// # Errors
/// The IPAM plugin's own.
pub fn gc(ipam_type: &str, request: &GcRequest) -> Result<(), Error> {
    if ipam_type == OWN_IPAM {
        let ledger = Ledger::from_config(&request.config).map_err(own_error)?;
        return ledger.gc(&request.config.name, &request.valid).map(drop).map_err(own_error);
    }
    Delegate::new(&request.environment)
        .gc(ipam_type, &request.config.bytes)
        .map_err(|source| delegate_error(ipam_type, source))
}

/// Whether the IPAM plugin could serve an ADD.
///
/// # Errors
/// The IPAM plugin's own.
pub fn status(ipam_type: &str, request: &StatusRequest) -> Result<(), Error> {
    if ipam_type == OWN_IPAM {
        return own(&request.config)?.status().map_err(own_error);
    }
    Delegate::new(&request.environment)
        .status(ipam_type, &request.config.bytes)
        .map_err(|source| delegate_error(ipam_type, source))
}

fn own(conf: &NetConf) -> Result<Ipam, Error> {
    Ipam::from_config(conf).map_err(own_error)
}

fn own_error(error: ipam::Error) -> Error {
    Error::Ipam(Box::new(error))
}

fn delegate_del(ipam_type: &str, environment: &Environment, conf: &NetConf) -> Result<(), Error> {
    Delegate::new(environment).del(ipam_type, &conf.bytes).map_err(|source| delegate_error(ipam_type, source))
}

fn delegate_error(ipam_type: &str, source: DelegateError) -> Error {
    Error::Delegate { ipam_type: ipam_type.to_owned(), source: Box::new(source) }
}
