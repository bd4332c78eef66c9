//! Processes of the node that listen on a host port. Packets that reach the node by the network, or by its own
//! addresses, are sent on to the pod before any socket sees them.

use std::fs;

use kernel::sockets::{self, Listener};

use crate::error::Error;
use crate::forward::Forward;

/// The sockets that a mapping covers.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn covered(forward: &Forward) -> Result<Vec<Listener>, Error> {
    let mut found = sockets::listeners(forward.protocol, forward.host_port).map_err(Error::Listeners)?;
    found.retain(|listener| is_covered(listener, forward));
    Ok(found)
}

fn is_covered(listener: &Listener, forward: &Forward) -> bool {
    let address = listener.address.ip().to_canonical();
    let any = listener.address.ip().is_unspecified();
    let same_family = listener.takes(forward.family) || address.is_ipv4() == (forward.family == nft_model::Family::Ip);
    match forward.host_ip {
        _ if !same_family => false,
        None => true,
        Some(host_ip) => any || address == host_ip,
    }
}

/// Where a socket listens, and whose it is as far as `/proc` tells: `0.0.0.0:22, by sshd (PID 731)`.
#[must_use]
pub fn describe(listener: &Listener) -> String {
    let Listener { address, protocol, inode, .. } = listener;
    match process(*inode) {
        Some((pid, name)) => format!("{name} (PID {pid}) listens on {address}/{protocol}"),
        None => format!("a process listens on {address}/{protocol}"),
    }
}

/// The first process that has the socket open, and what it calls itself.
fn process(inode: u32) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let has_it = |pid: u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(Result::ok)
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
    };
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_it(*pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}
