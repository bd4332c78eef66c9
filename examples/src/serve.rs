//! `--serve`: what runs in a container, where a real container runtime has made the pod.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use nix::ifaddrs::getifaddrs;

use crate::manifest::Protocol;
use crate::server::{ServerError, Servers};

/// What keeps it from serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The addresses could not be listed.
    #[error("own addresses")]
    Addresses(#[source] nix::Error),
    /// One of them could not be bound.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Answers as `name` at these ports of every address that this namespace has now, until it is killed. Without ports it
/// only holds the pod open.
///
/// # Errors
/// If an address cannot be bound. It does not return otherwise.
pub fn until_killed(name: &str, ports: &[(Protocol, u16)]) -> Result<(), ServeError> {
    let addresses = addresses().map_err(ServeError::Addresses)?;
    let listen: Vec<(Protocol, SocketAddr)> = ports
        .iter()
        .flat_map(|&(protocol, port)| addresses.iter().map(move |&address| (protocol, (address, port).into())))
        .collect();
    let _servers = Servers::start_here(name, &listen)?;
    loop {
        thread::park();
    }
}

/// The addresses of this namespace that others can reach: neither loopback nor link-local ones.
///
/// # Errors
/// If the kernel does not list them.
pub fn addresses() -> nix::Result<Vec<IpAddr>> {
    let address = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(getifaddrs()?.filter_map(address).filter(reachable).collect())
}

/// `80/tcp`, as podman and docker write a port.
///
/// # Errors
/// In words, if it is none.
pub fn port(text: &str) -> Result<(Protocol, u16), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.to_string() == protocol);
    match (number.parse(), protocol) {
        (Ok(number), Some(protocol)) if number != 0 => Ok((protocol, number)),
        _ => Err("a port is NUMBER/tcp or NUMBER/udp".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_with_its_protocol() {
        assert_eq!(port("80/tcp"), Ok((Protocol::Tcp, 80)));
        assert_eq!(port("53/udp"), Ok((Protocol::Udp, 53)));
        assert_eq!(port("80"), Ok((Protocol::Tcp, 80)));
        for wrong in ["", "0/tcp", "80/sctp", "tcp/80", "65536/tcp"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }
}
