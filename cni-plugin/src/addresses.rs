//! Where addresses come from: our own IPAM by a library call, any other by running its executable.

use std::borrow::Cow;
use std::net::IpAddr;

use cni_spec::delegate::{Delegate, DelegateError};
use cni_spec::{
    AddRequest, CheckRequest, CniResult, DelRequest, Environment, ErrorCode, GcRequest, NetConf, StatusRequest,
};
use ipam::{Ipam, LeaseRequest, Ledger, Netns};
use nft_model::Family;
use serde_json::Value;

use crate::Error;
use crate::config::{DHCP, OWN_IPAM, is_main_plugin};

type GiveBack<'a> = Box<dyn FnOnce(Found) -> Result<(), Error> + Send + 'a>;

/// What became of addresses that are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nobody has seen them: they may be given to the next.
    Unused,
    /// This one is another pod's: the next shall rather get others.
    InUse(IpAddr),
}

impl Found {
    /// What an ADD that failed has found.
    #[must_use]
    pub fn by(failure: &Error) -> Self {
        if let Error::AddressInUse { address, .. } = failure { Self::InUse(*address) } else { Self::Unused }
    }
}

/// What an IPAM plugin gave, and how to give it back.
pub struct Leased<'a> {
    /// Addresses, routes and resolver settings.
    pub result: CniResult,
    /// Takes back what this call got, and no lease that is older or younger.
    pub give_back: GiveBack<'a>,
}

impl Leased<'_> {
    /// What an attachment without IPAM has.
    #[must_use]
    pub fn nothing() -> Self {
        Self { result: CniResult::default(), give_back: Box::new(|_| Ok(())) }
    }
}

/// Leases addresses of every family, or none.
///
/// # Errors
/// The IPAM plugin's own; it holds nothing of this call then.
pub fn lease<'a>(ipam_type: &'a str, request: &'a AddRequest) -> Result<Leased<'a>, Error> {
    let leased = if ipam_type == OWN_IPAM { lease_own(request)? } else { lease_delegated(ipam_type, request)? };
    if !leased.result.ips.is_empty() {
        return Ok(leased);
    }
    let failure = Error::NoAddress { ipam_type: ipam_type.to_owned() };
    match (leased.give_back)(Found::Unused) {
        Ok(()) => Err(failure),
        Err(undo) => Err(Error::Undo { failure: Box::new(failure), undo: vec![undo] }),
    }
}

fn lease_own(request: &AddRequest) -> Result<Leased<'_>, Error> {
    let ipam = own(&request.config)?.for_the_request_of_this_process().map_err(own_error)?;
    let wanted = LeaseRequest {
        attachment: request.attachment.clone(),
        netns: Netns::at(&request.netns),
        args: request.args.clone(),
    };
    let lease = match ipam.lease(&wanted) {
        Ok(lease) => lease,
        Err(failure) => return Err(without_half_a_lease(&ipam, request, failure)),
    };
    let result = CniResult::from(&lease);
    let give_back = move |found| match found {
        Found::Unused => ipam.undo(&lease).map_err(own_error),
        Found::InUse(address) => ipam.undo_for_a_while(&lease, &[address]).map_err(own_error),
    };
    Ok(Leased { result, give_back: Box::new(give_back) })
}

/// A ledger that failed while it was written may hold the lease all the same. As a delegate whose ADD failed gets a
/// DEL (spec section 4), so does ours; what the ledger cannot take now, it writes down for later.
fn without_half_a_lease(ipam: &Ipam, request: &AddRequest, failure: ipam::Error) -> Error {
    let may_have_leased = matches!(failure.code(), ErrorCode::Io | ipam::code::DAMAGED);
    let released = if may_have_leased { ipam.release(&request.attachment).map(drop) } else { Ok(()) };
    match released {
        Ok(()) => own_error(failure),
        Err(undo) => Error::Undo { failure: Box::new(own_error(failure)), undo: vec![own_error(undo)] },
    }
}

fn lease_delegated<'a>(ipam_type: &'a str, request: &'a AddRequest) -> Result<Leased<'a>, Error> {
    let conf = &request.config;
    let give_back = move || delegate_del(ipam_type, &request.environment, conf);
    match Delegate::new(&request.environment).add(ipam_type, &conf.bytes, conf.cni_version) {
        Ok(result) => Ok(Leased { result, give_back: Box::new(move |_| give_back()) }),
        Err(source) => {
            // A delegate whose ADD failed gets a DEL (spec section 4); its outcome says nothing new.
            if !matches!(source, DelegateError::NotFound { .. }) {
                let _ = give_back();
            }
            Err(delegate_error(ipam_type, source))
        }
    }
}

/// Frees whatever the attachment holds.
///
/// # Errors
/// The IPAM plugin's own.
pub fn release(request: &DelRequest) -> Result<(), Error> {
    let Some(ipam_type) = configured(&request.config) else { return Ok(()) };
    if ipam_type == OWN_IPAM {
        let ledger = Ledger::for_release(&request.config).map_err(own_error)?;
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
        .check(ipam_type, &with_its_gateways(&request.config.bytes))
        .map_err(|source| delegate_error(ipam_type, source))
}

/// The config with the gateways that the IPAM plugin's own part names in place of those that the pod has, which `prevResult`
/// tells: `static` compares them.
fn with_its_gateways(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Ok(mut conf) = serde_json::from_slice::<Value>(bytes) else { return bytes.into() };
    let address = |one: &Value| -> Option<IpAddr> { one.get("address")?.as_str()?.split('/').next()?.parse().ok() };
    let gateway = |one: &Value| one.get("gateway").filter(|gateway| gateway.is_string()).cloned();
    let list = conf.pointer("/ipam/addresses").and_then(Value::as_array);
    let named: Vec<(IpAddr, Value)> =
        list.into_iter().flatten().filter_map(|one| Some((address(one)?, gateway(one)?))).collect();
    if named.is_empty() {
        return bytes.into();
    }
    for ip in conf.pointer_mut("/prevResult/ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let own = named.iter().find(|(named, _)| address(ip) == Some(*named)).map(|(_, gateway)| gateway.clone());
        if let Some((ip, own)) = ip.as_object_mut().zip(own) {
            ip.insert("gateway".to_owned(), own);
        }
    }
    conf.to_string().into_bytes().into()
}

/// Frees what belongs to no valid attachment.
///
/// # Errors
/// The IPAM plugin's own.
pub fn gc(request: &GcRequest) -> Result<(), Error> {
    let Some(ipam_type) = configured(&request.config) else { return Ok(()) };
    if ipam_type == OWN_IPAM {
        let ledger = Ledger::from_config(&request.config).map_err(own_error)?;
        return ledger.gc(&request.config.name, &request.valid).map(drop).map_err(own_error);
    }
    Delegate::new(&request.environment)
        .gc(ipam_type, &request.config.bytes)
        .map_err(|source| delegate_error(ipam_type, source))
}

/// Of which families pods get addresses, as far as that is known before an ADD: both, if another plugin gives them.
#[must_use]
pub fn families(ipam_type: &str, conf: &NetConf) -> Vec<Family> {
    // A config that cannot be read has its own answer.
    let ipam = (ipam_type == OWN_IPAM).then(|| own(conf).ok()).flatten();
    let is_given = |family: &Family| ipam.as_ref().is_none_or(|ipam| ipam.has_pools_of(*family == Family::Ip));
    Family::ALL.into_iter().filter(is_given).collect()
}

/// Whether the IPAM plugin could serve an ADD.
///
/// # Errors
/// The IPAM plugin's own.
pub fn status(ipam_type: &str, request: &StatusRequest) -> Result<(), Error> {
    if ipam_type == OWN_IPAM {
        return Ipam::status_of(&request.config).map_err(own_error);
    }
    Delegate::new(&request.environment)
        .status(ipam_type, &request.config.bytes)
        .map_err(|source| delegate_error(ipam_type, source))
}

/// The IPAM plugin, where DEL and GC do without a valid config. One that an ADD refuses gave out nothing.
fn configured(conf: &NetConf) -> Option<&str> {
    conf.ipam_type.as_deref().filter(|ipam_type| !is_main_plugin(ipam_type, conf) && *ipam_type != DHCP)
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
