//! Everything that can keep a request from being served, and the CNI code of each.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::delegate::DelegateError;
use cni_spec::{Attachment, CniError, ErrorCode, IfName, NetworkName};
use ipnetwork::IpNetwork;

use crate::check::Difference;

/// One variant per step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config was refused; the error says key and value.
    #[error("{}", .0.msg)]
    Config(CniError),
    /// The names that mark kernel objects would be cut short.
    #[error("name={:?}: network name, container id and interface name have {length} bytes together, and the kernel keeps {max} of them", .network.as_str())]
    OwnerTooLong {
        /// The network.
        network: NetworkName,
        /// Of all three with their separators, in bytes.
        length: usize,
        /// In bytes.
        max: usize,
    },
    /// The names that mark kernel objects could not be printed by nft(8).
    #[error("CNI_IFNAME={:?}: nft(8) could not print a rule with such a name: use letters and digits", .ifname.as_str())]
    OwnerUnprintable {
        /// `CNI_IFNAME`.
        ifname: IfName,
    },
    /// `CNI_NETNS` cannot be opened as a network namespace.
    #[error("CNI_NETNS={netns:?} cannot be used as a network namespace")]
    Netns {
        /// The path.
        netns: PathBuf,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// `CNI_NETNS` is the namespace this plugin runs in.
    #[error("CNI_NETNS={netns:?} is the node's own network namespace: a pod needs one of its own")]
    NetnsIsHost {
        /// The path.
        netns: PathBuf,
    },
    /// The pod has an interface of that name.
    #[error("CNI_IFNAME={ifname:?} is taken: CNI_NETNS={netns:?} has an interface of that name already")]
    IfNameTaken {
        /// The name.
        ifname: String,
        /// The namespace.
        netns: PathBuf,
    },
    /// A link that is not ours has the host end's name.
    #[error("the node has a link {link:?} that belongs to somebody else (alias {alias:?}): rename it and try again")]
    HostLinkTaken {
        /// The host end's name.
        link: String,
        /// Its ifalias.
        alias: String,
    },
    /// The pod would have the hardware address of the node's end.
    #[error("the hardware address {mac} is that of the node's end of the link: wish for another one")]
    MacTaken {
        /// The address.
        mac: String,
    },
    /// A netlink socket could not be opened.
    #[error("failed to open a netlink socket in {place}")]
    Netlink {
        /// Where.
        place: &'static str,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// The config asks for something that needs nf_tables.
    #[error(
        "this kernel has no nf_tables, which \"antiSpoofing\" and \"ipMasqBackend\": \"nftables\" need: load the module, or say \"antiSpoofing\": \"off\" and \"ipMasqBackend\": \"iptables\""
    )]
    NoNftables {
        /// What the kernel said.
        #[source]
        source: kernel::Error,
    },
    /// Looking at the kernel's state failed.
    #[error("failed to read {what}")]
    Observe {
        /// What was read.
        what: String,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// One step of the plan failed.
    #[error("failed to carry out `{step}`")]
    Step {
        /// In the words of `ip(8)`, `sysctl(8)`, `tc(8)`, `nft(8)` or `iptables(8)`.
        step: String,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// A link vanished while it was being set up.
    #[error("link {link:?} vanished while it was being set up: was the namespace deleted?")]
    LinkVanished {
        /// Its name.
        link: String,
    },
    /// Our own IPAM failed.
    #[error("{0}")]
    Ipam(#[source] Box<ipam::Error>),
    /// Another IPAM plugin failed.
    #[error("ipam.type={ipam_type:?}: {source}")]
    Delegate {
        /// Its name.
        ipam_type: String,
        /// How.
        source: Box<DelegateError>,
    },
    /// The IPAM plugin succeeded without an address.
    #[error("ipam.type={ipam_type:?} gave no address")]
    NoAddress {
        /// Its name.
        ipam_type: String,
    },
    /// The IPAM plugin gave an address that no pod can have.
    #[error("the IPAM plugin gave {address}, which a pod cannot have: it {why}")]
    AddressUnusable {
        /// As it was given.
        address: IpNetwork,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The address is another pod's, that is alive: of another ledger, or its lease was ended by force.
    #[error(
        "the address {address} is in use: {holder} has it, by the node's link {link:?}: another ledger of this node lent it, and networks whose ledgers are in different folders must not lease the same addresses (see: ipam check), or its lease was ended by force (see: ipam history {address}); if that pod is gone, delete the link"
    )]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        holder: Box<Attachment>,
        /// The node's end of that pod's link.
        link: String,
    },
    /// The pod has an IPv6 address, and its link would be too small for one.
    #[error(
        "invalid network config: {key}={mtu}: the pod has {address}, and IPv6 needs 1280 bytes at least (RFC 8200, section 5): say \"mtu\": 1280 or more, or give the pod no IPv6 address"
    )]
    MtuTooSmall {
        /// What says so.
        key: String,
        /// In bytes.
        mtu: u32,
        /// The address.
        address: IpAddr,
    },
    /// A route is to reach no further than the link, and leads by a gateway.
    #[error(
        "unsupported route: dst={dst}, scope={scope}: all routes of a pod lead by a gateway, so scopes of 253 (link) and above are impossible: leave it out, or say 0 to 252"
    )]
    RouteScope {
        /// Its destination.
        dst: IpNetwork,
        /// As the config or the IPAM plugin says.
        scope: u8,
    },
    /// Two routes to one destination say different things of it.
    #[error(
        "invalid network config: routes: dst={dst}: there are two, which differ in mtu, advmss or scope: all gateways of a pod are the node, so the two would be one route: leave one out, or tell them apart by priority or table"
    )]
    RoutesDiffer {
        /// Their destination.
        dst: IpNetwork,
    },
    /// The kernel makes something else of a setting's value.
    #[error("invalid network config: sysctl {key}={value:?}: the kernel makes {found:?} of it: say that instead")]
    SysctlValue {
        /// Below /proc/sys.
        key: String,
        /// What was asked for.
        value: String,
        /// What is there now.
        found: String,
    },
    /// The masquerade rules cannot be made of this config.
    #[error("failed to make the masquerade rules of network {:?}", .network.as_str())]
    Rules {
        /// The network.
        network: NetworkName,
        /// Why.
        #[source]
        source: nft_model::Invalid,
    },
    /// Tracked flows could not be read or ended.
    #[error("flows that began without masquerade go on without it: failed to end them")]
    Flows {
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// Other processes kept changing the table.
    #[error("the table {table:?} was changed by others in each of {tries} tries")]
    Contended {
        /// Its name.
        table: String,
        /// How often.
        tries: usize,
    },
    /// STATUS: an ADD would fail.
    #[error("not ready: {0}")]
    NotReady(#[source] Box<Error>),
    /// CHECK found differences.
    #[error("{} of the attachment's objects are not as ADD left them", .0.len())]
    Differs(Vec<Difference>),
    /// Several independent steps of a DEL or GC failed.
    #[error("{} steps failed, the rest was done", .0.len())]
    Several(Vec<Error>),
    /// An ADD failed, and so did a part of its undoing.
    #[error("{failure}; undoing it failed too, so something is left until DEL or GC")]
    Undo {
        /// What failed first.
        failure: Box<Error>,
        /// What could not be undone.
        undo: Vec<Error>,
    },
}

impl Error {
    /// One error for a list of them; `Ok` if it is empty.
    ///
    /// # Errors
    /// The only error, or [`Error::Several`].
    pub fn all_of(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

/// The plugin's own code (the spec leaves 100 and above to plugins): CHECK found differences.
const CODE_DIFFERS: ErrorCode = ErrorCode::Plugin(110);

/// The plugin's own code: the IPAM plugin gave no address, or none that a pod can have.
const CODE_NO_ADDRESS: ErrorCode = ErrorCode::Plugin(111);

/// The plugin's own code: the address is a living pod's.
const CODE_IN_USE: ErrorCode = ErrorCode::Plugin(112);

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => error,
            Error::RouteScope { .. } => Self::from_source(ErrorCode::UnsupportedField, &error),
            Error::OwnerTooLong { .. }
            | Error::MacTaken { .. }
            | Error::MtuTooSmall { .. }
            | Error::RoutesDiffer { .. }
            | Error::SysctlValue { .. }
            | Error::Rules { .. } => Self::from_source(ErrorCode::InvalidConfig, &error),
            Error::Netns { .. }
            | Error::NetnsIsHost { .. }
            | Error::IfNameTaken { .. }
            | Error::OwnerUnprintable { .. } => Self::from_source(ErrorCode::InvalidEnvironment, &error),
            // Others change rules: that passes.
            Error::Step { ref source, .. } if is_busy(source) => Self::from_source(ErrorCode::TryAgainLater, &error),
            Error::NoNftables { .. }
            | Error::Netlink { .. }
            | Error::Observe { .. }
            | Error::Step { .. }
            | Error::Flows { .. }
            | Error::HostLinkTaken { .. } => Self::from_source(ErrorCode::Io, &error),
            Error::LinkVanished { .. } | Error::Contended { .. } => Self::from_source(ErrorCode::TryAgainLater, &error),
            Error::Ipam(error) => Self::from(*error),
            Error::Delegate { ipam_type, source } => delegate_error(&ipam_type, *source),
            Error::AddressInUse { .. } => Self::from_source(CODE_IN_USE, &error),
            Error::NoAddress { .. } | Error::AddressUnusable { .. } => Self::from_source(CODE_NO_ADDRESS, &error),
            Error::Differs(ref differences) => {
                let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
                Self::new(CODE_DIFFERS, error.to_string()).with_details(lines.join("; "))
            }
            Error::NotReady(error) => {
                let why = Self::from(*error);
                Self { code: ErrorCode::NotAvailable, ..why }
            }
            Error::Several(errors) => Self::several(&converted(errors)),
            Error::Undo { failure, undo } => Self::from(*failure).with_failed_undo(&converted(undo)),
        }
    }
}

fn is_busy(error: &kernel::Error) -> bool {
    match error {
        kernel::Error::IptablesBusy { .. } => true,
        kernel::Error::IptablesTurn { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    }
}

/// A delegate's own error keeps its code; one that cannot be found is a mistake in the config.
fn delegate_error(ipam_type: &str, source: DelegateError) -> CniError {
    let is_config = matches!(source, DelegateError::NotFound { .. } | DelegateError::BadType { .. });
    let error = CniError::from(source);
    let msg = format!("invalid network config: ipam.type={ipam_type:?}: {}", error.msg);
    if is_config { CniError { msg, ..error } } else { error }
}

fn converted(errors: Vec<Error>) -> Vec<CniError> {
    errors.into_iter().map(CniError::from).collect()
}
