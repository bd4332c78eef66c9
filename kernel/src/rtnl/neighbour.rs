//! Neighbour entries: which hardware address an address has on a link.

use std::net::IpAddr;

use macaddr::MacAddr6;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Failure, Rtnl};
use crate::error::{Error, Result};

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's index.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its hardware address; `None` while it is not known, or if it does not have six bytes.
    pub mac: Option<MacAddr6>,
    /// NUD_PERMANENT: set by an administrator, never asked for by ARP or neighbour discovery.
    pub permanent: bool,
}

impl Rtnl {
    /// Sets a permanent neighbour entry, whether or not there is one.
    ///
    /// # Errors
    /// [`Error::ReplaceNeighbour`].
    pub fn replace_neighbour(&self, index: u32, address: IpAddr, mac: MacAddr6) -> Result<()> {
        self.replace_neighbour_as(index, address, mac, NeighbourState::Permanent)
    }

    /// Sets a neighbour entry that is believed (NUD_REACHABLE) until it is older, and from then on as ARP or neighbour
    /// discovery tell.
    ///
    /// # Errors
    /// [`Error::ReplaceNeighbour`].
    pub fn replace_neighbour_for_now(&self, index: u32, address: IpAddr, mac: MacAddr6) -> Result<()> {
        self.replace_neighbour_as(index, address, mac, NeighbourState::Reachable)
    }

    fn replace_neighbour_as(&self, index: u32, address: IpAddr, mac: MacAddr6, state: NeighbourState) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = index;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(address.into()),
            NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()),
        ];
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|source| Error::ReplaceNeighbour { address, index, source })
    }

    /// The IPv4 and IPv6 neighbours on an interface; none if it is gone.
    ///
    /// # Errors
    /// [`Error::ListNeighbours`].
    pub fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        // Strict checking takes the filter as an attribute only (`neigh_valid_dump_req`, net/core/neighbour.c).
        let mut neighbours = self
            .list_neighbours(vec![NeighbourAttribute::IfIndex(index)])
            .map_err(|source| Error::ListNeighbours { index, source })?;
        neighbours.retain(|neighbour| neighbour.index == index);
        Ok(neighbours)
    }

    /// Those of all interfaces. The kernel looks through all of them for those of one, too.
    ///
    /// # Errors
    /// [`Error::ListAllNeighbours`].
    pub fn all_neighbours(&self) -> Result<Vec<Neighbour>> {
        self.list_neighbours(Vec::new()).map_err(Error::ListAllNeighbours)
    }

    fn list_neighbours(&self, filter: Vec<NeighbourAttribute>) -> std::result::Result<Vec<Neighbour>, Failure> {
        let mut request = NeighbourMessage::default();
        request.attributes = filter;
        let objects = self.list(&RouteNetlinkMessage::GetNeighbour(request))?;
        let neighbour = |object| match object {
            RouteNetlinkMessage::NewNeighbour(message) => neighbour_in(message),
            _ => None,
        };
        Ok(objects.into_iter().filter_map(neighbour).collect())
    }
}

fn neighbour_in(message: NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr6::from),
            _ => {}
        }
    }
    let index = message.header.ifindex;
    Some(Neighbour { index, address: address?, mac, permanent: message.header.state == NeighbourState::Permanent })
}
