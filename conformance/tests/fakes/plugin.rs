//! The fake plugins as targets of the suite.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_conformance::cases::Case;
use cni_conformance::host::Profile;
use cni_conformance::runner::{self, Options};
use cni_conformance::target::{Kind, Target};

/// Every kind of plugin.
pub const KINDS: [Kind; 3] = [Kind::Main, Kind::Chained, Kind::Ipam];

/// A folder where everybody may look.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our own folder");
    folder
}

/// A target whose executables all have this fault; none if it is empty.
pub fn target(kind: Kind, fault: &str, folder: &Path) -> Target {
    let name =
        |role: &str| if fault.is_empty() { format!("cni-fake-{role}") } else { format!("cni-fake-{role}+{fault}") };
    for role in ["main", "ipam", "chained"] {
        let path = folder.join(name(role));
        if !path.exists() {
            symlink(env!("CARGO_BIN_EXE_cni-fake"), path).expect("a symbolic link");
        }
    }
    let capabilities = match kind {
        Kind::Chained => "portMappings = true, bandwidth = true",
        Kind::Main => "ips = true, mac = true, dns = true",
        Kind::Ipam => "ips = true, ipRanges = true",
    };
    let text = format!(
        "name = 'fake {fault}'\nkind = '{0}'\nunsupported = {{ unsupported = 'yes' }}\ninvalid = {{ invalid = 'yes' }}\n\
         plugins = [{{ type = '{1}', capabilities = {{ {capabilities} }}, ipam = {{ type = '{2}' }} }}]\n\
         [small_pool.ipam]\nsize = 6\n[traits]\nipv6 = true\nmasquerades = true\n",
        kind.word(),
        name(kind.word()),
        name("ipam"),
    );
    let path = folder.join(format!("{}.toml", name(kind.word())));
    fs::write(&path, text).expect("our own folder");
    Target::read(&path).expect("the text is a target")
}

/// How it is run; plugins are killed at this many system calls.
pub fn options(folder: &Path, points: usize) -> Options {
    Options {
        dirs: vec![folder.to_owned()],
        jobs: 1,
        limit: Duration::from_secs(300),
        points,
        program: PathBuf::from(env!("CARGO_BIN_EXE_cni-conformance")),
    }
}

/// Whom the case is asked when it is seen to fail.
pub fn kind_of(case: &Case) -> Kind {
    let of_chained = case.topic == "ports" || matches!(case.id, "CHK-4c" | "CHK-4d" | "CAP-2a" | "CAP-2b" | "CAP-2c");
    if of_chained { Kind::Chained } else { case.kinds[0] }
}

/// What the faultless plugin keeps for itself is what those with a fault may keep, unless their fault is in the rules that
/// they keep.
pub fn profile(kind: Kind, fault: &str, ifname: &str, folder: &Path) -> Profile {
    runner::profile_by(&target(kind, fault, folder), &options(folder, 1), ifname).expect("it can be tried")
}
