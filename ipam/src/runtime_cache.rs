//! Where libcni keeps what it did for a runtime.

use std::path::{Path, PathBuf};

/// The folders, unless it is told otherwise: libcni's `CacheDir` (libcni/api.go), now and in older versions, and Multus's
/// `cniDir` (pkg/types/conf.go).
pub const DIRS: [&str; 3] = ["/var/lib/cni", "/var/lib/cni/cache", "/var/lib/cni/multus"];

/// The part of a cache that has the results of ADDs; it may be named itself.
#[must_use]
pub fn results(cache_dir: &Path) -> PathBuf {
    if cache_dir.ends_with("results") { cache_dir.to_owned() } else { cache_dir.join("results") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_folder_may_be_named() {
        for named in ["/var/lib/cni", "/var/lib/cni/", "/var/lib/cni/results", "/var/lib/cni/results/"] {
            assert_eq!(results(Path::new(named)), Path::new("/var/lib/cni/results"), "{named}");
        }
    }
}
