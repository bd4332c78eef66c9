//! Local routes: addresses that are this host's own, by the interface that a packet to them comes in by.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use nix::errno::Errno;

use super::Rtnl;
use super::route::Route;
use super::route_message::message;
use crate::error::{Error, Result};

/// The table that the kernel looks into first: `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u32 = 255;
const SCOPE_HOST: u8 = 254;

impl Rtnl {
    /// `ip route add local ADDRESS dev OIF table local`: packets to the address that come in by the interface are for
    /// this host. Other interfaces keep theirs. `Ok(false)` if it is there already.
    ///
    /// # Errors
    /// [`Error::ReplaceRoute`].
    pub fn add_local_route(&self, address: IpAddr, oif: u32, protocol: u8) -> Result<bool> {
        match self.change(RouteNetlinkMessage::NewRoute(local(address, oif, protocol)), NLM_F_CREATE) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::EEXIST]) => Ok(false),
            Err(source) => Err(Error::ReplaceRoute { route: describe(address, oif), source }),
        }
    }

    /// Deletes such a route. `Ok(false)` if there is none, or its interface is gone.
    ///
    /// # Errors
    /// [`Error::DeleteRoute`].
    pub fn delete_local_route(&self, address: IpAddr, oif: u32, protocol: u8) -> Result<bool> {
        match self.change(RouteNetlinkMessage::DelRoute(local(address, oif, protocol)), 0) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::ESRCH, Errno::ENODEV]) => Ok(false),
            Err(source) => Err(Error::DeleteRoute { route: describe(address, oif), source }),
        }
    }

    /// Whether there is such a route, whoever made it.
    ///
    /// # Errors
    /// [`Error::ListRoutes`].
    pub fn has_local_route(&self, address: IpAddr, oif: u32) -> Result<bool> {
        let mut request = RouteMessage::default();
        request.header = local(address, oif, 0).header;
        request.header.destination_prefix_length = 0;
        request.header.scope = 0.into();
        request.attributes = vec![RouteAttribute::Oif(oif)];
        let objects = match self.list_routes(request) {
            Err(failure) if failure.is(&[Errno::ENODEV, Errno::ENOENT]) => Vec::new(),
            result => result.map_err(Error::ListRoutes)?,
        };
        let wanted = [RouteAttribute::Destination(address.into()), RouteAttribute::Oif(oif)];
        Ok(objects.iter().any(|object| match object {
            RouteNetlinkMessage::NewRoute(message) => wanted.iter().all(|part| message.attributes.contains(part)),
            _ => false,
        }))
    }
}

fn local(address: IpAddr, oif: u32, protocol: u8) -> RouteMessage {
    let dst = IpNetwork::from(address);
    let mut message =
        message(&Route { scope: Some(SCOPE_HOST), table: Some(LOCAL_TABLE), ..Route::new(dst, oif, protocol) });
    message.header.kind = RouteType::Local;
    message
}

fn describe(address: IpAddr, oif: u32) -> String {
    format!("local {address} dev {oif} table local")
}
