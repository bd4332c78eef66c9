//! Everything that can go wrong, and the one place that says it in the protocol's words.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_spec::{Attachment, CniError, ErrorCode};

use crate::config::{InvalidKey, may_come};
use crate::ledger::Holder;
use crate::refusal::{Claim, Exhausted, Outside};
use crate::store::StoreError;

/// The crate's errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the network config has the wrong JSON type. The text names key and value.
    #[error("{}", .0.msg)]
    ConfigShape(CniError),
    /// A key of the network config has a value that cannot be used.
    #[error("invalid network config: {0}")]
    Config(InvalidKey),
    /// `IP` of `CNI_ARGS` is no address.
    #[error("CNI_ARGS has IP={value:?}, which is not an IP address")]
    CniArgsIp {
        /// The value.
        value: String,
    },
    /// `CNI_NETNS` cannot be written down.
    #[error("CNI_NETNS={:?} is not UTF-8, as the ledger's text must be", .path)]
    NetnsPath {
        /// The value.
        path: PathBuf,
    },
    /// `ipam.resolvConf` names a file that cannot be read.
    #[error("cannot read ipam.resolvConf={:?}", .path.display())]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `ipam.subnetFile` names a file that cannot be read.
    #[error("cannot read ipam.subnetFile={:?}", .path.display())]
    SubnetFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An address was asked for that no pool gives.
    #[error("{0}")]
    Outside(Outside),
    /// An address was asked for that another attachment holds.
    #[error("address {address} was asked for, but is held by {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: Box<Claim>,
    },
    /// What was to be ended is another lease by now, or its pod has asked for it again; or what was to begin was deleted.
    #[error(
        "{attachment} was deleted, got another lease, or asked for it again, after it was looked at; nothing was changed"
    )]
    Changed {
        /// Whose.
        attachment: Attachment,
    },
    /// A lease was to hold an address twice.
    #[error("{address} stands twice in the lease of {attachment}")]
    Repeated {
        /// Whose lease.
        attachment: Attachment,
        /// The address.
        address: IpAddr,
    },
    /// All addresses of a pool are leased.
    #[error("{0}")]
    Exhausted(Box<Exhausted>),
    /// The attachment was deleted after this ADD had begun.
    #[error("{attachment} was deleted while this ADD was under way")]
    Deleted {
        /// Which.
        attachment: Attachment,
    },
    /// CHECK: the ledger knows nothing of the attachment.
    #[error("{attachment} has no lease")]
    NoLease {
        /// Which.
        attachment: Attachment,
    },
    /// CHECK: a leased address is not in `prevResult`.
    #[error("{attachment} has a lease for {address}, which is not in prevResult")]
    NotInResult {
        /// Which.
        attachment: Attachment,
        /// The leased address.
        address: IpAddr,
    },
    /// CHECK: the index names somebody else for a leased address.
    #[error("{attachment} has a lease for {address}, which the ledger's index gives to {holder}")]
    Misindexed {
        /// Which.
        attachment: Attachment,
        /// The leased address.
        address: IpAddr,
        /// Who holds it by the index.
        holder: String,
    },
    /// STATUS: an ADD would fail.
    #[error("no new pod can be given an address now; those of running pods stay as they are")]
    NotAvailable(#[source] Box<Error>),
    /// Somebody else works with the ledger, for longer than was to be waited.
    #[error("the ledger is busy: {} {holder}; waited {:.1} s{}", .path.display(), .waited.as_secs_f64(), as_do(*.others))]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// Who holds it.
        holder: Holder,
        /// How many others wait for it, as far as can be seen.
        others: usize,
    },
    /// The lock file could not be opened or locked.
    #[error("cannot lock the ledger with {}", .path.display())]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The ledger's folder could not be made.
    #[error("cannot make the ledger's folder {}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The database in the ledger's folder cannot be used.
    #[error("the ledger in {} cannot be used", .dir.display())]
    Store {
        /// The ledger's folder.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The plain copies of the leases, which a damaged database is made anew from, cannot be read or written.
    #[error("cannot read or write {}", .path.display())]
    Copy {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no space for what a full file system would need to end leases, so none begin.
    #[error("cannot keep a megabyte in {} for releases, and leases nothing without", .path.display())]
    Ballast {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A damaged database could not be put aside.
    #[error("the damaged ledger {} cannot be put aside", .path.display())]
    Quarantine {
        /// The database's folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no ledger, and the kernel does not tell which addresses are in use.
    #[error("cannot make a ledger without knowing which addresses are in use")]
    Rebuild(#[source] kernel::Error),
    /// The ledger cannot be had, and the release could not even be written down.
    #[error("cannot write the release down in {}, nor in {elsewhere}, nor carry it out ({instead})", .path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// Why it could not be written.
        #[source]
        source: io::Error,
        /// Where it could not be written either, and why.
        elsewhere: String,
        /// Why the ledger could not be had.
        instead: Box<Error>,
    },
    /// What a person has set aside cannot be read, so nobody knows what must not be leased.
    #[error("cannot read the reservations in {}", .path.display())]
    Reservations {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An address was asked for that is cooling down, and `ipam.strict` is set.
    #[error("address {address} was asked for, but rests for another {seconds} s, and ipam.strict=true")]
    Cooling {
        /// The address.
        address: IpAddr,
        /// How long, rounded up.
        seconds: u64,
    },
    /// An address was asked for that a person has set aside.
    #[error("address {address} was asked for, but is reserved: {reason}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The reservation's reason.
        reason: String,
    },
    /// The ledger's resident owner has refused.
    #[error("{}", .0.msg)]
    Owner(CniError),
    /// The ledger's folder is too deep for a socket in it.
    #[error("{} is too long a path for a socket in it", .path.display())]
    SocketPath {
        /// The folder.
        path: PathBuf,
    },
    /// The resident owner's socket cannot be made.
    #[error("cannot listen at {}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The socket that was handed to the resident owner is not where plugins look for it.
    #[error("plugins look for the ledger's owner at {}, and the socket that was handed over (LISTEN_FDS) is not there but at {:?}", .wanted.display(), .handed.display())]
    SocketElsewhere {
        /// Where the socket was bound; it may have been removed since.
        handed: PathBuf,
        /// Where plugins look.
        wanted: PathBuf,
    },
    /// The resident owner's socket is not there any more.
    #[error("{} is not the owner's socket any more; plugins go on without an owner", .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
    },
    /// The resident owner does not see the pods of who asks.
    #[error(
        "the ledger's owner (ipam serve) lives in another {which} namespace than this plugin, and cannot see the node's pods"
    )]
    Elsewhere {
        /// Which, by its name in proc_pid_ns(5).
        which: &'static str,
    },
    /// The resident owner cannot work.
    #[error("cannot serve the ledger")]
    Serve(#[source] io::Error),
    /// The resident owner's ledger is not there any more.
    #[error("the ledger's folder was removed; whoever asks now makes a new one")]
    Removed,
    /// The ledger's owner answered something else than was asked: another version.
    #[error("the ledger's owner gave an answer that does not belong to the question; it may be of another version")]
    Answer,
    /// The kernel did not tell the time.
    #[error("cannot read CLOCK_BOOTTIME")]
    Clock(#[source] io::Error),
    /// The kernel did not tell something else.
    #[error("cannot read {path}")]
    Proc {
        /// The file.
        path: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether it is one who is slow, or many who are many.
fn as_do(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", as does 1 other".to_owned(),
        _ => format!(", as do {others} others"),
    }
}

/// The plugin's own error codes; the spec leaves 100 and above to plugins.
pub mod code {
    use super::ErrorCode;

    /// 100: a pool has no free address.
    pub const EXHAUSTED: ErrorCode = ErrorCode::Plugin(100);
    /// 101: the address asked for is held by another attachment.
    pub const TAKEN: ErrorCode = ErrorCode::Plugin(101);
    /// 102: the address asked for is in no pool of the network.
    pub const OUTSIDE: ErrorCode = ErrorCode::Plugin(102);
    /// 103: the ledger is damaged and could not be rebuilt.
    pub const DAMAGED: ErrorCode = ErrorCode::Plugin(103);
    /// 104: the attachment was deleted while this ADD was under way.
    pub const DELETED: ErrorCode = ErrorCode::Plugin(104);
    /// 105: CHECK found a difference between ledger and `prevResult`.
    pub const DIFFERS: ErrorCode = ErrorCode::Plugin(105);
}

impl Error {
    /// The number under which a runtime sees it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ConfigShape(inner) | Self::Owner(inner) => inner.code,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::CniArgsIp { .. } | Self::NetnsPath { .. } => ErrorCode::InvalidEnvironment,
            Self::SubnetFile { source, .. } if may_come(source) => ErrorCode::TryAgainLater,
            Self::ResolvConf { .. }
            | Self::SubnetFile { .. }
            | Self::LockFile { .. }
            | Self::Folder { .. }
            | Self::Copy { .. }
            | Self::Ballast { .. }
            | Self::Reservations { .. }
            | Self::Answer
            | Self::SocketPath { .. }
            | Self::Socket { .. }
            | Self::SocketElsewhere { .. }
            | Self::Unreachable { .. }
            | Self::Serve(_)
            | Self::Removed
            | Self::Clock(_)
            | Self::Proc { .. } => ErrorCode::Io,
            Self::Outside(_) => code::OUTSIDE,
            Self::Taken { .. } | Self::Changed { .. } | Self::Repeated { .. } | Self::Reserved { .. } => code::TAKEN,
            Self::Exhausted(_) => code::EXHAUSTED,
            Self::Deleted { .. } => code::DELETED,
            Self::NoLease { .. } | Self::NotInResult { .. } | Self::Misindexed { .. } => code::DIFFERS,
            Self::NotAvailable(_) => ErrorCode::NotAvailable,
            Self::Busy { .. } | Self::Spool { .. } | Self::Cooling { .. } | Self::Elsewhere { .. } => {
                ErrorCode::TryAgainLater
            }
            Self::Store { source, .. } => match source {
                StoreError::Locked | StoreError::Newer { .. } => ErrorCode::TryAgainLater,
                StoreError::Io(_) => ErrorCode::Io,
                StoreError::Damaged(_) => code::DAMAGED,
            },
            Self::Quarantine { .. } | Self::Rebuild(_) => code::DAMAGED,
        }
    }

    /// What can be done about it, where that is not plain from the text.
    pub(crate) fn next_step(&self) -> Option<&str> {
        match self {
            Self::Exhausted(exhausted) if exhausted.suspects > 0 => {
                Some("see which leases are of pods that are gone, and end them, with: ipam gc")
            }
            Self::Exhausted(_) | Self::Taken { .. } | Self::Changed { .. } => {
                Some("see who holds what with: ipam list")
            }
            Self::Store { source: StoreError::Newer { .. }, .. } => {
                Some("a newer podwire wrote the ledger: install that version again, or drain the node and reboot it")
            }
            Self::Ballast { .. } => Some("make space on that file system, or move ipam.dataDir"),
            Self::Reservations { .. } => Some("keep what can be read of it with: ipam repair"),
            Self::Reserved { .. } => Some("end the reservation with: ipam unreserve"),
            Self::SubnetFile { source, .. } if may_come(source) => {
                Some("the network's daemon (flannel) writes it when it has got a subnet; see whether it is running")
            }
            Self::SocketElsewhere { .. } => Some(
                "make ListenStream= of the socket unit and --dir of the service agree, then: systemctl restart podwire-ipam.socket",
            ),
            Self::Elsewhere { .. } => Some(
                "run the owner where the runtime runs (in a pod: hostNetwork and hostPID), or stop it: plugins go on without",
            ),
            Self::NotAvailable(reason) => reason.next_step(),
            Self::Owner(inner) => Some(inner.details.as_str()).filter(|details| !details.is_empty()),
            Self::ConfigShape(_)
            | Self::Config(_)
            | Self::CniArgsIp { .. }
            | Self::NetnsPath { .. }
            | Self::ResolvConf { .. }
            | Self::SubnetFile { .. }
            | Self::Outside(_)
            | Self::Repeated { .. }
            | Self::Deleted { .. }
            | Self::NoLease { .. }
            | Self::NotInResult { .. }
            | Self::Misindexed { .. }
            | Self::Busy { .. }
            | Self::LockFile { .. }
            | Self::Folder { .. }
            | Self::Store { .. }
            | Self::Copy { .. }
            | Self::Quarantine { .. }
            | Self::Rebuild(_)
            | Self::Spool { .. }
            | Self::Cooling { .. }
            | Self::Answer
            | Self::SocketPath { .. }
            | Self::Socket { .. }
            | Self::Unreachable { .. }
            | Self::Serve(_)
            | Self::Removed
            | Self::Clock(_)
            | Self::Proc { .. } => None,
        }
    }
}

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        if let Error::ConfigShape(inner) | Error::Owner(inner) = error {
            return inner;
        }
        let mut said = Self::from_source(error.code(), &error);
        if let Some(step) = error.next_step() {
            let separator = if said.details.is_empty() { "" } else { "; " };
            said.details = format!("{}{separator}{step}", said.details);
        }
        said
    }
}
