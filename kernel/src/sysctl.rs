//! `/proc/sys`, in the network namespace of the calling thread.
//!
//! Names are paths with '/', as in `net/ipv4/conf/eth0.5/rp_filter`, because interface names may have
//! dots (sysctl(8) needs an escape for those).

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The value, without the line's end.
///
/// # Errors
/// If the name is not one, or there is no such sysctl, e.g. because its interface is gone.
pub fn get(name: &str) -> Result<String> {
    read(name, &path(name)?)
}

/// Sets the value, unless it is set already: `/proc/sys` may be read-only where nothing has to change.
/// Says whether it wrote.
///
/// # Errors
/// If the name is not one, there is no such sysctl, or the kernel refuses the value.
pub fn set(name: &str, value: &str) -> Result<bool> {
    let path = path(name)?;
    if read(name, &path)? == value {
        return Ok(false);
    }
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| Error::SysctlWrite { name: name.into(), value: value.into(), source })?;
    Ok(true)
}

fn read(name: &str, path: &PathBuf) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|source| Error::SysctlRead { name: name.into(), source })?;
    Ok(text.trim_end().to_owned())
}

/// The path of a sysctl; its parts may be user-supplied, so none may lead out of `/proc/sys`.
fn path(name: &str) -> Result<PathBuf> {
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if name.split('/').any(bad) {
        return Err(Error::SysctlName { name: name.into() });
    }
    Ok(PathBuf::from("/proc/sys").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_proc_sys() {
        assert_eq!(
            path("net/ipv4/conf/eth0.5/rp_filter").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
        for name in ["", "/etc/passwd", "net/../../etc/passwd", "net/./x", "net//x", "net/", "net/a\0b"] {
            assert!(matches!(path(name), Err(Error::SysctlName { .. })), "{name:?}");
        }
    }
}
