//! The leases of the reference IPAM plugin, host-local: one file for each address, named by it, in a folder for each
//! network. The file has the container id and the interface name, with a carriage return and a line feed between;
//! those of host-local before 0.7 have the container id alone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cni_spec::{Attachment, CniArgs, NetworkName};
use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::super::networks::Configured;
use super::super::verify::Cache;
use crate::clock::{self, Moment};
use crate::record::{Origin, Pod, Record, RecordedAddress};
use crate::{Error, LeaseId};

/// Where host-local keeps its networks, unless its `dataDir` says otherwise.
pub(in crate::cli) const DIR: &str = "/var/lib/cni/networks";

/// What was the name of every pod's interface when files did not tell it.
const IFNAME: &str = "eth0";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub leases: Vec<Record>,
    /// Files that name an address and cannot be understood: the address may be in use.
    pub garbage: Vec<(PathBuf, String)>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// What is known besides host-local's files.
pub(super) struct Known<'a> {
    pub cache: &'a Cache,
    pub conf_dir: &'a Path,
    /// How long to wait for host-local's own lock.
    pub patience: Duration,
}

/// Reads a network's folder, or the folder of all networks.
pub(super) fn read(dir: &Path, known: &Known<'_>) -> Result<Found, ReadError> {
    let entries = fs::read_dir(dir).map_err(|source| ReadError::Folder { path: dir.to_owned(), source })?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let has_addresses = paths.iter().any(|path| path.is_file() && address(path).is_some());
    let networks: Vec<PathBuf> =
        if has_addresses { vec![dir.to_owned()] } else { paths.into_iter().filter(|path| path.is_dir()).collect() };
    let mut found = Found::default();
    for folder in networks {
        found.read_network(&folder, known)?;
    }
    found.leases.sort_by_key(|lease| lease.ips().next());
    Ok(found)
}

/// Why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot read {}", .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("host-local is at work: {} is locked; see by whom with: lslocks", .0.display())]
    Busy(PathBuf),
    #[error("{} is not named like a network", .0.display())]
    Network(PathBuf),
    #[error(transparent)]
    Machine(Box<Error>),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Machine(Box::new(error))
    }
}

/// The address that a file is about; none for `lock` and `last_reserved_ip.0`.
fn address(path: &Path) -> Option<IpAddr> {
    path.file_name()?.to_str()?.parse().ok()
}

impl Found {
    fn read_network(&mut self, folder: &Path, known: &Known<'_>) -> Result<(), ReadError> {
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let network: NetworkName = name.ok_or_else(|| ReadError::Network(folder.to_owned()))?;
        let failed = |source| ReadError::Folder { path: folder.to_owned(), source };
        let pools = pools_of(&network, known.conf_dir);
        if pools.is_empty() {
            self.notes.push(format!(
                "no config in {} names network {network}: prefix lengths and gateways are not known",
                known.conf_dir.display()
            ));
        }
        let _lock = lock(folder, known.patience)?;
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).map_err(failed)?.filter_map(|it| Some(it.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let Some(address) = address(&path) else { continue };
            match holder(&path, &network) {
                Ok((attachment, created)) => {
                    let recorded = recorded(address, &pools);
                    self.add(attachment, recorded, created, known.cache)?;
                }
                Err(problem) => self.garbage.push((path, problem)),
            }
        }
        Ok(())
    }

    /// Addresses of one attachment are one lease.
    fn add(
        &mut self,
        attachment: Attachment,
        recorded: RecordedAddress,
        created: Timestamp,
        cache: &Cache,
    ) -> Result<(), Error> {
        if let Some(lease) = self.leases.iter_mut().find(|lease| lease.attachment == attachment) {
            lease.addresses.push(recorded);
            lease.addresses.sort_by_key(|it| it.address.ip());
            return Ok(());
        }
        let cached = cache.of(&attachment);
        let args =
            cached.map(|cached| cached.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>());
        let args: Option<CniArgs> = args.and_then(|args| args.join(";").parse().ok());
        self.leases.push(Record {
            lease_id: LeaseId(clock::unique_name()?),
            attachment,
            addresses: vec![recorded],
            netns: cached.and_then(|cached| cached.netns.as_deref()).map(crate::Netns::at),
            pod: args.as_ref().map(Pod::from_args).unwrap_or_default(),
            created,
            created_boottime_ms: Moment::now()?.boottime,
            // Older than every request: a DEL that was asked for before the takeover means it, too.
            began_boottime_ms: Some(0),
            boot_id: clock::boot_id()?,
            origin: Origin::Imported,
        });
        Ok(())
    }
}

fn pools_of(network: &NetworkName, conf_dir: &Path) -> Vec<crate::pool::Pool> {
    let configured = [Configured::ours(conf_dir), Configured::of(conf_dir, "host-local")];
    let networks = configured.into_iter().flat_map(|it| it.networks).filter(|it| it.terms.network == *network);
    networks.flat_map(|it| it.terms.pools).collect()
}

/// The address as its network's config presents it.
fn recorded(address: IpAddr, pools: &[crate::pool::Pool]) -> RecordedAddress {
    let pool = pools.iter().find(|pool| pool.range_of(address).is_some());
    let range = pool.and_then(|pool| pool.range_of(address));
    let network = range.and_then(|range| IpNetwork::new(address, range.subnet.prefix()).ok());
    RecordedAddress {
        address: network.unwrap_or_else(|| address.into()),
        gateway: range.and_then(|range| range.gateway),
        pool: pool.map(|pool| pool.key().0).unwrap_or_default(),
    }
}

/// What a network's folder says that can be understood; nothing if there is none.
pub(in crate::cli) fn held(folder: &Path, network: &NetworkName) -> Vec<(IpAddr, Attachment)> {
    let paths = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut held: Vec<_> = paths.filter_map(|path| Some((address(&path)?, holder(&path, network).ok()?.0))).collect();
    held.sort();
    held
}

/// Waits until host-local does not change the network's folder, and keeps it from doing so: its own lock is around
/// each of its calls. The lock file is not made where there is none. The lock goes when the file is closed.
fn lock(folder: &Path, patience: Duration) -> Result<Option<File>, ReadError> {
    let path = folder.join("lock");
    let failed = |source: io::Error| ReadError::Folder { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let started = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if started.elapsed() < patience => {}
            Err(TryLockError::WouldBlock) => return Err(ReadError::Busy(path)),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whose the address is, and since when.
fn holder(path: &Path, network: &NetworkName) -> Result<(Attachment, Timestamp), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut lines = text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty());
    let container = lines.next().ok_or("is empty")?;
    let ifname = lines.next().unwrap_or(IFNAME);
    let attachment = Attachment {
        network: network.clone(),
        container_id: container.parse().map_err(|error| format!("container id: {error}"))?,
        ifname: ifname.parse().map_err(|error| format!("interface name: {error}"))?,
    };
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).map_err(|error| error.to_string())?;
    let created = Timestamp::try_from(modified).map_err(|error| error.to_string())?;
    Ok((attachment, created))
}
