//! `cargo xtask dist`: what is installed on a node, in one archive.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::program::{command, output, root};
use crate::{build, say};

mod check;

/// Shown below `--help`.
pub const EXAMPLES: &str = "Examples:
  cargo xtask dist                     static executables, manual pages, completions, conflists, unit files
  tar -xzf target/dist/podwire-0.1.0-x86_64-unknown-linux-gnu.tar.gz
  sha256sum -c SHA256SUMS              inside of the unpacked folder";

/// What is run by runtimes, and goes to /opt/cni/bin.
const PLUGINS: [&str; 3] = ["podwire", "podwire-ipam", "podwire-portmap"];
/// What is run by people, and goes to a folder of PATH.
const COMMANDS: [&str; 1] = ["ipam"];
/// Completions, and where shells look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/ipam"),
    ("zsh", "share/zsh/site-functions/_ipam"),
    ("fish", "share/fish/vendor_completions.d/ipam.fish"),
];
/// Files and folders of the repository that go along, under the names that they have there: so do the links between documents.
const ALONG: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs",
    "examples/README.md",
    "examples/conflists",
    "examples/pods",
    "examples/systemd",
];

fn step(number: u32, what: &str) {
    say(&format!("[{number}/5] {what}"));
}

/// Builds everything and returns the archive.
pub fn run() -> Result<PathBuf, Error> {
    step(1, "static executables");
    pack_up(&build::executables()?)
}

/// Packs the executables of a folder, and all that belongs to them, and looks at what that made.
pub fn pack_and_check(folder: &Path) -> Result<(), Error> {
    check::check(&pack_up(folder)?)
}

fn pack_up(folder: &Path) -> Result<PathBuf, Error> {
    let name = format!("podwire-{}-{}", env!("CARGO_PKG_VERSION"), target(folder));
    let dist = root().join("target/dist");
    let staged = dist.join(&name);
    if staged.exists() {
        fs::remove_dir_all(&staged).map_err(failed("remove", &staged))?;
    }
    for (programs, to) in [(&PLUGINS[..], "cni"), (&COMMANDS[..], "bin")] {
        make_folder(&staged.join(to))?;
        for program in programs {
            copy(&folder.join(program), &staged.join(to).join(program))?;
        }
    }
    step(2, "manual pages and completions");
    let ipam = staged.join("bin/ipam");
    let pages = staged.join("share/man/man1");
    make_folder(&pages)?;
    output(command(&ipam).arg("man").arg(&pages))?;
    for (shell, to) in COMPLETIONS {
        write(&staged.join(to), output(command(&ipam).args(["completion", shell]))?.as_bytes())?;
    }
    step(3, "conflists, unit files, documents");
    for name in ALONG {
        copy_all(&root().join(name), &staged.join(name))?;
    }
    step(4, "checksums");
    write(&staged.join("SHA256SUMS"), checksums(&staged)?.as_bytes())?;
    step(5, "archive");
    let archive = dist.join(format!("{name}.tar.gz"));
    pack(&staged, &name, &archive)?;
    let size = fs::metadata(&archive).map_err(failed("read", &archive))?.len();
    let sum = format!("{}  {name}.tar.gz\n", checksum(&archive)?);
    write(&dist.join(format!("{name}.tar.gz.sha256")), sum.as_bytes())?;
    say(&format!("{} files, {:.1} MiB", files(&staged)?.len(), mebibytes(size)));
    Ok(archive)
}

/// The target triple in `target/TRIPLE/release`.
fn target(folder: &Path) -> String {
    let triple = folder.parent().and_then(Path::file_name);
    triple.map(|triple| triple.to_string_lossy().into_owned()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "people read it")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// One line for each file, as sha256sum(1) prints and checks them.
fn checksums(folder: &Path) -> Result<String, Error> {
    let mut text = String::new();
    for path in files(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        text.push_str(&format!("{}  {name}\n", checksum(&path)?));
    }
    Ok(text)
}

fn checksum(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut Hashing(&mut hasher)).map_err(failed("read", path))?;
    Ok(HEXLOWER.encode(&hasher.finalize()))
}

/// A checksum that can be written to.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// The same folder gives the same archive, whoever packs it and when.
fn pack(folder: &Path, name: &str, archive: &Path) -> Result<(), Error> {
    let file = File::create(archive).map_err(failed("write", archive))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    for path in files(folder)? {
        let inside = Path::new(name).join(path.strip_prefix(folder).unwrap_or(&path));
        let is_program = ["bin", "cni"].iter().any(|it| path.parent().is_some_and(|parent| parent.ends_with(it)));
        let mut source = File::open(&path).map_err(failed("read", &path))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(source.metadata().map_err(failed("read", &path))?.len());
        header.set_mode(if is_program { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, inside, &mut source).map_err(failed("write", archive))?;
    }
    let packed = tar.into_inner().and_then(GzEncoder::finish).and_then(|file| file.sync_all());
    packed.map_err(failed("write", archive))
}

fn copy_all(from: &Path, to: &Path) -> Result<(), Error> {
    if from.is_file() {
        return copy(from, to);
    }
    for path in files(from)? {
        copy(&path, &to.join(path.strip_prefix(from).unwrap_or(&path)))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    to.parent().map_or(Ok(()), make_folder)?;
    fs::copy(from, to).map(drop).map_err(failed("copy", from))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    path.parent().map_or(Ok(()), make_folder)?;
    fs::write(path, bytes).map_err(failed("write", path))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("make", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_goes_along_is_there() {
        let place = tempfile::tempdir().unwrap();
        for name in ALONG {
            copy_all(&root().join(name), &place.path().join(name)).unwrap();
        }
        for shipped in [
            "examples/systemd/podwire-ipam.socket",
            "examples/systemd/podwire-ipam.service",
            "examples/systemd/podwire-portmap-reconcile.timer",
            "examples/conflists/10-podwire.conflist",
            "docs/ipam.md",
        ] {
            assert!(place.path().join(shipped).is_file(), "{shipped}");
        }
        assert_eq!(check::lost_links(place.path()).unwrap(), [""; 0]);
        let renamed = copy_all(&root().join("examples/renamed"), &place.path().join("renamed")).unwrap_err();
        assert!(renamed.to_string().contains("examples/renamed"), "{renamed}");
    }

    #[test]
    fn an_archive_is_the_same_every_time_and_holds_what_its_checksums_say() {
        let place = tempfile::tempdir().unwrap();
        let staged = place.path().join("x");
        write(&staged.join("bin/ipam"), b"program").unwrap();
        write(&staged.join("doc/README.md"), b"text").unwrap();
        let sums = checksums(&staged).unwrap();
        assert!(sums.ends_with("  doc/README.md\n") && sums.lines().count() == 2, "{sums}");
        write(&staged.join("SHA256SUMS"), sums.as_bytes()).unwrap();
        let packed = |name: &str| {
            let archive = place.path().join(name);
            pack(&staged, "x", &archive).unwrap();
            fs::read(archive).unwrap()
        };
        let first = packed("a.tar.gz");
        assert_eq!(first, packed("b.tar.gz"));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(first.as_slice()));
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
        let found: Vec<(String, u32)> = entries
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()))
            .collect();
        let name = |(name, mode): &(String, u32)| format!("{name} {mode:o}");
        let found: Vec<String> = found.iter().map(name).collect();
        assert_eq!(found, ["x/SHA256SUMS 644", "x/bin/ipam 755", "x/doc/README.md 644"]);
    }
}
