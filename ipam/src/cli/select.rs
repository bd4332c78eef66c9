//! Which leases a command is about.

use std::net::IpAddr;

use clap::Args;
use ipnetwork::IpNetwork;

use crate::Record;
use crate::span::Span;

/// Narrows a command down; what is given must all hold.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Only this network.
    #[arg(short, long, value_name = "NAME", add = super::complete::networks())]
    pub network: Option<String>,
    /// Only pods of this Kubernetes namespace.
    #[arg(long, value_name = "NAME", add = super::complete::namespaces())]
    pub namespace: Option<String>,
    /// Only this pod: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "POD", add = super::complete::pods())]
    pub pod: Option<String>,
    /// Only this container: its id, or the beginning of it.
    #[arg(long, value_name = "ID", add = super::complete::containers())]
    pub container: Option<String>,
    /// Only this interface of the pod.
    #[arg(long, value_name = "NAME")]
    pub ifname: Option<String>,
    /// Only addresses in this CIDR.
    #[arg(long, value_name = "CIDR")]
    pub cidr: Option<IpNetwork>,
    /// Only IPv4 addresses.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6 addresses.
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

/// An address, where people may write down a pod as well.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "is no IP address: write 10.244.1.5 or fd00::5, or --pod, --container, --cidr and what it is")
}

impl Filter {
    /// What is asked for, as on the command line; empty if everything is.
    pub fn asked(&self) -> Vec<String> {
        let named = [
            ("--network", &self.network),
            ("--namespace", &self.namespace),
            ("--pod", &self.pod),
            ("--container", &self.container),
            ("--ifname", &self.ifname),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
        let cidr = self.cidr.map(|cidr| format!("--cidr {cidr}"));
        let families = [(self.ipv4, "-4"), (self.ipv6, "-6")].into_iter().filter(|(is_asked, _)| *is_asked);
        named.chain(cidr).chain(families.map(|(_, name)| name.to_owned())).collect()
    }

    /// Whether the lease is meant: its names fit, and one of its addresses does.
    pub fn takes(&self, record: &Record) -> bool {
        let attachment = &record.attachment;
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.network, attachment.network.as_str())
            && same(&self.ifname, attachment.ifname.as_str())
            && same(&self.namespace, record.pod.namespace.as_deref().unwrap_or_default())
            && self.pod.as_deref().is_none_or(|pod| is_pod(record, pod))
            && self.container.as_deref().is_none_or(|id| attachment.container_id.as_str().starts_with(id))
            && record.ips().any(|address| self.takes_address(address))
    }

    /// Whether the address is in the CIDR and of the family that is wanted.
    pub fn takes_address(&self, address: IpAddr) -> bool {
        (if address.is_ipv4() { !self.ipv6 } else { !self.ipv4 })
            && self.cidr.is_none_or(|cidr| Span::of(cidr).contains(address))
    }

    /// Whether it names a pod's attachment, so that what belongs to no pod is not meant.
    pub fn is_about_pods(&self) -> bool {
        [&self.namespace, &self.pod, &self.container, &self.ifname].into_iter().any(Option::is_some)
    }
}

fn is_pod(record: &Record, wanted: &str) -> bool {
    record.pod.name.as_deref() == Some(wanted) || record.pod.to_string() == wanted
}

/// The leases that one word means: those of an address, of a CIDR, of a pod, or of a container.
pub(super) fn meant<'a>(records: &'a [Record], word: &str) -> Vec<&'a Record> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return records.iter().filter(|record| record.ips().any(|ip| ip == address)).collect();
    }
    if let Ok(cidr) = word.parse::<IpNetwork>() {
        let span = Span::of(cidr);
        return records.iter().filter(|record| record.ips().any(|ip| span.contains(ip))).collect();
    }
    let pods: Vec<&Record> = records.iter().filter(|record| is_pod(record, word)).collect();
    if !pods.is_empty() || word.is_empty() {
        return pods;
    }
    let id = |record: &&Record| record.attachment.container_id.as_str().starts_with(word);
    records.iter().filter(id).collect()
}
