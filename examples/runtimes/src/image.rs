//! The one image of all containers: `podwire-demo`, which answers, in an archive of the OCI image layout. Nothing is
//! pulled from anywhere.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Its full name: containerd takes no shorter one.
pub const NAME: &str = "localhost/podwire-demo:1";
/// Its one program.
pub const PROGRAM: &str = "podwire-demo";
/// What starts it; the name and the ports follow.
pub const ENTRYPOINT: [&str; 2] = ["/podwire-demo", "--serve"];

/// Writes the archive.
///
/// # Errors
/// If the program cannot be read, or the archive not be written.
pub fn write(program: &Path, archive: &Path) -> Result<(), Error> {
    let libraries = libraries(program)?;
    let packed = layer(program, &libraries).and_then(|layer| pack(&layer, File::create(archive)?));
    packed.map_err(Error::file("write", archive))
}

/// What a program that is not static needs, its interpreter included: the paths that ldd(1) names.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let start = |source| Error::Start { program: "ldd".to_owned(), source };
    let listed = sandbox::command("ldd").arg(program).output().map_err(start)?;
    // It fails if there is none.
    let text =
        if listed.status.success() { String::from_utf8_lossy(&listed.stdout).into_owned() } else { String::new() };
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The root folder of a container: the program, and where runtimes mount things.
fn layer(program: &Path, libraries: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["dev", "etc", "proc", "sys", "tmp"] {
        add(&mut layer, &format!("{folder}/"), tar::EntryType::Directory, 0o755, &[])?;
    }
    for library in libraries {
        let name = library.strip_prefix("/").unwrap_or(library).to_string_lossy();
        add(&mut layer, &name, tar::EntryType::Regular, 0o755, &fs::read(library)?)?;
    }
    add(&mut layer, PROGRAM, tar::EntryType::Regular, 0o755, &fs::read(program)?)?;
    layer.into_inner()
}

/// `oci-layout`, `index.json` and the blobs, as the image layout of the OCI's image specification has them.
fn pack(layer: &[u8], archive: File) -> io::Result<()> {
    let config = json!({
        "architecture": architecture(), "os": "linux",
        // A kubelet's and podman's arguments are put behind the entrypoint.
        "config": { "Entrypoint": ENTRYPOINT, "Cmd": ["nobody"], "Env": ["PATH=/"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME, "io.containerd.image.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });

    let mut archive = tar::Builder::new(archive);
    let mut file = |name: &str, content: &[u8]| add(&mut archive, name, tar::EntryType::Regular, 0o644, content);
    file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
    file("index.json", index.to_string().as_bytes())?;
    for blob in [layer, &config, &manifest] {
        file(&format!("blobs/{}", digest(blob).replace(':', "/")), blob)?;
    }
    archive.into_inner()?.sync_all()
}

fn add<W: io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(content)))
}

/// As the Go language names them, and with it the specification.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn every_blob_is_found_by_its_digest_from_the_index_on() {
        let folder = tempfile::tempdir().unwrap();
        let (program, archive) = (folder.path().join("program"), folder.path().join("image.tar"));
        fs::write(&program, b"#!").unwrap();
        write(&program, &archive).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(File::open(archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let content = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(
                (self::digest(content).as_str(), content.len() as u64),
                (digest, descriptor["size"].as_u64().unwrap())
            );
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], NAME);
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let layer = blob(&manifest["layers"][0]);
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        let mut layer = tar::Archive::new(layer.as_slice());
        let names: Vec<String> =
            layer.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert!(names.contains(&PROGRAM.to_owned()), "{names:?}");
    }
}
