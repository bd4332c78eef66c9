//! Debian's firewalls, beside which host ports are tested.

use crate::error::Error;
use crate::packages::{self, Needed};
use crate::unpacked;

/// Programs and the Python files that they consist of.
const PACKAGES: [&str; 4] = ["firewalld", "python3-firewall", "python3-nftables", "ufw"];

/// What those run with, none of which starts anything.
const LIBRARIES: &[Needed] = &[
    ("dbus-daemon", "dbus-daemon"),
    ("/usr/lib/python3/dist-packages/dbus/__init__.py", "python3-dbus"),
    ("/usr/lib/python3/dist-packages/gi/__init__.py", "python3-gi"),
];

/// Unpacks them once. The tests find them in `target/firewalls`.
pub fn unpack() -> Result<(), Error> {
    packages::ensure(LIBRARIES)?;
    if unpacked::folder("firewalls").is_dir() {
        return Ok(());
    }
    unpacked::unpack("firewalls", &PACKAGES).map(drop)
}
