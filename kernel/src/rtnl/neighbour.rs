//! Neighbour entries: which hardware address an address has on a link.

use std::collections::HashMap;
use std::net::IpAddr;

use macaddr::MacAddr6;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Failure, Rtnl};
use crate::error::{Error, Result};

/// Up to how many entries are asked for one by one without a look at the list of all, which costs more.
const FEW: usize = 16;

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
        let mut message = message(index, address);
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(address.into()),
            NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()),
        ];
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|source| Error::ReplaceNeighbour { address, index, source })
    }

    /// The entry for an address on an interface; `None` if there is none, or the interface is gone, or the kernel lacks the family.
    ///
    /// # Errors
    /// [`Error::ListNeighbours`].
    pub fn neighbour(&self, index: u32, address: IpAddr) -> Result<Option<Neighbour>> {
        let mut request = message(index, address);
        request.attributes = vec![NeighbourAttribute::Destination(address.into())];
        match self.get(RouteNetlinkMessage::GetNeighbour(request)) {
            Ok(RouteNetlinkMessage::NewNeighbour(message)) => Ok(neighbour_in(message)),
            Ok(_) => Ok(None),
            Err(failure) if failure.is(&[Errno::ENOENT, Errno::ENODEV, Errno::EAFNOSUPPORT]) => Ok(None),
            Err(source) => Err(Error::ListNeighbours { index, source }),
        }
    }

    /// The entries for some addresses, each on the interface with that index, as far as there are any.
    ///
    /// The kernel's lists can leave some out: see [`Rtnl::all_neighbours`]. So what is not in a list is asked for by itself.
    ///
    /// # Errors
    /// [`Error::ListAllNeighbours`], [`Error::ListNeighbours`].
    pub fn neighbours_of(&self, wanted: &[(u32, IpAddr)]) -> Result<Vec<Neighbour>> {
        let listed = if wanted.len() > FEW { self.all_neighbours()? } else { Vec::new() };
        self.look_up(wanted, listed)
    }

    /// Those that are not in a list are asked for.
    fn look_up(&self, wanted: &[(u32, IpAddr)], listed: Vec<Neighbour>) -> Result<Vec<Neighbour>> {
        let listed: HashMap<(u32, IpAddr), Neighbour> =
            listed.into_iter().map(|entry| ((entry.index, entry.address), entry)).collect();
        let mut found = Vec::new();
        for (index, address) in wanted {
            found.extend(match listed.get(&(*index, *address)) {
                Some(entry) => Some(*entry),
                None => self.neighbour(*index, *address)?,
            });
        }
        Ok(found)
    }

    /// The IPv4 and IPv6 neighbours on an interface; none if it is gone. One that came in that very moment as the first of some
    /// power of two in all network namespaces can hide others.
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
    /// It lists a hash table of all network namespaces by bucket and place in the bucket (`neigh_dump_table`,
    /// net/core/neighbour.c): when entries go, or there are so many that the table grows, it passes over others and says
    /// nothing of it. To know that one is not there, ask for it: [`Rtnl::neighbours_of`].
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

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index;
    message
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_leaves_out_is_asked_for() {
        sandbox::private_host(|| {
            let ip = |arguments: &str| {
                assert!(sandbox::command("ip").args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
            };
            ip("link add left type veth peer name right");
            let rtnl = Rtnl::open().unwrap();
            let left = rtnl.link("left").unwrap().unwrap().index;
            let (one, other, absent): (IpAddr, IpAddr, IpAddr) =
                ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap(), "10.0.0.2".parse().unwrap());
            let mac = MacAddr6::new(10, 0, 0, 0, 0, 1);
            for address in [one, other] {
                rtnl.replace_neighbour(left, address, mac).unwrap();
            }
            let entry = |address| Neighbour { index: left, address, mac: Some(mac), permanent: true };
            let wanted = [(left, one), (left, absent), (left, other), (4711, one)];
            for listed in [Vec::new(), vec![entry(other)]] {
                assert_eq!(rtnl.look_up(&wanted, listed).unwrap(), [entry(one), entry(other)]);
            }
            assert_eq!(rtnl.neighbours_of(&wanted).unwrap(), [entry(one), entry(other)]);
        });
    }
}
