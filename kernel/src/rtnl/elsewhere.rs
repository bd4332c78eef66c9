//! Links whose other end is in another namespace, and the numbers by which namespaces know each other.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::{Failure, Link, Rtnl};
use crate::error::{Error, Result};

impl Rtnl {
    /// The number that this namespace has for another, as in [`Link::link_netnsid`]. It is given one when a link that leads
    /// there is first looked at; `None` until then, and for itself.
    ///
    /// # Errors
    /// [`Error::NetnsId`].
    pub fn netns_id(&self, netns: impl AsFd) -> Result<Option<i32>> {
        let descriptor = u32::try_from(netns.as_fd().as_raw_fd()).map_err(|_| Error::NetnsId(Failure::Missing))?;
        let mut request = NsidMessage::default();
        request.attributes = vec![NsidAttribute::Fd(descriptor)];
        match self.get(RouteNetlinkMessage::GetNsId(request)).map_err(Error::NetnsId)? {
            RouteNetlinkMessage::NewNsId(message) => Ok(message.attributes.iter().find_map(id_in)),
            _ => Err(Error::NetnsId(Failure::Missing)),
        }
    }

    /// The other end of a link, in whichever namespace it is; `None` if this one's privileges do not reach there.
    ///
    /// # Errors
    /// [`Error::ReadLink`].
    pub fn other_end(&self, link: &Link) -> Result<Option<Link>> {
        let Some(index) = link.link_index else { return Ok(None) };
        let request = LinkUnspec::new_with_index(index);
        let request = match link.link_netnsid {
            // IFLA_TARGET_NETNSID, since Linux 4.15 and by this name since 4.20.
            Some(id) => request.append_extra_attribute(LinkAttribute::IfNetnsId(id)),
            None => request,
        };
        match self.read_link(request) {
            Err(failure) if failure.is(&[Errno::EACCES, Errno::EPERM, Errno::EINVAL]) => Ok(None),
            read => {
                read.map_err(|source| Error::ReadLink { link: format!("at the other end of {}", link.name), source })
            }
        }
    }
}

impl Link {
    /// Whether its other end is this interface of the namespace that its own one has this number for. Interfaces of
    /// different namespaces have the same indexes.
    #[must_use]
    pub fn leads_to(&self, other: &Self, netns_id: Option<i32>) -> bool {
        netns_id.is_some() && self.link_netnsid == netns_id && self.link_index == Some(other.index)
    }
}

/// -1 (`NETNSA_NSID_NOT_ASSIGNED`, include/uapi/linux/net_namespace.h) is none.
fn id_in(attribute: &NsidAttribute) -> Option<i32> {
    match attribute {
        NsidAttribute::Id(id) => Some(*id).filter(|id| *id >= 0),
        _ => None,
    }
}
