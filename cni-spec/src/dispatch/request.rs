//! From environment and config to the typed request of each verb.

use std::io::Write;

use super::parameters::{self, Container};
use super::verb::Verb;
use crate::{
    AddRequest, Attachment, CheckRequest, CniError, DelRequest, Environment, ErrorCode, GcRequest, NetConf,
    StatusRequest, ValidAttachments,
};

pub(super) fn add(environment: Environment, bytes: Vec<u8>) -> Result<AddRequest, CniError> {
    let (container, netns) = parameters::with_netns(Verb::Add, &environment)?;
    let mut config = config(Verb::Add, bytes)?;
    config.prev_result = config.read_prev_result()?;
    let (attachment, args) = attachment(container, &config);
    Ok(AddRequest { attachment, netns, args, config, environment })
}

/// A `prevResult` that cannot be read is as good as none: DEL must succeed without it (spec section 2,
/// "DEL"), and refusing would keep the container's resources for ever.
pub(super) fn del(environment: Environment, bytes: Vec<u8>, stderr: &mut dyn Write) -> Result<DelRequest, CniError> {
    let (container, netns) = parameters::without_netns(Verb::Del, &environment)?;
    let mut config = config(Verb::Del, bytes)?;
    config.prev_result = config.read_prev_result().unwrap_or_else(|error| {
        // The remark is for people; DEL goes on without it.
        let _ = writeln!(stderr, "DEL goes on without prevResult: {error}");
        None
    });
    let (attachment, args) = attachment(container, &config);
    Ok(DelRequest { attachment, netns, args, config, environment })
}

pub(super) fn check(environment: Environment, bytes: Vec<u8>) -> Result<CheckRequest, CniError> {
    let (container, netns) = parameters::with_netns(Verb::Check, &environment)?;
    let mut config = config(Verb::Check, bytes)?;
    let prev_result = config.read_prev_result()?.ok_or_else(|| {
        CniError::new(ErrorCode::InvalidConfig, "invalid network config: prevResult is missing, and CHECK needs it")
    })?;
    config.prev_result = Some(prev_result.clone());
    let (attachment, args) = attachment(container, &config);
    Ok(CheckRequest { attachment, netns, args, prev_result, config, environment })
}

pub(super) fn gc(environment: Environment, bytes: Vec<u8>) -> Result<GcRequest, CniError> {
    parameters::path_only(Verb::Gc, &environment)?;
    let config = config(Verb::Gc, bytes)?;
    let valid = ValidAttachments::from_config(&config.json)?;
    Ok(GcRequest { valid, config, environment })
}

/// `CNI_PATH` is optional here: a plugin without delegates is ready without it.
pub(super) fn status(environment: Environment, bytes: Vec<u8>) -> Result<StatusRequest, CniError> {
    let config = config(Verb::Status, bytes)?;
    Ok(StatusRequest { config, environment })
}

/// The config, if its spec version has the verb at all.
fn config(verb: Verb, bytes: Vec<u8>) -> Result<NetConf, CniError> {
    let config = NetConf::without_prev_result(bytes)?;
    if config.cni_version >= verb.since() {
        return Ok(config);
    }
    let (name, stated, since) = (verb.as_str(), config.cni_version, verb.since());
    Err(CniError::new(ErrorCode::IncompatibleVersion, format!("{name} does not exist in cniVersion {stated}"))
        .with_details(format!("{name} came with {since}")))
}

fn attachment(container: Container, config: &NetConf) -> (Attachment, crate::CniArgs) {
    let Container { container_id, ifname, args } = container;
    (Attachment { network: config.name.clone(), container_id, ifname }, args)
}
