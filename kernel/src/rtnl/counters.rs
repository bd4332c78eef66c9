//! What went through an interface.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::Rtnl;
use crate::error::{Error, Result};

/// Counters of an interface since it was made (`struct rtnl_link_stats64`, linux/if_link.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Of these, packets that were not taken.
    pub rx_dropped: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets that should have gone out and did not.
    pub tx_dropped: u64,
}

impl Rtnl {
    /// The counters of an interface; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::ReadLink`].
    pub fn counters(&self, index: u32) -> Result<Option<Counters>> {
        let request = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_index(index).build());
        let message = match self.get(request) {
            Ok(RouteNetlinkMessage::NewLink(message)) => message,
            Ok(_) => return Ok(None),
            Err(failure) if failure.is(&[Errno::ENODEV]) => return Ok(None),
            Err(source) => return Err(Error::ReadLink { link: format!("with index {index}"), source }),
        };
        Ok(message.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(Counters {
                rx_packets: stats.rx_packets,
                rx_bytes: stats.rx_bytes,
                rx_dropped: stats.rx_dropped,
                tx_packets: stats.tx_packets,
                tx_bytes: stats.tx_bytes,
                tx_dropped: stats.tx_dropped,
            }),
            _ => None,
        }))
    }
}
