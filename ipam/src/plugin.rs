//! The executable `podwire-ipam`: [`crate::Ipam`] behind the CNI protocol.

use cni_spec::{AddRequest, CheckRequest, CniResult, DelRequest, GcRequest, Plugin, StatusRequest};

use crate::{Error, Ipam, LeaseRequest, Ledger, Netns};

/// The IPAM plugin, for any main plugin that delegates to `"ipam": {"type": "podwire-ipam"}`.
#[derive(Debug, Clone, Copy)]
pub struct PodwireIpam;

impl Plugin for PodwireIpam {
    type Error = Error;

    fn about(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!("podwire-ipam {version}: CNI IPAM plugin, leases pod addresses from a crash-proof ledger")
    }

    fn add(&self, request: &AddRequest) -> Result<CniResult, Error> {
        let wanted = LeaseRequest {
            attachment: request.attachment.clone(),
            netns: Netns::at(&request.netns),
            args: request.args.clone(),
        };
        let ipam = Ipam::from_config(&request.config)?.for_the_request_of_this_process()?;
        ipam.lease(&wanted).map(|lease| CniResult::from(&lease))
    }

    fn del(&self, request: &DelRequest) -> Result<(), Error> {
        Ledger::for_release(&request.config)?.release(&request.attachment).map(drop)
    }

    fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        Ipam::from_config(&request.config)?.check(&request.attachment, &request.prev_result)
    }

    fn gc(&self, request: &GcRequest) -> Result<(), Error> {
        Ledger::from_config(&request.config)?.gc(&request.config.name, &request.valid).map(drop)
    }

    fn status(&self, request: &StatusRequest) -> Result<(), Error> {
        Ipam::status_of(&request.config)
    }
}
