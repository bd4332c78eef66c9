//! One enum for the whole crate, a variant for each step.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use netlink_packet_core::DecodeError;
use nix::errno::Errno;

use crate::nft::Refusal;
use crate::rtnl::{Failure, SourceRule};

/// [`std::result::Result`] with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What could not be done. Interfaces are named by index where the caller gave an index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of a network namespace leads nowhere.
    #[error("there is no network namespace at {}: the path does not exist", .path.display())]
    NetnsMissing {
        /// The path as given.
        path: PathBuf,
    },
    /// The path leads to something that is not a namespace, e.g. the empty file that is left after
    /// somebody unmounted the namespace.
    #[error("{} is not a namespace", .path.display())]
    NetnsNotANamespace {
        /// The path as given.
        path: PathBuf,
    },
    /// The path leads to a mount, pid, user... namespace.
    #[error("{} is a {kind} namespace, not a network namespace", .path.display())]
    NetnsOtherKind {
        /// The path as given.
        path: PathBuf,
        /// Its kind, as in `namespaces(7)`.
        kind: &'static str,
    },
    /// The path of a network namespace could not be opened or looked at.
    #[error("cannot open the network namespace {}", .path.display())]
    NetnsOpen {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The thread that was to work in a network namespace could not be started.
    #[error("cannot start a thread for a network namespace")]
    NetnsThread(#[source] io::Error),
    /// `setns(2)` failed.
    #[error("cannot enter the network namespace net:[{inode}]")]
    NetnsEnter {
        /// The namespace's inode, as `ip netns identify` and `/proc/PID/ns/net` show it.
        inode: u64,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// `unshare(2)` failed.
    #[error("cannot make a network namespace")]
    NetnsMake(#[source] Errno),
    /// The file on which a namespace is mounted could not be made.
    #[error("cannot make {} for a network namespace", .path.display())]
    NetnsFile {
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A new namespace could not be mounted on its path.
    #[error("cannot mount a network namespace on {}", .path.display())]
    NetnsMount {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A namespace's mount could not be taken away.
    #[error("cannot unmount the network namespace {}", .path.display())]
    NetnsUnmount {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The file on which a namespace was mounted could not be removed.
    #[error("cannot remove {}", .path.display())]
    NetnsUnlink {
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The runtime that drives netlink sockets could not be started.
    #[error("cannot start the runtime for rtnetlink")]
    RtnlRuntime(#[source] io::Error),
    /// A netlink socket could not be opened or set up.
    #[error("cannot open an rtnetlink socket")]
    RtnlSocket(#[source] io::Error),
    /// An interface of that name exists already.
    #[error("there is already an interface {name}")]
    LinkExists {
        /// Which of the two names of a veth pair is taken.
        name: String,
    },
    /// A veth pair could not be made; nothing is left of it.
    #[error("cannot create the veth pair {host} and {peer}")]
    CreateVeth {
        /// The end in this namespace.
        host: String,
        /// The end in the other namespace.
        peer: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// An interface could not be read.
    #[error("cannot read the interface {link}")]
    ReadLink {
        /// Its name, or its index.
        link: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The list of interfaces could not be read.
    #[error("cannot list interfaces")]
    ListLinks(#[source] Failure),
    /// The number that a namespace has for another could not be read.
    #[error("cannot read the number of a network namespace")]
    NetnsId(#[source] Failure),
    /// An interface could not be changed.
    #[error("cannot {change} of the interface with index {index}")]
    ChangeLink {
        /// Its index.
        index: u32,
        /// What was to be changed, as "set the MTU".
        change: &'static str,
        /// Why.
        #[source]
        source: Failure,
    },
    /// An interface got no carrier in time.
    #[error("the interface with index {index} got no carrier within {waited_ms} ms")]
    NoCarrier {
        /// Its index.
        index: u32,
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// An interface could not be deleted.
    #[error("cannot delete the interface with index {index}")]
    DeleteLink {
        /// Its index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The interface has that address already.
    #[error("the interface with index {index} already has the address {address}")]
    AddressExists {
        /// The address.
        address: IpNetwork,
        /// The interface's index.
        index: u32,
    },
    /// An address could not be added.
    #[error("cannot add the address {address} to the interface with index {index}")]
    AddAddress {
        /// The address.
        address: IpNetwork,
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// Waiting for an IPv6 address failed.
    #[error("cannot watch for the address {address}")]
    WatchAddress {
        /// The address.
        address: IpNetwork,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An IPv6 address was taken, but did not become usable in time.
    #[error("the address {address} on the interface with index {index} did not become usable within {waited_ms} ms")]
    AddressNotReady {
        /// The address.
        address: IpNetwork,
        /// The interface's index.
        index: u32,
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// An address could not be deleted.
    #[error("cannot delete the address {address} of the interface with index {index}")]
    DeleteAddress {
        /// The address.
        address: IpNetwork,
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The addresses of an interface could not be read.
    #[error("cannot list the addresses of the interface with index {index}")]
    ListAddresses {
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// A route could not be added or replaced.
    #[error("cannot replace the route {route}")]
    ReplaceRoute {
        /// The route as ip(8) writes it.
        route: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// A route could not be deleted.
    #[error("cannot delete the route {route}")]
    DeleteRoute {
        /// The route as ip(8) writes it.
        route: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// Routes could not be read.
    #[error("cannot list routes")]
    ListRoutes(#[source] Failure),
    /// The kernel could not tell the route to an address.
    #[error("cannot look up the route to {destination}")]
    LookUpRoute {
        /// The address.
        destination: IpAddr,
        /// Why.
        #[source]
        source: Failure,
    },
    /// A routing policy rule could not be added or deleted.
    #[error("cannot {change} the rule from {} lookup {}", .rule.from, .rule.table)]
    ChangeRule {
        /// "add" or "delete".
        change: &'static str,
        /// The rule.
        rule: SourceRule,
        /// Why.
        #[source]
        source: Failure,
    },
    /// Routing policy rules could not be read.
    #[error("cannot list the routing policy rules")]
    ListRules(#[source] Failure),
    /// A token bucket could not be set.
    #[error("cannot set a token bucket on the interface with index {index}")]
    ShapeLink {
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// Queueing disciplines could not be read.
    #[error("cannot list the queueing disciplines of the interface with index {index}")]
    ListQdiscs {
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// A neighbour entry could not be added or replaced.
    #[error("cannot replace the neighbour {address} on the interface with index {index}")]
    ReplaceNeighbour {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The neighbours on all interfaces could not be read.
    #[error("cannot list neighbours")]
    ListAllNeighbours(#[source] Failure),
    /// Neighbours could not be read.
    #[error("cannot list the neighbours on the interface with index {index}")]
    ListNeighbours {
        /// The interface's index.
        index: u32,
        /// Why.
        #[source]
        source: Failure,
    },

    /// The name of a sysctl has an empty part, or one that leads elsewhere.
    #[error("{name:?} is not a sysctl: parts between '/' must not be empty, \".\" or \"..\"")]
    SysctlName {
        /// The name as given.
        name: String,
    },
    /// A sysctl could not be read.
    #[error("cannot read the sysctl {name}")]
    SysctlRead {
        /// The name as given.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A sysctl could not be written.
    #[error("cannot set the sysctl {name} to {value:?}")]
    SysctlWrite {
        /// The name as given.
        name: String,
        /// The value as given.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A change to nf_tables that can never be; nothing was sent.
    #[error("cannot {change}")]
    NftInvalid {
        /// The change as nft(8) says it.
        change: String,
        /// Why.
        #[source]
        source: nft_model::Invalid,
    },
    /// A netfilter netlink socket could not be opened or used.
    #[error("cannot {step} a netfilter socket")]
    NftSocket {
        /// What was to be done, as "open".
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A transaction does not fit into one message; nothing was sent.
    #[error("a transaction of {bytes} bytes is too large: the socket takes {limit} bytes (see net.core.wmem_max)")]
    NftTooLarge {
        /// What it takes, in bytes.
        bytes: usize,
        /// What the kernel allows, in bytes.
        limit: usize,
    },
    /// The kernel refused a transaction; nothing of it was done.
    #[error("cannot {change}")]
    NftRefused {
        /// The part that was refused, as nft(8) says it.
        change: String,
        /// The key of the element that was refused, if the kernel told which.
        key: Option<Vec<nft_model::Value>>,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The rule set is not the one that a transaction was made for; nothing of it was done.
    #[error("the nf_tables rule set was changed by somebody else")]
    NftGenerationMoved,
    /// Something of nf_tables could not be read.
    #[error("cannot read {what}")]
    NftRead {
        /// What, as nft(8) names it.
        what: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The kernel gave no answer, or none that belongs to the question.
    #[error("the kernel did not answer about {what}")]
    NftSilent {
        /// What, as nft(8) says it.
        what: String,
    },
    /// The kernel's answer could not be understood.
    #[error("cannot understand what nf_tables answered")]
    NftDecode(#[source] DecodeError),
    /// The rule set was changed by others each time it was read.
    #[error("{what} did not stay the same long enough to be read")]
    NftUnsettled {
        /// What, as nft(8) names it.
        what: String,
    },

    /// A netlink socket to connection tracking could not be opened.
    #[error("cannot open a netlink socket to connection tracking")]
    ConntrackSocket(#[source] io::Error),
    /// Listening sockets could not be listed.
    #[error("cannot list the sockets that listen on {port}/{protocol}")]
    Listeners {
        /// TCP, UDP or SCTP.
        protocol: nft_model::Proto,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Tracked flows could not be listed.
    #[error("cannot list flows: conntrack -L {filter}")]
    ConntrackList {
        /// Which, as conntrack(8) says it.
        filter: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Tracked flows could not be deleted.
    #[error("cannot delete flows: {flow}")]
    ConntrackDelete {
        /// Which.
        flow: String,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// There is no such program of iptables.
    #[error("there is no program {name}, neither on PATH nor where programs of administrators are")]
    IptablesMissing {
        /// Its name, as "ip6tables-restore".
        name: String,
    },
    /// A program of iptables could not be run, or not be talked to.
    #[error("cannot run {}", .program.display())]
    IptablesRun {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else held the lock of iptables for too long; nothing was changed.
    #[error("{} did not get the xtables lock within {seconds} s: {said}", .program.display())]
    IptablesBusy {
        /// The program's path.
        program: PathBuf,
        /// How long it waited, in seconds.
        seconds: u32,
        /// What it said.
        said: String,
    },
    /// A program of iptables refused what it was asked for.
    #[error("{} failed ({status}): {}{}", .program.display(), if .said.is_empty() { "it does not say why" } else { .said }, .line.as_ref().map(|line| format!("; the line is `{line}`")).unwrap_or_default())]
    IptablesRefused {
        /// The program's path.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, on one line.
        said: String,
        /// The line of its input that it named.
        line: Option<String>,
    },
    /// A program of iptables did not end, and was killed.
    #[error("{} did not end within {seconds} s", .program.display())]
    IptablesHangs {
        /// Its path.
        program: PathBuf,
        /// How long it had, in seconds.
        seconds: u64,
    },
    /// The file by which rules are changed in turn could not be opened or locked.
    #[error("cannot lock {}, by which rules of iptables are changed in turn", .path.display())]
    IptablesTurn {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not tell what there is of iptables.
    #[error("cannot read {what} of iptables")]
    IptablesRead {
        /// What was asked for, as "table nat".
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
