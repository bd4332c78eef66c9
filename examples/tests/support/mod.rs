//! The tests' only look at the process environment.

use cni_spec::Environment;

/// Whether golden files are to be rewritten.
pub fn update_golden() -> bool {
    Environment::of_process().get("UPDATE_GOLDEN").is_some()
}
