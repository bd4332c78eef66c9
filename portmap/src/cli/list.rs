//! `podwire-portmap list`.

use std::net::IpAddr;

use comfy_table::{Table, presets};
use kernel::sysctl;
use serde_json::{Value, json};

use super::exit::{Exit, Stop};
use super::{Format, Terminal};
use crate::forward::Forward;
use crate::node::{self, Mapped};
use crate::record::Records;

pub(super) const EXAMPLES: &str = "\
Examples:
  podwire-portmap list
  podwire-portmap list --port 8080 -o wide
  podwire-portmap list --pod shop/cart-0 -o json

Packets and bytes are those of live connections, while net.netfilter.nf_conntrack_acct is 1.";

/// The switch that makes the kernel count.
const ACCOUNTING: &str = "net/netfilter/nf_conntrack_acct";

/// Lists host ports.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only those of a network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only those of a pod: its name, or NAMESPACE/NAME.
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// Only this port on the node.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Leaves the line with the column names out.
    #[arg(long)]
    no_headers: bool,
}

impl List {
    pub fn run(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let mut all = node::mappings()?;
        note_flushed(&all, terminal)?;
        all.retain(|mapped| self.takes(mapped));
        if all.is_empty() {
            return self.nothing(terminal);
        }
        if let Err(error) = node::count(&mut all) {
            writeln!(terminal.err, "note: connections are not counted: {}", cni_spec::error::with_causes(&error))?;
        }
        if self.output == Format::Json {
            print_json(&all, terminal)?;
            return Ok(Exit::Done);
        }
        write!(terminal.out, "{}", self.table(&all))?;
        if all.iter().any(|mapped| mapped.traffic.flows > 0 && mapped.traffic.counters.is_none())
            && sysctl::get(ACCOUNTING).is_ok_and(|value| value == "0")
        {
            writeln!(
                terminal.err,
                "note: packets are not counted: sysctl -w net.netfilter.nf_conntrack_acct=1 lets the kernel do it from then on"
            )?;
        }
        Ok(Exit::Done)
    }

    /// An empty node is as it should be; a filter that nothing fits says what was looked for.
    fn nothing(&self, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let is_json = self.output == Format::Json;
        if is_json {
            print_json(&[], terminal)?;
        }
        let filters = self.filters();
        if !filters.is_empty() {
            writeln!(terminal.err, "no host ports with {}: podwire-portmap list shows all", filters.join(" "))?;
            return Ok(Exit::NotFound);
        }
        if !is_json {
            writeln!(terminal.err, "no host ports on this node")?;
        }
        Ok(Exit::Done)
    }

    /// The filters, as they are typed.
    fn filters(&self) -> Vec<String> {
        let network = self.network.as_ref().map(|name| format!("--network {name}"));
        let pod = self.pod.as_ref().map(|pod| format!("--pod {pod}"));
        let port = self.port.map(|port| format!("--port {port}"));
        [network, pod, port].into_iter().flatten().collect()
    }

    fn takes(&self, mapped: &Mapped) -> bool {
        let network = mapped.owner.as_ref().map(|owner| owner.network.as_str());
        let (full, name) = (pod(mapped), mapped.record.as_ref().and_then(|record| record.pod.name.clone()));
        let is_pod = |wanted: &String| full.as_ref() == Some(wanted) || name.as_ref() == Some(wanted);
        self.network.as_deref().is_none_or(|wanted| network == Some(wanted))
            && self.pod.as_ref().is_none_or(is_pod)
            && self.port.is_none_or(|wanted| wanted == mapped.forward.host_port)
    }

    fn table(&self, all: &[Mapped]) -> String {
        let wide = self.output == Format::Wide;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut names = vec!["HOST", "PORT", "POD", "POD-ADDRESS", "FLOWS", "PACKETS", "BYTES"];
        if wide {
            names.extend(["ANSWERED", "BACKEND", "NETWORK", "CONTAINER", "IF"]);
        }
        if !self.no_headers {
            table.set_header(names);
        }
        for mapped in all {
            table.add_row(cells(mapped, wide));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        format!("{}\n", table.trim_fmt())
    }
}

fn print_json(all: &[Mapped], terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let items: Vec<Value> = all.iter().map(item).collect();
    let document = json!({ "apiVersion": "portmap.podwire/v1", "kind": "MappingList", "items": items });
    Ok(writeln!(terminal.out, "{document:#}")?)
}

fn pod(mapped: &Mapped) -> Option<String> {
    mapped.record.as_ref().and_then(|record| record.pod.text())
}

fn cells(mapped: &Mapped, wide: bool) -> Vec<String> {
    let (Mapped { forward, owner, traffic, .. }, dash) = (mapped, || "-".to_owned());
    let container = owner.as_ref().map(|owner| owner.container_id.to_string());
    let short = container.as_ref().map(|id| id.get(..12).unwrap_or(id).to_owned());
    let counter = |of: fn(&kernel::conntrack::Counters) -> u64| {
        traffic.counters.as_ref().map_or_else(dash, |counters| of(counters).to_string())
    };
    let mut cells = vec![
        host(forward),
        format!("{}/{}", forward.host_port, forward.protocol),
        pod(mapped).or(short).unwrap_or_else(dash),
        forward.pod.to_string(),
        traffic.flows.to_string(),
        counter(|counters| counters.packets),
        counter(|counters| counters.bytes),
    ];
    if wide {
        let part = |of: fn(&cni_spec::Attachment) -> String| owner.as_ref().map_or_else(dash, of);
        cells.push(traffic.answered.to_string());
        cells.push(mapped.backend.to_string());
        cells.push(part(|owner| owner.network.to_string()));
        cells.push(container.unwrap_or_else(dash));
        cells.push(part(|owner| owner.ifname.to_string()));
    }
    cells
}

/// The node's address, or every address of a family.
fn host(forward: &Forward) -> String {
    match (forward.host_ip, forward.family) {
        (Some(address), _) => address.to_string(),
        (None, nft_model::Family::Ip) => IpAddr::from([0; 4]).to_string(),
        (None, nft_model::Family::Ip6) => IpAddr::from([0; 16]).to_string(),
    }
}

fn item(mapped: &Mapped) -> Value {
    let Mapped { forward, owner, record, traffic, .. } = mapped;
    let pod = record.as_ref().map(|record| &record.pod);
    json!({
        "hostIP": host(forward),
        "hostPort": forward.host_port,
        "protocol": forward.protocol.to_string(),
        "podNamespace": pod.and_then(|pod| pod.namespace.clone()),
        "podName": pod.and_then(|pod| pod.name.clone()),
        "podIP": forward.pod.ip().to_string(),
        "containerPort": forward.pod.port(),
        "network": owner.as_ref().map(|owner| owner.network.as_str()),
        "containerID": owner.as_ref().map(|owner| owner.container_id.as_str()),
        "ifname": owner.as_ref().map(|owner| owner.ifname.as_str()),
        "backend": mapped.backend.to_string(),
        "flows": traffic.flows,
        "answered": traffic.answered,
        "packets": traffic.counters.map(|counters| counters.packets),
        "bytes": traffic.counters.map(|counters| counters.bytes),
    })
}

/// Whoever looks at an empty list should know that it was not empty.
fn note_flushed(all: &[Mapped], terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let on_file = Records::default();
    let (records, _) = on_file.all();
    let missing = records.iter().filter(|record| {
        let attachment = record.attachment();
        !on_file.is_ending(record) && !all.iter().any(|mapped| mapped.owner == attachment)
    });
    match missing.count() {
        0 => Ok(()),
        count => {
            let text =
                "pods asked for host ports that the firewall does not have; see podwire-portmap reconcile --dry-run";
            Ok(writeln!(terminal.err, "note: {count} {text}")?)
        }
    }
}
