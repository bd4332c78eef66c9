//! What a process knows of its containers, written down before and after each operation: it may be killed in between.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    Leased(Vec<IpAddr>),
    Gone,
    /// Its request was killed, or failed: both is right.
    Unknown,
}

pub struct Journal(PathBuf);

impl Journal {
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// One write, so that a kill leaves a line or none.
    pub fn write(&self, container: &str, known: &Known) {
        let text = match known {
            Known::Leased(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Known::Gone => "gone".to_owned(),
            Known::Unknown => "unknown".to_owned(),
        };
        let mut file = OpenOptions::new().append(true).create(true).open(&self.0).unwrap();
        file.write_all(format!("{container} {text}\n").as_bytes()).unwrap();
    }

    pub fn read(&self) -> BTreeMap<String, Known> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let known = |line: &str| {
            let (container, text) = line.split_once(' ').unwrap();
            let known = match text {
                "gone" => Known::Gone,
                "unknown" => Known::Unknown,
                ips => Known::Leased(ips.split(',').map(|ip| ip.parse().unwrap()).collect()),
            };
            (container.to_owned(), known)
        };
        text.lines().map(known).collect()
    }
}

/// Who has which address, in the eyes of those who were told so: a file for each address.
pub struct Claims(PathBuf);

impl Claims {
    pub fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Puts an address down as somebody's. Returns who has it, if another has.
    pub fn claim(&self, address: IpAddr, owner: &str) -> Option<String> {
        let path = self.0.join(address.to_string());
        // Whole or not at all: written aside, then linked, which fails if there is one already.
        let aside = self.0.join(format!("{address}.{}", std::process::id()));
        fs::write(&aside, owner).unwrap();
        let linked = fs::hard_link(&aside, &path);
        fs::remove_file(&aside).unwrap();
        let holder = linked.is_err().then(|| fs::read_to_string(&path).unwrap_or_default())?;
        (holder != owner && !holder.is_empty()).then_some(holder)
    }

    /// Takes back what is somebody's.
    pub fn disclaim(&self, owner: &str) {
        for entry in fs::read_dir(&self.0).unwrap() {
            let path = entry.unwrap().path();
            if fs::read_to_string(&path).is_ok_and(|holder| holder == owner) {
                let _ = fs::remove_file(path);
            }
        }
    }
}
