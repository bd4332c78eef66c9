//! Looking for a delegate's executable (spec section 4, "Delegated plugin execution procedure").

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::DelegateError;
use crate::Environment;

/// The first executable regular file of that name in `CNI_PATH`; symbolic links are followed.
pub(super) fn find(plugin_type: &str, environment: &Environment) -> Result<PathBuf, DelegateError> {
    if !is_file_name(plugin_type) {
        return Err(DelegateError::BadType { plugin_type: plugin_type.to_owned() });
    }
    let mut searched = Vec::new();
    for folder in environment.cni_path().0.iter().filter(|folder| !folder.as_os_str().is_empty()) {
        let program = folder.join(plugin_type);
        match program.metadata() {
            Ok(metadata) if !metadata.is_file() => searched.push(format!("{} (not a regular file)", folder.display())),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                searched.push(format!("{} (not executable)", folder.display()));
            }
            Ok(_) => return Ok(program),
            Err(error) if error.kind() == io::ErrorKind::NotFound => searched.push(folder.display().to_string()),
            Err(error) => searched.push(format!("{} ({error})", folder.display())),
        }
    }
    let searched = if searched.is_empty() { "nothing, CNI_PATH is empty".to_owned() } else { searched.join(", ") };
    Err(DelegateError::NotFound { plugin_type: plugin_type.to_owned(), searched })
}

fn is_file_name(plugin_type: &str) -> bool {
    let mut components = Path::new(plugin_type).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !plugin_type.contains(['/', '\0'])
}
