//! What the executables carry, so that they can be run from anywhere.

use std::path::Path;

use crate::conflist::{Conflist, ConflistError};
use crate::manifest::{self, ManifestError, Pod};

const PODS: [(&str, &str); 4] = [
    ("dns.yaml", include_str!("../pods/dns.yaml")),
    ("influxdb.yaml", include_str!("../pods/influxdb.yaml")),
    ("nginx.yaml", include_str!("../pods/nginx.yaml")),
    ("toolbox.yaml", include_str!("../pods/toolbox.yaml")),
];

/// The text of the dual-stack list.
pub const CONFLIST: &str = include_str!("../conflists/10-podwire.conflist");

/// The dual-stack list.
///
/// # Errors
/// Never, as it is tested.
pub fn conflist() -> Result<Conflist, ConflistError> {
    Conflist::parse(Path::new("10-podwire.conflist"), CONFLIST.as_bytes())
}

/// The pods of `examples/pods`.
///
/// # Errors
/// Never, as they are tested.
pub fn pods() -> Result<Vec<Pod>, ManifestError> {
    let pods = PODS.iter().map(|(file, text)| manifest::parse(Path::new(file), text));
    Ok(pods.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
