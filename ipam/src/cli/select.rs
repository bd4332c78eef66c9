//! Which leases a command is about.

use std::net::IpAddr;

use clap::Args;

use super::exit::{Exit, Stop};
use crate::{Ledger, Record};

/// Narrows a command down; what is given must all hold.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only this network.
    #[arg(short, long, value_name = "NAME")]
    pub network: Option<String>,
    /// Only pods of this Kubernetes namespace.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only this pod: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only this container: its id, or the beginning of it.
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// Only this interface of the pod.
    #[arg(long, value_name = "NAME")]
    pub ifname: Option<String>,
}

impl Filter {
    pub fn takes(&self, record: &Record) -> bool {
        let attachment = &record.attachment;
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.network, attachment.network.as_str())
            && same(&self.ifname, attachment.ifname.as_str())
            && same(&self.namespace, record.pod.namespace.as_deref().unwrap_or_default())
            && self.pod.as_deref().is_none_or(|pod| is_pod(record, pod))
            && self.container.as_deref().is_none_or(|id| attachment.container_id.as_str().starts_with(id))
    }
}

fn is_pod(record: &Record, wanted: &str) -> bool {
    record.pod.name.as_deref() == Some(wanted) || record.pod.to_string() == wanted
}

/// The leases that one word means: those of an address, of a pod, or of a container.
pub(super) fn meant<'a>(records: &'a [Record], word: &str) -> Vec<&'a Record> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return records.iter().filter(|record| record.ips().any(|ip| ip == address)).collect();
    }
    let pods: Vec<&Record> = records.iter().filter(|record| is_pod(record, word)).collect();
    if !pods.is_empty() || word.is_empty() {
        return pods;
    }
    let id = |record: &&Record| record.attachment.container_id.as_str().starts_with(word);
    records.iter().filter(id).collect()
}

/// All leases; where there is no ledger, none is made.
pub(super) fn all(ledger: &Ledger, purpose: &str) -> Result<Vec<Record>, Stop> {
    // "No ledger" must not be what somebody reads who may not look.
    if let Err(error) = std::fs::metadata(ledger.dir().join("ledger"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Stop::new(Exit::Failed, format!("cannot look into {}: {error}", ledger.dir().display())));
    }
    Ok(ledger.leases(purpose)?.unwrap_or_default())
}
