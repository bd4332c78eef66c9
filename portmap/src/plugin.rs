//! The verbs of the protocol.

use std::io::Write;

use cni_spec::{
    AddRequest, Attachment, CheckRequest, CniError, CniResult, DelRequest, GcRequest, Plugin, StatusRequest,
};
use nft_model::Family;

use crate::config::Config;
use crate::error::Error;
use crate::firewall::{Firewall, Presence};
use crate::owner::Owner;
use crate::policy::Policy;
use crate::record::{Record, Records};
use crate::remove::Removed;
use crate::ruleset::TABLE;
use crate::settings::Settings;
use crate::view::View;
use crate::{add, backend, check, flows, remove};

/// The plugin. Who holds what is in the kernel; [`record`](crate::record) keeps what was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portmap;

impl Plugin for Portmap {
    type Error = Error;

    fn about(&self) -> String {
        let what = "chained CNI plugin, host ports by nftables maps or iptables";
        let backends = backend::explain().join("\n  ");
        format!("podwire-portmap {}: {what}\nOn this node:\n  {backends}", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, request: &AddRequest) -> Result<CniResult, Error> {
        let prev_result = request.config.prev_result.as_ref().ok_or(Error::NotChained)?;
        match Config::new(&request.attachment, &request.config, prev_result)? {
            Some(config) => {
                config.heed_loopback()?;
                let added = add::mappings(&config, &Record::of(request));
                go_on("ADD", added.map_err(|error| error.explained(&config.settings))?);
            }
            None => go_on("ADD", add::no_mappings(&request.attachment)),
        }
        Ok(prev_result.clone())
    }

    /// Never fails: the chain would stop here, and the plugins before this one would keep the pod's address and
    /// interface for ever. What had to stay keeps its record, by which whoever wants the port next, or `reconcile`, sees
    /// that the pod is gone.
    fn del(&self, request: &DelRequest) -> Result<(), Error> {
        // Otherwise most of a DEL would be waiting for memory of the kernel's to be freed.
        let _closing = kernel::closing::put_off();
        let records = Records::default();
        let is_recorded = !records.has_nothing_of(&request.attachment);
        let record = records.read(&request.attachment);
        // First the record says so: whoever fills the firewall from records meanwhile sees that, or is seen here.
        go_on("DEL", record.as_ref().and_then(|record| records.mark_ending(record).err()).into_iter().collect());
        let Removed { remarks, failed } = remove::of_attachment(&request.attachment, is_recorded, record.as_ref());
        let stays = || Owner::new(&request.attachment).is_ok_and(|owner| add::knows(&owner).unwrap_or(true));
        if failed.is_empty() || !stays() {
            let was_it = record.is_none_or(|record| {
                records.remove_if_still(&record).unwrap_or(true) || records.read(&request.attachment).is_none()
            });
            go_on("DEL", was_it.then(|| records.remove(&request.attachment).err()).flatten().into_iter().collect());
        }
        go_on("DEL", remarks);
        go_on("DEL", failed);
        Ok(())
    }

    fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        let config = Config::new(&request.attachment, &request.config, &request.prev_result)?;
        check::attachment(&mut View::default(), &request.attachment, config.as_ref())
    }

    fn gc(&self, request: &GcRequest) -> Result<(), Error> {
        let network = &request.config.name;
        let valid = &request.valid;
        let is_stale = |owner: &Attachment| owner.network == *network && !valid.contains(owner);
        let records = Records::default();
        // By name: one that cannot be read keeps no other from being cleaned up.
        let (owners, mut errors) = match records.owners() {
            Ok(owners) => (owners, Vec::new()),
            Err(error) => (Vec::new(), vec![error]),
        };
        let stale: Vec<Attachment> = owners.into_iter().filter(is_stale).collect();
        let on_file: Vec<Record> = stale.iter().filter_map(|owner| records.read(owner)).collect();
        errors.extend(on_file.iter().filter_map(|record| records.mark_ending(record).err()));
        let Removed { remarks, failed } =
            remove::mappings(&|comment| comment.parse().is_ok_and(|owner| is_stale(&owner)));
        go_on("GC", remarks);
        let stays = |owner: &Attachment| {
            !failed.is_empty() && Owner::new(owner).is_ok_and(|owner| add::knows(&owner).unwrap_or(true))
        };
        errors.extend(stale.iter().filter(|owner| !stays(owner)).filter_map(|owner| records.remove(owner).err()));
        records.tidy();
        errors.extend(failed);
        Error::all_of(errors)
    }

    fn status(&self, request: &StatusRequest) -> Result<(), Error> {
        let settings = Settings::of(&request.config)?;
        Policy::of(&request.config)?;
        let unavailable = |error| Error::NotAvailable(Box::new(error));
        go_on("STATUS", backend::ready(&settings).map_err(unavailable)?);
        let mut firewall = Firewall::of(&settings).map_err(unavailable)?;
        for family in Family::ALL {
            if let Presence::Foreign(comment) = firewall.presence(family).map_err(unavailable)? {
                return Err(unavailable(Error::ForeignTable { family, table: TABLE.to_owned(), comment }));
            }
            match firewall.probe(&settings, family) {
                // A node may do without IPv6, and its pods with it.
                Err(error) if family == Family::Ip6 && is_lack(&error) => go_on("STATUS", vec![error]),
                // Where nothing has run iptables since the boot. Otherwise no pod would come whose ADD does.
                Err(error @ Error::NotLoaded { .. }) => go_on("STATUS", vec![error]),
                result => result.map_err(unavailable)?,
            }
        }
        // Without it host ports work, and flows are not ended that go astray.
        go_on("STATUS", flows::available().err().into_iter().collect());
        Ok(())
    }
}

/// Whether something for rules of a family is not there, or is there and of no use, such as a program that does not run.
fn is_lack(error: &Error) -> bool {
    use kernel::Error::{IptablesHangs, IptablesMissing, IptablesRefused, IptablesRun};
    match error {
        Error::MissingPiece { .. } | Error::MissingExtension { .. } => true,
        Error::Iptables(source) => matches!(
            source,
            IptablesMissing { .. } | IptablesRun { .. } | IptablesRefused { .. } | IptablesHangs { .. }
        ),
        _ => false,
    }
}

/// Tells what went wrong without making the request fail.
fn go_on(verb: &str, errors: Vec<Error>) {
    for error in errors {
        // A runtime passes standard error on when a plugin succeeds; if even that fails, nobody listens.
        let _ = writeln!(std::io::stderr(), "{verb} goes on despite: {}", CniError::from(error).one_line());
    }
}
