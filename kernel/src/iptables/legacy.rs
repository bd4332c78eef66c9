//! What ip_tables and ip6_tables tell by getsockopt(2): a table (`IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`), and which
//! extensions there are (`IPT_SO_GET_REVISION_MATCH`, `IPT_SO_GET_REVISION_TARGET` of linux/netfilter_ipv4/ip_tables.h).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nft_model::Family;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::{Extension, Known};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `IPT_SO_GET_REVISION_MATCH` and `IP6T_SO_GET_REVISION_MATCH`; that of targets is the next one.
const GET_REVISION: [i32; 2] = [66, 68];
/// `struct xt_get_revision`: `XT_EXTENSION_MAXNAMELEN` bytes of name, and the revision.
const REVISION_LEN: usize = 30;
/// `struct ipt_getinfo`.
const INFO_LEN: usize = 84;
/// `struct ipt_get_entries` up to its entries, which begin at a multiple of 8.
const HEAD_LEN: usize = 40;
/// `XT_TABLE_MAXNAMELEN`.
const NAME_LEN: usize = 32;
/// How often a table that others change meanwhile is read again.
const ATTEMPTS: u32 = 100;

/// A table's rules, one behind the other, and where the built-in chains begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// By the number of the hook (`NF_INET_PRE_ROUTING` and so on), for the hooks the table has.
    pub(super) begins: Vec<(usize, usize)>,
    /// `struct ipt_entry` or `struct ip6t_entry`, with matches and targets.
    pub(super) entries: Vec<u8>,
}

/// The tables that were used in this network namespace, a line for each.
pub(super) fn used(family: Family) -> io::Result<String> {
    fs::read_to_string(match family {
        Family::Ip => "/proc/thread-self/net/ip_tables_names",
        Family::Ip6 => "/proc/thread-self/net/ip6_tables_names",
    })
}

/// `None` if the table was never used in this network namespace: asking would make it.
pub(super) fn table(family: Family, name: &str) -> io::Result<Option<Blob>> {
    match used(family) {
        Ok(names) if names.lines().any(|line| line == name) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The list is the machine's root's if the network namespace was made together with its user namespace
        // (xt_proto_init of net/netfilter/x_tables.c). Asking makes an empty table then, at the worst.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    let Some((socket, level)) = open(family)? else { return Ok(None) };
    for _ in 0..ATTEMPTS {
        match read(&socket, level, name) {
            // Its size was another one when it was to be copied.
            Err(Errno::EAGAIN) => {}
            // The kernel has no such table at all, or no ip_tables yet, whose options these are.
            Err(Errno::ENOENT | Errno::ENOPROTOOPT) => return Ok(None),
            result => return Ok(result.map(Some)?),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// Whether the kernel has a table. Asking makes it in the network namespace that asks, and loads its module.
pub(super) fn make(family: Family, name: &str) -> io::Result<Known> {
    let Some((socket, level)) = open(family)? else { return Ok(Known::NoneAtAll) };
    let mut info = vec![0; INFO_LEN];
    name_into(&mut info, name)?;
    match get(&socket, level, GET_INFO, &mut info) {
        Ok(()) => Ok(Known::Yes),
        Err(Errno::ENOENT) => Ok(Known::No),
        Err(Errno::ENOPROTOOPT) => Ok(Known::NoneAtAll),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether rules can have an extension, as iptables-legacy asks. It changes no rule and makes no table; once ip_tables
/// is there, the kernel loads the extension's module if there is one.
pub(super) fn extension(family: Family, extension: Extension<'_>) -> io::Result<Known> {
    let Some((socket, level)) = open(family)? else { return Ok(Known::NoneAtAll) };
    let mut question = vec![0; REVISION_LEN];
    // The kernel ends the name before the last byte, which is the revision.
    let place = question.get_mut(..extension.name().len()).filter(|place| place.len() < REVISION_LEN - 1);
    place.ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(extension.name().as_bytes());
    let of_matches = GET_REVISION[usize::from(family == Family::Ip6)];
    let option = if matches!(extension, Extension::Match(_)) { of_matches } else { of_matches + 1 };
    match get(&socket, level, option, &mut question) {
        // EPROTONOSUPPORT: there is one of another revision.
        Ok(()) | Err(Errno::EPROTONOSUPPORT) => Ok(Known::Yes),
        Err(Errno::ENOENT) => Ok(Known::No),
        // Nobody has registered these options: getsockopt(2) loads no module for them (nf_sockopt_find of
        // net/netfilter/nf_sockopt.c). `iptables-legacy` has ip_tables loaded by modprobe(8).
        Err(Errno::ENOPROTOOPT) => Ok(Known::NoneAtAll),
        Err(errno) => Err(errno.into()),
    }
}

/// A socket to ask with, and the level of its options; `None` on a kernel that was booted without IPv6, which has no rules
/// of it.
fn open(family: Family) -> io::Result<Option<(OwnedFd, i32)>> {
    let (domain, level) = match family {
        Family::Ip => (AddressFamily::Inet, libc::SOL_IP),
        Family::Ip6 => (AddressFamily::Inet6, libc::SOL_IPV6),
    };
    match socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw) {
        Err(Errno::EAFNOSUPPORT) => Ok(None),
        opened => Ok(Some((opened?, level))),
    }
}

fn read(socket: &OwnedFd, level: i32, name: &str) -> Result<Blob, Errno> {
    let mut info = vec![0; INFO_LEN];
    name_into(&mut info, name)?;
    get(socket, level, GET_INFO, &mut info)?;
    let number = |index: usize| -> usize {
        let bytes = info.get(NAME_LEN + 4 * index..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize)
    };
    let (hooks, size) = (number(0), number(12));
    let mut bytes = vec![0; HEAD_LEN + size];
    name_into(&mut bytes, name)?;
    let length = u32::try_from(size).map_err(|_| Errno::E2BIG)?;
    bytes[NAME_LEN..NAME_LEN + 4].copy_from_slice(&length.to_ne_bytes());
    get(socket, level, GET_ENTRIES, &mut bytes)?;
    let begins = (0..5).filter(|hook| hooks & (1 << hook) != 0).map(|hook| (hook, number(1 + hook))).collect();
    Ok(Blob { begins, entries: bytes.split_off(HEAD_LEN) })
}

fn name_into(bytes: &mut [u8], name: &str) -> Result<(), Errno> {
    let place = bytes.get_mut(..NAME_LEN).filter(|place| name.len() < place.len()).ok_or(Errno::ENAMETOOLONG)?;
    place[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn get(socket: &OwnedFd, level: i32, option: i32, bytes: &mut [u8]) -> Result<(), Errno> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    #[expect(unsafe_code, reason = "no library has this socket option")]
    // SAFETY: the kernel writes at most `length` bytes, which is what `bytes` has.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(result).map(drop)
}
