//! Token bucket filters (tc-tbf(8)): how fast an interface sends.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::errno::Errno;

use super::{Failure, Rtnl};
use crate::error::{Error, Result};

/// The kind's name in `TCA_KIND`.
const TBF: &str = "tbf";
/// `TCA_TBF_PARMS`, `TCA_TBF_RATE64` and `TCA_TBF_BURST` of linux/pkt_sched.h.
const PARMS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel computes the time a packet takes itself, and wants no table of it.
const LINKLAYER_ETHERNET: u8 = 1;
/// Bytes of `struct tc_tbf_qopt`: two `tc_ratespec` of 12 each, then limit, buffer and mtu.
const PARMS_LEN: usize = 36;
/// Where `limit` is in it.
const LIMIT_AT: usize = 24;
/// Where the rate of the first `tc_ratespec` is.
const RATE_AT: usize = 8;

/// A token bucket as the root of an interface's queueing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may be sent at once: the size of the bucket.
    pub burst: u32,
    /// Bytes that may wait for tokens; what comes on top is dropped.
    pub limit: u32,
}

/// What is there of a token bucket. The kernel keeps the burst as a time, so it is not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shaped {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait.
    pub limit: u32,
}

impl Rtnl {
    /// Makes a token bucket the root of what an interface sends by, in the place of whatever is its root.
    ///
    /// # Errors
    /// [`Error::ShapeLink`]; ENOENT says that the kernel has no `sch_tbf`.
    pub fn shape(&self, index: u32, bucket: &TokenBucket) -> Result<()> {
        let request = RouteNetlinkMessage::NewQueueDiscipline(message(index, bucket));
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|source| Error::ShapeLink { index, source })
    }

    /// The token bucket that is an interface's root; `None` if it has another root, or is gone.
    ///
    /// The root itself is asked for: the kernel would list the queueing of all interfaces, by their places in its list, and pass
    /// over one when another went (`tc_dump_qdisc`, net/sched/sch_api.c). Of a root that is its own default it
    /// says nothing, or EINVAL.
    ///
    /// # Errors
    /// [`Error::ListQdiscs`].
    pub fn shaped(&self, index: u32) -> Result<Option<Shaped>> {
        let mut request = TcMessage::with_index(index.cast_signed());
        request.header.parent = TcHandle::ROOT;
        match self.get_echoed(RouteNetlinkMessage::GetQueueDiscipline(request)) {
            Ok(RouteNetlinkMessage::NewQueueDiscipline(message)) => Ok(shaped_in(&message)),
            Ok(_) => Ok(None),
            Err(Failure::Missing) => Ok(None),
            Err(failure) if failure.is(&[Errno::ENODEV, Errno::ENOENT, Errno::EINVAL]) => Ok(None),
            Err(source) => Err(Error::ListQdiscs { index, source }),
        }
    }
}

fn message(index: u32, bucket: &TokenBucket) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: 1, minor: 0 };
    let mut parms = [0; PARMS_LEN];
    parms[1] = LINKLAYER_ETHERNET;
    let small = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    parms[RATE_AT..RATE_AT + 4].copy_from_slice(&small.to_ne_bytes());
    parms[LIMIT_AT..LIMIT_AT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    let mut options = vec![option(PARMS, &parms), option(BURST, &bucket.burst.to_ne_bytes())];
    if u64::from(small) != bucket.rate {
        options.push(option(RATE64, &bucket.rate.to_ne_bytes()));
    }
    message.attributes = vec![TcAttribute::Kind(TBF.to_owned()), TcAttribute::Options(options)];
    message
}

fn option(kind: u16, bytes: &[u8]) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, bytes.to_vec()))
}

fn shaped_in(message: &TcMessage) -> Option<Shaped> {
    if !message.attributes.contains(&TcAttribute::Kind(TBF.to_owned())) {
        return None;
    }
    // The options of a kind that the library does not know come as one attribute with all of them inside.
    let nested = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Other(nla) => Some(value(nla)),
            _ => None,
        }),
        _ => None,
    })?;
    let (mut small, mut limit, mut big) = (0, 0, None);
    for nla in NlasIterator::new(nested.as_slice()).flatten() {
        match nla.kind() {
            PARMS => {
                small = number(nla.value(), RATE_AT)?;
                limit = number(nla.value(), LIMIT_AT)?;
            }
            RATE64 => big = <[u8; 8]>::try_from(nla.value()).ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    Some(Shaped { rate: big.unwrap_or_else(|| u64::from(small)), limit })
}

fn value(nla: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
