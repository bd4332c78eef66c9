//! veth pairs with one end in another namespace from the start.

use std::os::fd::{AsRawFd, BorrowedFd};

use macaddr::MacAddr6;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Failure, Link, Rtnl};
use crate::error::{Error, Result};

/// A veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethPair<'a> {
    /// Name of the end in the namespace of the [`Rtnl`].
    pub host: &'a str,
    /// Its hardware address.
    pub host_mac: MacAddr6,
    /// Name of the end in the other namespace.
    pub peer: &'a str,
    /// Its hardware address.
    pub peer_mac: MacAddr6,
    /// The other namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// MTU of both ends, in bytes; the kernel's default (1500) if not given.
    pub mtu: Option<u32>,
    /// Whether the host end does ARP. Without, it hears none and asks none: whoever it talks to needs a neighbour
    /// entry.
    pub arp: bool,
    /// ifalias of the host end: at most 255 bytes; none if empty.
    pub alias: &'a str,
}

/// Where the two ends of a new veth pair are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VethIndexes {
    /// Index of the host end.
    pub host: u32,
    /// Index of the other end, in its namespace.
    pub peer: u32,
}

impl Rtnl {
    /// Makes a veth pair whose peer is in another namespace from the start. The host end is up; the peer
    /// cannot be set up from here (the kernel answers ENOTCONN) and is down.
    ///
    /// Linux takes no ifalias in the message that makes an interface, so it is set by a second one. Whoever
    /// is killed in between leaves a pair that only its name tells to be theirs.
    ///
    /// # Errors
    /// [`Error::LinkExists`] with the name that is taken, [`Error::CreateVeth`] otherwise; the pair does not
    /// exist then.
    pub fn create_veth(&self, pair: &VethPair<'_>) -> Result<VethIndexes> {
        let failed = |source| Error::CreateVeth { host: pair.host.into(), peer: pair.peer.into(), source };
        let request = RouteNetlinkMessage::NewLink(request(pair));
        let echoed = match self.change(request, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO) {
            Ok(echoed) => echoed,
            Err(failure) if failure.is(&[Errno::EEXIST]) => return Err(self.name_taken(pair)),
            Err(source) => return Err(failed(source)),
        };
        let made = self.made(pair, echoed).map_err(failed)?;
        if pair.alias.is_empty() || made.link.alias.as_deref() == Some(pair.alias) {
            return Ok(made.indexes);
        }
        let alias = LinkUnspec::new_with_index(made.indexes.host).alias(pair.alias).build();
        match self.change(RouteNetlinkMessage::SetLink(alias), 0) {
            Ok(_) => Ok(made.indexes),
            Err(source) => {
                // Best effort: the failure that is reported is the one that matters.
                drop(self.delete_link(made.indexes.host));
                Err(failed(source))
            }
        }
    }

    /// The host end, from the kernel's echo or, where it does not echo new links, by another question.
    fn made(&self, pair: &VethPair<'_>, echoed: Vec<RouteNetlinkMessage>) -> std::result::Result<Made, Failure> {
        let echo = echoed.into_iter().find_map(|object| match object {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        });
        let link = match echo {
            Some(link) => link,
            None => {
                let request = LinkMessageBuilder::<LinkUnspec>::default().name(pair.host);
                self.read_link(request)?.ok_or(Failure::Missing)?
            }
        };
        let peer = link.link_index.ok_or(Failure::Missing)?;
        Ok(Made { indexes: VethIndexes { host: link.index, peer }, link })
    }

    /// The kernel says only that one of the two names exists.
    fn name_taken(&self, pair: &VethPair<'_>) -> Error {
        match self.link(pair.host) {
            Ok(Some(_)) => Error::LinkExists { name: pair.host.into() },
            Ok(None) => Error::LinkExists { name: pair.peer.into() },
            Err(error) => error,
        }
    }
}

struct Made {
    indexes: VethIndexes,
    link: Link,
}

fn request(pair: &VethPair<'_>) -> LinkMessage {
    let mut peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name(pair.peer)
        .address(pair.peer_mac.as_bytes().to_vec())
        .setns_by_fd(pair.peer_netns.as_raw_fd());
    let mut host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(pair.host)
        .address(pair.host_mac.as_bytes().to_vec())
        .arp(pair.arp)
        .up();
    if let Some(mtu) = pair.mtu {
        peer = peer.mtu(mtu);
        host = host.mtu(mtu);
    }
    if !pair.alias.is_empty() {
        // Linux up to 6.18 at least does not set it here, but refuses here what is too long; a kernel that
        // sets it saves the second message.
        host = host.alias(pair.alias);
    }
    host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build()
}
