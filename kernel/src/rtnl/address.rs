//! Addresses of interfaces.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;

use super::Rtnl;
use crate::error::{Error, Result};

/// How long the kernel's work queue may take for what takes it microseconds: with forty runnable processes on two cores it
/// was seen to take more than a second.
const USABLE_DEADLINE: Duration = Duration::from_secs(10);

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address with its prefix length; host bits are kept.
    pub network: IpNetwork,
    /// Duplicate address detection has not ended, or has found a duplicate: the address is not usable.
    pub tentative: bool,
}

impl Rtnl {
    /// Adds an address, and returns when packets can be sent from and received at it.
    ///
    /// An IPv6 address gets IFA_F_NODAD: without duplicate address detection, which takes seconds and says
    /// nothing on a link of two. The kernel still puts it into force in a work queue (`addrconf_dad_work`,
    /// net/ipv6/addrconf.c); packets that arrive earlier are lost, so that is waited for.
    ///
    /// # Errors
    /// [`Error::AddressExists`], [`Error::AddAddress`], and for IPv6 [`Error::WatchAddress`] or
    /// [`Error::AddressNotReady`]; in the last case the address is there.
    pub fn add_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        match address {
            IpNetwork::V4(_) => self.send_address(address, index, message(index, address)),
            IpNetwork::V6(_) => self.add_ipv6_address(index, address),
        }
    }

    /// As [`Rtnl::add_address`], but the host never chooses the address as a source on its own: scope "host" for IPv4.
    ///
    /// # Errors
    /// Those of [`Rtnl::add_address`].
    pub fn add_listening_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        match address {
            IpNetwork::V4(_) => {
                let mut message = message(index, address);
                message.header.scope = AddressScope::Host;
                self.send_address(address, index, message)
            }
            IpNetwork::V6(_) => self.add_ipv6_address(index, address),
        }
    }

    /// Removes an address; `Ok(false)` if the interface does not have it, or is gone.
    ///
    /// # Errors
    /// [`Error::DeleteAddress`].
    pub fn delete_address(&self, index: u32, address: IpNetwork) -> Result<bool> {
        match self.change(RouteNetlinkMessage::DelAddress(message(index, address)), 0) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::EADDRNOTAVAIL, Errno::ENODEV]) => Ok(false),
            Err(source) => Err(Error::DeleteAddress { address, index, source }),
        }
    }

    /// The addresses of an interface; none if it is gone.
    ///
    /// # Errors
    /// [`Error::ListAddresses`].
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let objects = match self.list(&RouteNetlinkMessage::GetAddress(request)) {
            Err(failure) if failure.is(&[Errno::ENODEV]) => Vec::new(),
            result => result.map_err(|source| Error::ListAddresses { index, source })?,
        };
        let address = |object| match object {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => address_in(&message),
            _ => None,
        };
        Ok(objects.into_iter().filter_map(address).collect())
    }

    fn send_address(&self, address: IpNetwork, index: u32, message: AddressMessage) -> Result<()> {
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.change(request, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(&[Errno::EEXIST]) => Err(Error::AddressExists { address, index }),
            Err(source) => Err(Error::AddAddress { address, index, source }),
        }
    }

    fn add_ipv6_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        let cannot_watch = |source| Error::WatchAddress { address, source };
        let mut watching = self.watch.join(MulticastGroup::Ipv6Ifaddr).map_err(cannot_watch)?;
        self.send_address(address, index, message(index, address))?;
        let usable = async { tokio::time::timeout(USABLE_DEADLINE, watching.usable(index, address.ip())).await };
        match self.runtime.block_on(usable) {
            Ok(result) => result.map_err(cannot_watch)?,
            Err(_elapsed) => {
                let waited_ms = u64::try_from(USABLE_DEADLINE.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::AddressNotReady { address, index, waited_ms });
            }
        }
        // The kernel announces the address just before it puts the address's local route in, both under the
        // RTNL mutex (`__ipv6_ifa_notify`). A question that takes that mutex is answered after both.
        self.link_by_index(index).map(drop)
    }
}

fn message(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix();
    message.header.family = match address {
        IpNetwork::V4(_) => AddressFamily::Inet,
        IpNetwork::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![AddressAttribute::Local(address.ip()), AddressAttribute::Address(address.ip())];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// IFA_LOCAL is the interface's own address; where it is missing (IPv6 without a peer), IFA_ADDRESS is.
fn address_in(message: &AddressMessage) -> Option<Address> {
    let mut local: Option<IpAddr> = None;
    let mut address: Option<IpAddr> = None;
    let mut tentative = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(flags) => {
                tentative = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    let network = IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address { network, tentative })
}
