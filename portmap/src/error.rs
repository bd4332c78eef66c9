//! Everything that can keep a request from being served, and the CNI code of each.

use std::path::PathBuf;

use cni_spec::error::with_causes;
use cni_spec::{Attachment, CniError, ErrorCode, IfName};
use nft_model::{Family, Invalid};
use serde_json::Value;

use crate::difference::Difference;
use crate::owner::Holder;
use crate::settings::{Mark, Settings};

/// One variant per step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key of the config could not be read; the error says which.
    #[error("{}", .0.msg)]
    Config(CniError),
    /// ADD without `prevResult`.
    #[error(
        "invalid network config: prevResult is missing: must be called as a chained plugin, after one that gives the pod an address"
    )]
    NotChained,
    /// A key has a value that cannot be.
    #[error("invalid network config: {path}={value}: {flaw}")]
    Invalid {
        /// The key with its path.
        path: String,
        /// Its value.
        value: Value,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A key of the reference portmap has a value that would make a difference here, and does not.
    #[error("unsupported network config: {key}={value}: {why}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Value,
        /// What is not supported about it.
        why: String,
    },
    /// The names that mark an attachment's elements would be cut short.
    #[error("CNI_CONTAINERID={:?} is too long: with network {:?} and CNI_IFNAME {:?} it makes a mark of {length} bytes, and the firewall keeps {max}", .attachment.container_id.as_str(), .attachment.network.as_str(), .attachment.ifname.as_str())]
    OwnerTooLong {
        /// Whose.
        attachment: Attachment,
        /// Of the mark, in bytes.
        length: usize,
        /// In bytes.
        max: usize,
    },
    /// The mark could not be printed by nft(8).
    #[error("CNI_IFNAME={:?} has a quote or a backslash, which a comment in nft(8) cannot have", .ifname.as_str())]
    OwnerUnprintable {
        /// The interface's name.
        ifname: IfName,
    },
    /// A rule set that cannot be: a mistake in this plugin.
    #[error("the rule set is wrong")]
    RuleSet(#[source] Invalid),
    /// There is no socket to nf_tables.
    #[error("failed to open a netlink socket to nf_tables")]
    Open(#[source] kernel::Error),
    /// Looking at the firewall failed.
    #[error("failed to read {what} from nf_tables")]
    Read {
        /// In the words of nft(8).
        what: String,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// Changing the firewall failed; nothing was changed, or with iptables the first of two families only.
    #[error("failed to change the rules of host ports")]
    Commit(#[source] kernel::Error),
    /// The same, of rules that lead to a chain of somebody else's.
    #[error(
        "failed to change the rules of host ports, which lead to externalSetMarkChain={chain:?}: it must be there in table nat, \
         in each family that is mapped"
    )]
    CommitToChain {
        /// Its name.
        chain: String,
        /// What the program said.
        #[source]
        source: kernel::Error,
    },
    /// Rules of pods are gone, and the chains they were in could not be removed.
    #[error(
        "chains of host ports stay in {family} rules of iptables ({flavour}), with no pod's rule: they could not be removed; \
         the next DEL or GC tries again, in vain as long as rules of others lead there (iptables -S lists those)"
    )]
    FrameStays {
        /// IPv4 or IPv6.
        family: Family,
        /// Whose rules.
        flavour: kernel::iptables::Flavour,
        /// What was refused: to change them, or to list what leads there.
        #[source]
        source: kernel::Error,
    },
    /// Others changed the firewall again and again in the meantime; with what the kernel said last.
    #[error("the rules of host ports cannot be changed now: something else changed them at every attempt")]
    Busy(#[source] kernel::Error),
    /// Another process of this plugin changes the rules of iptables and does not end, or the lock could not be made.
    #[error("it is not this process' turn to change the rules of iptables")]
    Turn(#[source] kernel::Error),
    /// There is a chain of our name in iptables with nothing of ours in it.
    #[error(
        "chain {chain} of {family} table nat in iptables is not this plugin's: no rule of it has the comment {:?}",
        crate::ruleset::iptables::STATIC
    )]
    ForeignChain {
        /// IPv4 or IPv6.
        family: Family,
        /// The chain's name.
        chain: &'static str,
    },
    /// Both flavours of iptables are in use.
    #[error(
        "both nft and legacy have {family} rules in table nat of iptables: packets meet both, each program shows its own only"
    )]
    MixedFlavours {
        /// IPv4 or IPv6.
        family: Family,
    },
    /// Neither backend can be used.
    #[error("neither nftables nor iptables can be used: the kernel has no nf_tables")]
    NoBackend(#[source] kernel::Error),
    /// There is no program to write rules of iptables with, or it does not answer.
    #[error("iptables cannot be used")]
    Iptables(#[source] kernel::Error),
    /// iptables did not list a table when it was asked for another attachment.
    #[error("{family} table {table} of iptables is not known: it was not listed the first time, as told above")]
    Unlisted {
        /// Its family.
        family: Family,
        /// Its name.
        table: &'static str,
    },
    /// There is a table of our name that this version did not make.
    #[error(
        "table {family} {table} is not this plugin's: {} instead of {:?}",
        comment.as_ref().map_or_else(|| "it has no comment".to_owned(), |text| format!("its comment is {text:?}")),
        crate::ruleset::LAYOUT
    )]
    ForeignTable {
        /// The table's family.
        family: Family,
        /// The table's name.
        table: String,
        /// What the table says of itself.
        comment: Option<String>,
    },
    /// Somebody else has the host port.
    #[error("host port {port} is held by {holder}, for {target}")]
    Held {
        /// Protocol, port and address.
        port: String,
        /// Who.
        holder: Box<Holder>,
        /// The holder's pod address and port.
        target: String,
    },
    /// The kernel does not take a part of our rules.
    #[error("the kernel has no {piece}, which host ports need")]
    MissingPiece {
        /// The module, and the setting of the kernel's build.
        piece: &'static str,
        /// What was refused.
        #[source]
        source: kernel::Error,
    },
    /// The kernel has no match or target that our rules of iptables have.
    #[error("the kernel has no {piece}, which host ports need in {family} rules of iptables ({flavour})")]
    MissingExtension {
        /// The module, and the setting of the kernel's build.
        piece: &'static str,
        /// IPv4 or IPv6.
        family: Family,
        /// Whose rules.
        flavour: kernel::iptables::Flavour,
    },
    /// What the kernel has for rules of iptables-legacy, only a module tells that is not loaded.
    #[error(
        "nothing in the kernel answers for {piece} yet, which host ports need in {family} rules of iptables (legacy): \
         iptables loads it for an ADD, if there is such a module"
    )]
    NotLoaded {
        /// The module, and the setting of the kernel's build.
        piece: &'static str,
        /// IPv4 or IPv6.
        family: Family,
    },
    /// Rules of the reference portmap name a container, and nothing tells its network.
    #[error("nothing tells which network container {0} is on: {folders} have no entry for it", folders = crate::adopt::FOLDERS.join(", "))]
    UnknownNetwork(String),
    /// A rule of the reference portmap lets only some packets in.
    #[error("the rule `{0}` lets only some packets in, and an adopted mapping would let all in")]
    Limited(String),
    /// A dead holder was begun anew in the meantime.
    #[error("{0} was begun anew")]
    BegunAnew(Attachment),
    /// Somebody else has the host port, and was looked at.
    #[error("{held}")]
    HeldBy {
        /// [`Error::Held`].
        held: Box<Error>,
        /// Why it is not taken over, and what can be done.
        why: String,
    },
    /// A process of the node listens on the host port, and the config says to refuse that.
    #[error("host port {port} is in use on the node itself: {listener}")]
    HostListener {
        /// Protocol, port and address.
        port: String,
        /// Who listens where.
        listener: String,
    },
    /// Whether a process of the node listens on a host port could not be found out.
    #[error("failed to look for listening sockets of the node")]
    Listeners(#[source] kernel::Error),
    /// Tracked flows could not be listed or deleted.
    #[error("failed to end flows through host ports that have changed hands")]
    Flows(#[source] kernel::Error),
    /// A record is none: a file that was damaged, or put there.
    #[error("failed to read {}; its host ports are not looked after: if there is such a pod, start it anew, if not, remove the file", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record could not be written or removed, or the folder not be listed.
    #[error("failed to {action} {}", .path.display())]
    Record {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The way to the pod could not be found out.
    #[error("failed to find the interface that leads to the pod")]
    Route(#[source] kernel::Error),
    /// `route_localnet` of the pod's interface on the host could not be read or set.
    #[error("failed to access sysctl {key}")]
    Localnet {
        /// The sysctl.
        key: String,
        /// Why.
        #[source]
        source: kernel::Error,
    },
    /// An ADD failed, and so did a part of its undoing.
    #[error("{failure}; undoing it failed too, so something is left until DEL or GC")]
    Undo {
        /// What failed first.
        failure: Box<Error>,
        /// What could not be undone.
        undo: Vec<Error>,
    },
    /// CHECK found differences.
    #[error("{} of the attachment's host port rules are not as ADD left them", .0.len())]
    Differs(Vec<Difference>),
    /// Some of what GC had to do failed; the rest was done.
    #[error("{} steps failed, the rest was done", .0.len())]
    Several(Vec<Error>),
    /// STATUS: no ADD would be served.
    #[error("no host port can be mapped")]
    NotAvailable(#[source] Box<Error>),
}

impl Error {
    /// Whether it only tells what is left that is no pod's, and neither keeps a record nor refuses a claim.
    #[must_use]
    pub fn is_remark(&self) -> bool {
        matches!(self, Self::FrameStays { .. })
    }

    /// The same with the key of the config that led to it, of rules that a program refused without saying so.
    #[must_use]
    pub fn explained(self, settings: &Settings) -> Self {
        match (self, &settings.mark) {
            (Self::Commit(source @ kernel::Error::IptablesRefused { .. }), Some(Mark::Chain(chain))) => {
                Self::CommitToChain { chain: chain.clone(), source }
            }
            (Self::Undo { failure, undo }, _) => Self::Undo { failure: Box::new(failure.explained(settings)), undo },
            (other, _) => other,
        }
    }

    /// One error for a list of them.
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

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No port.
    #[error("must be 1 to 65535")]
    Port,
    /// No protocol with ports that nf_tables can translate.
    #[error("must be tcp, udp or sctp")]
    Protocol,
    /// No address.
    #[error("must be an IP address of the node; leave it out for every address")]
    HostIp,
    /// Nothing that a node can have as its address.
    #[error("must be a unicast address")]
    NotUnicast,
    /// The same again.
    #[error("the same address, protocol and port as in runtimeConfig.portMappings[{first}]")]
    Duplicate {
        /// Its index.
        first: usize,
    },
    /// Nothing to lead to.
    #[error("prevResult has no {}address on {} in the pod that it could lead to", family_word(*.family), .ifname.as_str())]
    NoPodAddress {
        /// The family asked for; `None` for any.
        family: Option<Family>,
        /// The pod's interface.
        ifname: IfName,
    },
    /// The operator keeps the node's loopback to itself.
    #[error("no pod is reached there: \"localhost\" is false")]
    NoLoopback,
    /// The operator keeps the port.
    #[error("is reserved: reservedHostPorts has {0}")]
    Reserved(String),
    /// The operator gives other ports.
    #[error("is outside of hostPortRange, {0}")]
    OutOfRange(String),
    /// No port, and no range of them.
    #[error("must be a port or a range of ports, as 22 or \"10250-10259\"")]
    Ports,
    /// None of the words.
    #[error("must be {0}")]
    OneOf(&'static str),
    /// A backend that nobody has.
    #[error("must be \"nftables\" or \"iptables\"")]
    Backend,
    /// No bit of a packet's mark.
    #[error("must be 0 to 31")]
    MarkBit,
    /// Both ways of marking.
    #[error("cannot be set together with markMasqBit")]
    TwoMarks,
    /// No name of a chain.
    #[error("must be the name of a chain of iptables: at most 28 letters, digits, \"-\", \"_\" and \".\"")]
    Chain,
    /// A condition that cannot be.
    #[error("{0}")]
    Condition(String),
}

fn family_word(family: Option<Family>) -> &'static str {
    match family {
        None => "",
        Some(Family::Ip) => "IPv4 ",
        Some(Family::Ip6) => "IPv6 ",
    }
}

/// This plugin's own code (the spec leaves 100 and above to plugins): CHECK found differences.
pub const CODE_DIFFERS: ErrorCode = ErrorCode::Plugin(110);
/// This plugin's own code: the host port is somebody else's.
pub const CODE_HELD: ErrorCode = ErrorCode::Plugin(120);
/// This plugin's own code: the table is somebody else's, or another version's.
pub const CODE_FOREIGN_TABLE: ErrorCode = ErrorCode::Plugin(121);
/// This plugin's own code: a mistake in the plugin itself.
pub const CODE_RULE_SET: ErrorCode = ErrorCode::Plugin(122);

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => error,
            Error::NotChained | Error::Invalid { .. } => Self::from_source(ErrorCode::InvalidConfig, &error),
            Error::Unsupported { .. } => Self::from_source(ErrorCode::UnsupportedField, &error),
            Error::OwnerTooLong { .. } | Error::OwnerUnprintable { .. } => {
                Self::from_source(ErrorCode::InvalidEnvironment, &error)
            }
            Error::RuleSet(_) => Self::from_source(CODE_RULE_SET, &error),
            Error::Commit(kernel::Error::IptablesBusy { .. }) => Self::from_source(ErrorCode::TryAgainLater, &error),
            Error::Open(_)
            | Error::Read { .. }
            | Error::Commit(_)
            | Error::CommitToChain { .. }
            | Error::FrameStays { .. }
            | Error::Route(_)
            | Error::Listeners(_)
            | Error::Flows(_)
            | Error::MissingPiece { .. }
            | Error::MissingExtension { .. }
            | Error::NotLoaded { .. }
            | Error::UnknownNetwork(_)
            | Error::Limited(_)
            | Error::Record { .. }
            | Error::Unreadable { .. }
            | Error::NoBackend(_)
            | Error::MixedFlavours { .. }
            | Error::Iptables(_)
            | Error::Unlisted { .. } => Self::from_source(ErrorCode::Io, &error),
            Error::Localnet { ref source, .. } => {
                let next = "the node needs it to reach the pod at 127.0.0.1; with \"localhost\": false it does without";
                Self::from_source(ErrorCode::Io, &error).with_details(format!("{}; {next}", with_causes(source)))
            }
            Error::Turn(kernel::Error::IptablesTurn { ref source, .. })
                if source.kind() != std::io::ErrorKind::TimedOut =>
            {
                Self::from_source(ErrorCode::Io, &error)
            }
            Error::Busy(_) | Error::BegunAnew(_) | Error::Turn(_) => {
                Self::from_source(ErrorCode::TryAgainLater, &error)
            }
            Error::ForeignTable { family, ref table, .. } => {
                let next = format!("once no pod with host ports is left, remove it: nft delete table {family} {table}");
                Self::from_source(CODE_FOREIGN_TABLE, &error).with_details(next)
            }
            Error::ForeignChain { .. } => Self::from_source(CODE_FOREIGN_TABLE, &error),
            Error::Held { .. } => Self::from_source(CODE_HELD, &error),
            Error::HeldBy { held, why } => Self::from_source(CODE_HELD, &*held).with_details(why),
            Error::HostListener { .. } => Self::from_source(CODE_HELD, &error).with_details(
                "stop it, choose another hostPort, or let \"hostListeners\" be \"warn\": then packets to the node's \
                 addresses reach the pod instead of it",
            ),
            Error::Undo { failure, undo } => Self::from(*failure).with_failed_undo(&converted(undo)),
            Error::Differs(ref differences) => {
                let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
                Self::new(CODE_DIFFERS, error.to_string()).with_details(lines.join("\n"))
            }
            Error::Several(errors) => Self::several(&converted(errors)),
            Error::NotAvailable(_) => Self::from_source(ErrorCode::NotAvailable, &error),
        }
    }
}

fn converted(errors: Vec<Error>) -> Vec<CniError> {
    errors.into_iter().map(CniError::from).collect()
}
