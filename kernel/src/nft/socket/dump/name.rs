//! What tells the answers of a dump apart, without taking them apart altogether.

use netlink_packet_core::{DecodeError, NetlinkBuffer, NlasIterator};

use crate::nft::message::{LIST_ELEM, LIST_ELEMENTS, NEWSETELEM, NFGENMSG_LEN};

/// `NFNL_SUBSYS_NFTABLES << 8` and `NFT_MSG_NEWTABLE` and so on, with the attributes that only one of its kind has in a family, of
/// linux/netfilter/nf_tables.h: names, and a rule's table and handle. Counters and the like, which may change between two
/// dumps, are none of them.
const KINDS: [(u16, &[u16]); 4] =
    [(10 << 8, &[1]), (10 << 8 | 3, &[1, 3]), (10 << 8 | 6, &[1, 3]), (10 << 8 | 9, &[1, 2])];

/// `NFTA_SET_ELEM_KEY` and `NFTA_SET_ELEM_FLAGS`: the end of an interval may have the same key as the beginning of the next.
const OF_ELEMENT: &[u16] = &[1, 3];

/// The names of what a message holds: of one thing, or of each of a set's elements.
pub(super) fn names(message: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let message = NetlinkBuffer::new_checked(message)?;
    let attributes = message.payload().get(NFGENMSG_LEN..).unwrap_or_default();
    if message.message_type() == NEWSETELEM {
        let mut names = Vec::new();
        for list in NlasIterator::new(attributes) {
            let list = list?;
            if list.kind() == LIST_ELEMENTS {
                for element in NlasIterator::new(list.value()) {
                    let element = element?;
                    if element.kind() == LIST_ELEM {
                        names.push(name(element.value(), OF_ELEMENT)?);
                    }
                }
            }
        }
        return Ok(names);
    }
    let kind = KINDS.iter().find(|(kind, _)| *kind == message.message_type());
    kind.map(|(_, wanted)| name(attributes, wanted)).into_iter().collect()
}

/// The attributes of these kinds, one after the other.
fn name(attributes: &[u8], wanted: &[u16]) -> Result<Vec<u8>, DecodeError> {
    let mut name = Vec::new();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if wanted.contains(&attribute.kind()) {
            name.extend(attribute.kind().to_ne_bytes());
            name.extend(attribute.value());
        }
    }
    Ok(name)
}
