//! `ipam show`.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::exit::{Exit, Stop};
use super::select;
use super::view::{Document, age, or_dash, origin};
use super::{Output, Terminal};
use crate::liveness::Liveness;
use crate::{Ledger, Record};

pub(super) const EXAMPLES: &str = "\
Examples:
  ipam show 10.244.1.17
  ipam show shop/cart-6d5f
  ipam show 0a1b2c3d -o json";

/// Shows leases.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// An address, a pod (NAME or NAMESPACE/NAME), or a container id or the beginning of one.
    #[arg(value_name = "ADDRESS|POD|CONTAINER")]
    what: String,
    #[command(flatten)]
    output: Output,
}

/// A lease and the signs of life of its pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    lease: &'a Record,
    /// Null if it cannot be seen.
    link_exists: Option<bool>,
    /// Null if the lease does not tell.
    netns_exists: Option<bool>,
}

impl Show {
    pub fn run(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<Exit, Stop> {
        let leases = select::all(ledger, "ipam show")?;
        let found = select::meant(&leases, &self.what);
        if found.is_empty() {
            return Err(Stop::new(
                Exit::NotFound,
                format!("no lease for {:?} in {}", self.what, ledger.dir().display()),
            ));
        }
        let shown = found.into_iter().map(|lease| {
            let signs = Liveness::of(lease);
            Shown { lease, link_exists: signs.link.ok(), netns_exists: signs.netns }
        });
        let document = Document::new("Lease", shown.collect());
        let text = match document.print(self.output.output) {
            Some(text) => text?,
            None => document.items().iter().map(paragraph).collect::<Vec<_>>().join("\n"),
        };
        write!(terminal.out, "{text}").map_err(Stop::from_printing)?;
        Ok(Exit::Done)
    }
}

fn paragraph(shown: &Shown<'_>) -> String {
    let Shown { lease, link_exists, netns_exists } = shown;
    let mut lines: Vec<(&str, String)> = Vec::new();
    for recorded in &lease.addresses {
        let gateway = recorded.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        lines.push(("Address", format!("{}{gateway}", recorded.address)));
    }
    let uid = lease.pod.uid.as_ref().map_or_else(String::new, |uid| format!(" (uid {uid})"));
    lines.push(("Pod", or_dash(format!("{}{uid}", lease.pod))));
    lines.push(("Container", lease.attachment.container_id.to_string()));
    lines.push((
        "Interface",
        format!(
            "{} ({})",
            lease.attachment.ifname,
            seen(*link_exists, ["host link exists", "no host link", "host link cannot be seen"])
        ),
    ));
    lines.push(("Network", lease.attachment.network.to_string()));
    if let Some(netns) = &lease.netns {
        let inode = netns.id.map_or_else(String::new, |id| format!("net:[{}], ", id.inode));
        lines.push((
            "Namespace",
            format!("{} ({inode}{})", netns.path.display(), seen(*netns_exists, ["exists", "gone", "cannot be seen"])),
        ));
    }
    let created = lease.created.strftime("%Y-%m-%dT%H:%M:%SZ");
    let ago = age(lease.created, Timestamp::now());
    lines.push(("Created", format!("{created}, {ago} ago ({})", origin(lease.origin))));
    lines.push(("Lease", lease.lease_id.to_string()));
    lines.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<11}{value}", format!("{name}:"));
        text
    })
}

/// One of the words for yes, no, and nobody knows.
fn seen(exists: Option<bool>, words: [&'static str; 3]) -> &'static str {
    let [yes, no, unknown] = words;
    exists.map_or(unknown, |exists| if exists { yes } else { no })
}
