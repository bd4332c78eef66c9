//! How podwire marks what it makes for a pod in the kernel. Whoever makes these objects writes the marks, and a
//! ledger that was lost is made anew from them, so both must use the same ones.

/// How the ifalias of a pod's host end begins; the attachment follows, as [`cni_spec::Attachment`] prints.
pub const ALIAS_PREFIX: &str = "podwire ";

/// The protocol of the routes to pods (rtnetlink(7), `rtm_protocol`): above the kernel's own `RTPROT_STATIC`, and
/// none that `/etc/iproute2/rt_protos` names.
pub const ROUTE_PROTOCOL: u8 = 112;

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger that is rebuilt by another version must find what this one marked.
    #[test]
    fn the_marks_stay_as_they_are() {
        assert_eq!((ALIAS_PREFIX, ROUTE_PROTOCOL), ("podwire ", 112));
    }
}
