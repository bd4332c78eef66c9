//! Why the kernel says no.

use nix::errno::Errno;

/// What the kernel answered to a change or a question, by errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// EEXIST: there is a table, set or chain of that name, or an element with that key.
    #[error("it exists already")]
    AlreadyExists,
    /// ENOENT: there is no such table, set, chain or element.
    #[error("it does not exist")]
    NotFound,
    /// EPERM or EACCES: this needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
    #[error("not permitted (CAP_NET_ADMIN is needed)")]
    NotPermitted,
    /// EOPNOTSUPP, EPROTONOSUPPORT or EAFNOSUPPORT: the kernel, or a chain of this kind, cannot do it.
    #[error("not supported")]
    NotSupported,
    /// EBUSY: something else still uses it.
    #[error("it is in use")]
    InUse,
    /// EMFILE, ENFILE or ENOSPC: there is no room for more files, sets, references or elements.
    #[error("there are too many")]
    TooMany,
    /// Anything else.
    #[error("{0}")]
    Errno(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::AlreadyExists,
            Errno::ENOENT => Self::NotFound,
            Errno::EPERM | Errno::EACCES => Self::NotPermitted,
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => Self::NotSupported,
            Errno::EBUSY => Self::InUse,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOSPC => Self::TooMany,
            errno => Self::Errno(errno),
        }
    }
}
