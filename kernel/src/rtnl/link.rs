//! Interfaces.

use std::time::{Duration, Instant};

use macaddr::MacAddr6;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Failure, Rtnl};
use crate::error::{Error, Result};

/// Kernels before 6.8 act on some changes of carrier once a second.
const CARRIER_DEADLINE: Duration = Duration::from_secs(3);
const CARRIER_POLL: Duration = Duration::from_micros(200);

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Unique in its namespace, and never used again while the namespace lives.
    pub index: u32,
    /// 1 to 15 bytes.
    pub name: String,
    /// `None` if its hardware addresses do not have six bytes.
    pub mac: Option<MacAddr6>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is administratively up (IFF_UP); its carrier may still be missing.
    pub up: bool,
    /// Whether it asks for, and tells, hardware addresses by ARP and neighbour discovery (not IFF_NOARP).
    pub arp: bool,
    /// Whether it is up, has a carrier, and sends (operational state "up"). Never for `lo`, which does not tell.
    pub carrier: bool,
    /// ifalias: what its owner noted on it.
    pub alias: Option<String>,
    /// "veth", "bridge"...; `None` for `lo` and most hardware.
    pub kind: Option<String>,
    /// The other end of a veth pair, the lower device of a VLAN...: an index in [`Link::link_netnsid`]'s namespace.
    pub link_index: Option<u32>,
    /// The id that this namespace has for the namespace of `link_index`; `None` if it is the same one.
    pub link_netnsid: Option<i32>,
}

impl Rtnl {
    /// The interface with a name (or alternative name); `None` if there is none.
    ///
    /// # Errors
    /// [`Error::ReadLink`], e.g. if the name is longer than 15 bytes.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let attribute = LinkAttribute::IfName(name.to_owned());
        let request = LinkMessageBuilder::<LinkUnspec>::default().append_extra_attribute(attribute);
        self.read_link(request).map_err(|source| Error::ReadLink { link: name.into(), source })
    }

    /// The interface with an index; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::ReadLink`].
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let request = LinkUnspec::new_with_index(index);
        self.read_link(request).map_err(|source| Error::ReadLink { link: format!("with index {index}"), source })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`Error::ListLinks`].
    pub fn links(&self) -> Result<Vec<Link>> {
        self.list_links(LinkMessageBuilder::<LinkUnspec>::default()).map_err(Error::ListLinks)
    }

    /// All interfaces of a kind, e.g. "veth"; the kernel leaves the others out.
    ///
    /// # Errors
    /// [`Error::ListLinks`].
    pub fn links_of_kind(&self, kind: &str) -> Result<Vec<Link>> {
        let request = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::from(kind));
        let mut links = self.list_links(request).map_err(Error::ListLinks)?;
        // Kernels that do not know the kind list everything.
        links.retain(|link| link.kind.as_deref() == Some(kind));
        Ok(links)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// [`Error::ChangeLink`].
    pub fn set_up(&self, index: u32) -> Result<()> {
        self.change_link(index, "change the state", LinkUnspec::new_with_index(index).up())
    }

    /// Renames an interface. Kernels before 6.2 rename no interface that is up, so there it is down meanwhile.
    ///
    /// # Errors
    /// [`Error::ChangeLink`]; EEXIST if the name is taken.
    pub fn rename_link(&self, index: u32, name: &str) -> Result<()> {
        let request = || LinkUnspec::new_with_index(index);
        let renamed = self.change_link(index, "change the name", request().name(name));
        if !matches!(&renamed, Err(Error::ChangeLink { source, .. }) if source.is(&[Errno::EBUSY])) {
            return renamed;
        }
        self.change_link(index, "change the state", request().down())?;
        self.change_link(index, "change the name", request().name(name))?;
        self.set_up(index)
    }

    /// Returns when packets that are sent out of the interface are no longer dropped: it has a carrier, and
    /// the kernel has acted on that.
    ///
    /// A veth end gets its carrier when both ends are up, but sends only after a work queue has given it its
    /// queue (`linkwatch_do_dev`, net/core/link_watch.c); until then packets are lost without a trace but for
    /// the interface's count of drops. Since Linux 6.8 the question itself makes the kernel catch up. Not
    /// for `lo` and others that never tell about a carrier.
    ///
    /// # Errors
    /// [`Error::NoCarrier`] if that takes longer than 3 s, as when the peer is down; [`Error::ReadLink`] if the
    /// interface is gone.
    pub fn wait_for_carrier(&self, index: u32) -> Result<()> {
        let deadline = Instant::now() + CARRIER_DEADLINE;
        loop {
            let gone = || Error::ReadLink { link: format!("with index {index}"), source: Failure::Missing };
            if self.link_by_index(index)?.ok_or_else(gone)?.carrier {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let waited_ms = u64::try_from(CARRIER_DEADLINE.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::NoCarrier { index, waited_ms });
            }
            std::thread::sleep(CARRIER_POLL);
        }
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// [`Error::ChangeLink`], e.g. if the driver does not take it.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change_link(index, "change the MTU", LinkUnspec::new_with_index(index).mtu(mtu))
    }

    /// Sets the ifalias, at most 254 bytes (`IFALIASZ` is 256, and the message carries a NUL that counts); an empty one removes it.
    ///
    /// # Errors
    /// [`Error::ChangeLink`].
    pub fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        self.change_link(index, "change the alias", LinkUnspec::new_with_index(index).alias(alias))
    }

    pub(super) fn change_link(
        &self,
        index: u32,
        change: &'static str,
        request: LinkMessageBuilder<LinkUnspec>,
    ) -> Result<()> {
        let request = RouteNetlinkMessage::SetLink(request.build());
        self.change(request, 0).map(drop).map_err(|source| Error::ChangeLink { index, change, source })
    }

    pub(super) fn read_link(
        &self,
        request: LinkMessageBuilder<LinkUnspec>,
    ) -> std::result::Result<Option<Link>, Failure> {
        match self.get(RouteNetlinkMessage::GetLink(without_statistics(request))) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Link::from_message(message))),
            Ok(_) => Err(Failure::Missing),
            Err(failure) if failure.is(&[Errno::ENODEV]) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn list_links(&self, request: LinkMessageBuilder<LinkUnspec>) -> std::result::Result<Vec<Link>, Failure> {
        let objects = self.list(&RouteNetlinkMessage::GetLink(without_statistics(request)))?;
        let link = |object| match object {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
            _ => None,
        };
        Ok(objects.into_iter().filter_map(link).collect())
    }
}

impl Link {
    pub(super) fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            arp: !message.header.flags.contains(LinkFlags::Noarp),
            carrier: false,
            alias: None,
            kind: None,
            link_index: None,
            link_netnsid: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr6::from),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.carrier = state == State::Up,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(index) => link.link_index = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(id),
                LinkAttribute::LinkInfo(infos) => link.kind = infos.into_iter().find_map(kind_in),
                _ => {}
            }
        }
        link
    }
}

fn kind_in(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// Statistics are most of an answer, and nobody here wants them.
fn without_statistics(request: LinkMessageBuilder<LinkUnspec>) -> LinkMessage {
    request.append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])).build()
}
