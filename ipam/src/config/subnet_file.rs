//! `ipam.subnetFile`: the node's pod subnets as flannel's daemon writes them, `/run/flannel/subnet.env`.

use std::fs;
use std::io;

use ipnetwork::IpNetwork;

use super::problem::{InvalidKey, Problem};
use crate::Error;

/// The variables that name subnets; of each, the address is that of a bridge on the node.
const VARIABLES: [&str; 2] = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"];

/// The subnets in a file, as `podCIDR` would say them.
pub(super) fn read(path: &str) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::SubnetFile { path: path.into(), source })?;
    subnets(&text).map_err(|problem| {
        let (key, value) = ("ipam.subnetFile".to_owned(), Some(path.to_owned()));
        Error::Config(InvalidKey { path: key, value, problem })
    })
}

fn subnets(text: &str) -> Result<Vec<String>, Problem> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else { continue };
        if !VARIABLES.contains(&name) || value.is_empty() {
            continue;
        }
        let bad = || Problem::InFile(format!("{name}={value:?} is not a subnet in CIDR notation"));
        let network: IpNetwork = value.contains('/').then(|| value.parse().ok()).flatten().ok_or_else(bad)?;
        let masked = IpNetwork::new(network.network(), network.prefix()).map_err(|_| bad())?;
        found.push(masked.to_string());
    }
    if found.is_empty() {
        return Err(Problem::InFile(format!("it has neither {} nor {}", VARIABLES[0], VARIABLES[1])));
    }
    Ok(found)
}

/// Whether the file may be there soon: the daemon writes it when it has got a subnet.
pub(crate) fn may_come(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text is what flannel 0.22 writes.
    #[test]
    fn what_flannel_writes() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\n\
                    FLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert_eq!(subnets(text).unwrap(), ["10.244.1.0/24", "fd00:0:0:1::/64"]);
        for bad in ["", "FLANNEL_MTU=1450\n", "FLANNEL_SUBNET=\n", "FLANNEL_SUBNET=10.244.1.1\n", "\u{0}\u{1}"] {
            assert!(subnets(bad).is_err(), "{bad:?}");
        }
    }
}
