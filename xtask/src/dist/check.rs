//! What is looked at in an archive before it is believed: that all of it is there, and works.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;

use super::{ALONG, COMMANDS, COMPLETIONS, PLUGINS, failed, files};
use crate::error::Error;
use crate::program::{command, output, root, run};

/// Where manual pages are.
const PAGES: &str = "share/man/man1";

/// Unpacks it and looks.
pub fn check(archive: &Path) -> Result<(), Error> {
    let target = root().join("target");
    let place = tempfile::tempdir_in(&target).map_err(failed("make a folder in", &target))?;
    let packed = File::open(archive).map_err(failed("read", archive))?;
    tar::Archive::new(GzDecoder::new(packed)).unpack(place.path()).map_err(failed("unpack", archive))?;
    let name = archive.file_name().map(|name| name.to_string_lossy().replace(".tar.gz", "")).unwrap_or_default();
    let folder = place.path().join(name);
    run(command("sha256sum").args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&folder))?;
    let looks = [unsummed, executables, manual, completions, configs, missing, lost_links];
    let findings: Vec<Vec<String>> = looks.iter().map(|look| look(&folder)).collect::<Result<_, _>>()?;
    let findings = findings.concat();
    if findings.is_empty() { Ok(()) } else { Err(Error::Archive(findings.join("\n"))) }
}

/// Files without a checksum.
fn unsummed(folder: &Path) -> Result<Vec<String>, Error> {
    let sums = read(&folder.join("SHA256SUMS"))?;
    let named: Vec<&str> = sums.lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
    let inside = inside(folder)?.into_iter().filter(|name| name != "SHA256SUMS");
    Ok(inside.filter(|name| !named.contains(&name.as_str())).map(|name| format!("{name} has no checksum")).collect())
}

/// Every executable runs on this machine and says its name and version.
fn executables(folder: &Path) -> Result<Vec<String>, Error> {
    let all = [("cni", &PLUGINS[..]), ("bin", &COMMANDS[..])];
    let all = all.into_iter().flat_map(|(place, names)| names.iter().map(move |name| (place, *name)));
    let mut findings = Vec::new();
    for (place, name) in all {
        let program = folder.join(place).join(name);
        let start = |source| Error::Start { program: program.display().to_string(), source };
        let ended = command(&program).arg("--version").output().map_err(start)?;
        // A plugin that is no command introduces itself to people on standard error.
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        let version = format!("{name} {}", env!("CARGO_PKG_VERSION"));
        if !ended.status.success() || !said.starts_with(&version) {
            findings.push(format!("{place}/{name} --version ({}) says {:?}", ended.status, said.trim()));
        }
    }
    Ok(findings)
}

/// One page for `ipam` and for each of its commands.
fn manual(folder: &Path) -> Result<Vec<String>, Error> {
    let help = output(command(folder.join("bin/ipam")).arg("--help"))?;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| Some(format!("ipam-{}.1", line.split_whitespace().next()?)));
    let wanted: Vec<PathBuf> = names.chain(["ipam.1".to_owned()]).map(|page| folder.join(PAGES).join(page)).collect();
    let is_page = |path: &&PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("\n.SH NAME"));
    let lacking =
        wanted.iter().filter(|path| !is_page(path)).map(|path| format!("{} is no manual page", path.display()));
    let some = (wanted.len() < 10).then(|| format!("`ipam --help` lists {} commands only", wanted.len() - 1));
    Ok(lacking.chain(some).collect())
}

/// Completions name their command, and bash(1) can read its own.
fn completions(folder: &Path) -> Result<Vec<String>, Error> {
    run(command("bash").arg("-n").arg(folder.join(COMPLETIONS[0].1)))?;
    let mut findings = Vec::new();
    for (shell, path) in COMPLETIONS {
        if !read(&folder.join(path))?.contains("ipam") {
            findings.push(format!("{path} completes nothing for {shell}"));
        }
    }
    Ok(findings)
}

/// Conflists are JSON, and all plugins that they name are in the archive.
fn configs(folder: &Path) -> Result<Vec<String>, Error> {
    let mut findings = Vec::new();
    for path in files(&folder.join("examples/conflists"))? {
        let text = read(&path)?;
        let list: Value = serde_json::from_str(&text)
            .map_err(|source| Error::Json { command: path.display().to_string(), source })?;
        let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
        let types = plugins.iter().flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]);
        let types: Vec<&str> = types.filter_map(Value::as_str).collect();
        if types.is_empty() {
            findings.push(format!("{} names no plugin", path.display()));
        }
        let lacking = types.iter().filter(|name| !folder.join("cni").join(name).is_file());
        findings.extend(lacking.map(|name| format!("{} names {name}, which is not in cni", path.display())));
    }
    Ok(findings)
}

/// What goes along is as it is in the repository.
fn missing(folder: &Path) -> Result<Vec<String>, Error> {
    let mut findings = Vec::new();
    for from in ALONG.map(|name| root().join(name)) {
        for path in if from.is_dir() { files(&from)? } else { vec![from] } {
            let name = path.strip_prefix(root()).unwrap_or(&path);
            if fs::read(folder.join(name)).ok() != fs::read(&path).ok() {
                findings.push(format!("{} is not there, or another one", name.display()));
            }
        }
    }
    Ok(findings)
}

/// Links of documents that lead nowhere inside of the folder.
pub(super) fn lost_links(folder: &Path) -> Result<Vec<String>, Error> {
    let folder = folder.canonicalize().map_err(failed("read", folder))?;
    let mut findings = Vec::new();
    for path in files(&folder)? {
        let (begin, end) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => ("](", ')'),
            Some("html") => ("href=\"", '"'),
            _ => continue,
        };
        let text = read(&path)?;
        let links = text.split(begin).skip(1).filter_map(|rest| rest.split(end).next());
        let files =
            links.filter_map(|link| link.split('#').next()).filter(|link| !link.is_empty() && !link.contains(':'));
        let here = path.parent().unwrap_or(&folder);
        let is_lost = |link: &&str| !here.join(link).canonicalize().is_ok_and(|target| target.starts_with(&folder));
        let name = path.strip_prefix(&folder).unwrap_or(&path).display();
        findings.extend(files.filter(is_lost).map(|link| format!("{name}: a link to {link} leads nowhere")));
    }
    Ok(findings)
}

/// The names of all files below it.
fn inside(folder: &Path) -> Result<Vec<String>, Error> {
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap_or(&path).display().to_string();
    Ok(files(folder)?.into_iter().map(name).collect())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(failed("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leaves_the_folder_or_leads_nowhere_is_found() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| super::super::write(&place.path().join(name), text.as_bytes()).unwrap();
        write("outside.md", "");
        write(
            "x/docs/a.md",
            "[x](#x) [y](../README.md#z) [h](https://example.com/a) [lost](b.md) [out](../../outside.md)",
        );
        write("x/README.md", "[docs](docs) and [one](docs/a.md)");
        write("x/page.html", "<a href=\"docs/a.md\"> <a href=\"#x\"> <a href=\"gone.md\">");
        let expected =
            ["docs/a.md: a link to b.md", "docs/a.md: a link to ../../outside.md", "page.html: a link to gone.md"];
        let found = lost_links(&place.path().join("x")).unwrap();
        assert_eq!(found, expected.map(|link| format!("{link} leads nowhere")));
    }
}
